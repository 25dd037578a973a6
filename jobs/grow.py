"""ray job submit --working-dir . -- python jobs/grow.py [CONFIG.yaml] [KEY=VALUE]... --to IMAGES [--classes KEYS]

A job may be run again, so it takes what the classes have in the end, and not how many more.
"""

from raysd.cli import run_job

if __name__ == "__main__":
    run_job("grow")
