"""ray job submit --working-dir . -- python jobs/benchmark.py [CONFIG.yaml] [KEY=VALUE]..."""

import sys

from raysd.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "benchmark")
    main()
