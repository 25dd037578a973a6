"""The benchmarks that are also tests of behaviour, at a small size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_kills_at_random_points_lose_double_and_change_nothing(tmp_path):
    """The hundred kills of benchmarks/results/faults.json, in small: `python benchmarks/faults.py` runs them all."""
    command = [sys.executable, "benchmarks/faults.py", "--storage", str(tmp_path), "--kills", "3", "--images", "30", "--print-only"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    counts = json.loads(finished.stdout.splitlines()[-1])
    assert sum(counts["kills"].values()) == 3
    assert counts["rows_lost"] == counts["rows_doubled"] == counts["shards_differing"] == 0
