"""ray job submit --working-dir . -- python jobs/adapt.py [CONFIG.yaml] [KEY=VALUE]..."""

from raysd.cli import run_job

if __name__ == "__main__":
    run_job("adapt")
