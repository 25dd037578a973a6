"""Result files of the benchmarks: one JSON list per benchmark, one entry per metric."""

import json
import os
import platform
import time
from pathlib import Path

from raysd.versions import versions

RESULTS = Path(__file__).parent / "results"


def metric(name, value, unit, better, command, baseline="", runs=()):
    """One entry; it is printed too."""
    entry = {
        "metric": name,
        "value": round(float(value), 3),
        "unit": unit,
        "better": better,
        "baseline": baseline,
        "runs": [round(float(run), 3) for run in runs],
    }
    entry |= {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    }
    print(name, entry["value"], unit, entry["runs"], flush=True)
    return entry


def write(benchmark, metrics):
    """Put the entries into the benchmark's file, in the place of older ones of the same name."""
    path = RESULTS / f"{benchmark}.json"
    known = json.loads(path.read_text()) if path.exists() else []
    merged = {entry["metric"]: entry for entry in known} | {entry["metric"]: entry for entry in metrics}
    path.write_text(json.dumps(list(merged.values()), indent=2) + "\n")
