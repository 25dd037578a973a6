"""ray job submit --working-dir . -- python jobs/caption.py [CONFIG.yaml] [KEY=VALUE]..."""

from raysd.cli import run_job

if __name__ == "__main__":
    run_job("caption")
