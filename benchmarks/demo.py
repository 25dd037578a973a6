"""The demo's figures: python benchmarks/demo.py --storage runs

Runs the demo from nothing, then trains on 500 drawn pictures a class at the demo's best guidance scale and at 7.5, on as many real pictures, and on
all real ones. Needs the full Fashion-MNIST. What is in the storage root already is not made again, except the demo. Writes
benchmarks/results/demo.json.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

from raysd import verbs
from raysd.clone.model import EMBEDDED
from raysd.config import load_experiment
from raysd.storage.location import Location
from raysd.storage.results import read_results
from raysd.versions import versions

ROOT = Path(__file__).parent.parent
COMMAND = "python benchmarks/demo.py"
CONFIG = ROOT / "configs" / "fashion_mnist.yaml"
FULL_EPOCHS = 3


def run_demo(storage):
    """Seconds of the whole demo in a process of its own, and its sweep row."""
    folder = Path(storage) / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "raysd.cli", "demo", f"storage={folder}"], check=True, env=environment)
    seconds = time.monotonic() - began
    (row,) = read_results(Location(str(folder)), "sweep")
    return seconds, row


def test_accuracies(storage, *overrides):
    """Top-1 on the 10,000 real test pictures, one value per seed."""
    experiment = load_experiment(CONFIG, [f"storage={storage}", *overrides])
    if experiment.training.real is None:
        verbs.generate(experiment)
    verbs.train(experiment)
    return [row["value"] for row in verbs.evaluate(experiment, COMMAND) if row["role"] == "test"]


def metric(name, value, unit, better, baseline="", runs=()):
    record = {"metric": name, "value": round(value, 3), "unit": unit, "better": better, "baseline": baseline, "runs": [round(run, 3) for run in runs]}
    record |= {"command": COMMAND, "date": time.strftime("%Y-%m-%d"), "versions": versions(), "machine": f"{os.cpu_count()} cores, {platform.machine()}"}
    print(name, record["value"], unit, record["runs"], flush=True)
    return record


def write(metrics):
    (ROOT / "benchmarks" / "results" / "demo.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    storage = str(Path(parser.parse_args().storage).resolve())
    size = sum(path.stat().st_size for path in EMBEDDED.rglob("*.safetensors"))
    metrics = [metric("model_bytes", size, "bytes", "lower", "at most 6 MiB")]
    seconds, sweep = run_demo(storage)
    metrics.append(metric("demo_seconds", seconds, "s", "lower", "the whole demo from nothing", [seconds]))
    write(metrics)
    best = sweep["best"]["guidance_scale"]
    clone = test_accuracies(storage, f"generation.guidance_scale={best}")
    about = f"guidance {best:g}, name prompt, 500 pictures a class, seed spread {stdev(clone):.2f}"
    metrics.append(metric("clone_top1_real_test", mean(clone), "percent", "higher", about, clone))
    write(metrics)
    usual = test_accuracies(storage, "generation.guidance_scale=7.5")
    effect = [one - other for one, other in zip(clone, usual, strict=True)]
    metrics.append(metric("guidance_effect", mean(effect), "points", "higher", f"guidance {best:g} minus 7.5, same classifier seeds", effect))
    write(metrics)
    real = test_accuracies(storage, "training.real=fashion_mnist")
    metrics.append(metric("real_top1_same_size", mean(real), "percent", "higher", "500 real pictures a class", real))
    write(metrics)
    everything = ["training.real=fashion_mnist", "generation.images_per_class=6000", f"training.num_epochs={FULL_EPOCHS}", "training.seeds=[0]"]
    full = test_accuracies(storage, *everything)
    metrics.append(metric("real_top1_full", mean(full), "percent", "higher", f"60,000 real pictures, {FULL_EPOCHS} epochs, one seed", full))
    write(metrics)
