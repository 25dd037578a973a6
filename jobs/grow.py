"""ray job submit --working-dir . -- python jobs/grow.py [CONFIG.yaml] [KEY=VALUE]... --to IMAGES [--classes KEYS]

A job may be run again, so it takes what the classes have in the end, and not how many more.
"""

import sys

from raysd.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "grow")
    main(is_job=True)
