"""The demo's figures: python benchmarks/demo.py --storage runs

Runs the demo from nothing, and once more as on a CPU without bfloat16; then a sweep over the guidance scale with 500
generated images a class, as many real ones beside, and at last trains on all 60,000 real images. Each of the three
classifier seeds of the sweep has a clone of its own, with noise of its own. Needs the full Fashion-MNIST. What is in
the storage root already is not made again, except the demo. Writes benchmarks/results/demo.json and a table of all rows
beside it. Each part alone: `--parts demo sweep`.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

import record
from record import RESULTS

from raysd import commands
from raysd.config import load_experiment
from raysd.diffusion.checkpoint import EMBEDDED
from raysd.storage.rows import ACCURACY, SWEEP, read_rows

ROOT = Path(__file__).parent.parent
COMMAND = "python benchmarks/demo.py"
CONFIG = ROOT / "configs" / "fashion_mnist.yaml"
FULL_EPOCHS = 6
FLOAT32 = ["generation.dtype=float32", "training.precision=float32"]


def run_demo(storage, *overrides, **variables):
    """Seconds of the whole demo in a process of its own, with an empty home."""
    folder = Path(storage) / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "raysd.cli", "demo", f"storage={folder}", *overrides]
    with tempfile.TemporaryDirectory() as home:
        began = time.monotonic()
        subprocess.run(command, check=True, env={**environment, "HOME": home, **variables})
        return time.monotonic() - began


def test_accuracies(rows, variant=None, guidance_scale=None, kind="clone"):
    """Top-1 on the 10,000 real test images, one value per classifier seed."""
    of = [row for row in rows if row["role"] == "test" and row["trained_on"]["kind"] == kind]
    if kind == "clone":
        of = [
            row
            for row in of
            if (row["trained_on"]["variant"], row["trained_on"]["guidance_scale"]) == (variant, guidance_scale)
        ]
    return [row["value"] for row in sorted(of, key=lambda row: row["seed"])]


def run_sweep(storage):
    """The sweep at 500 images a class: its row, and the rows of its classifiers."""
    experiment = load_experiment(
        CONFIG,
        [
            f"storage={storage}",
            "generation.seeds=[0, 1, 2]",
            "sweep.space.generation={guidance_scale: [1, 2, 4, 7.5], variant: [name]}",
        ],
    )
    commands.sweep(experiment, COMMAND)
    (sweep,) = (row for row in read_rows(experiment.root, SWEEP) if row["name"] == experiment.name)
    wanted = set(sweep["rows"])
    return sweep, [row for row in read_rows(experiment.root, ACCURACY) if row["fingerprint"] in wanted]


def train_on_everything(storage):
    """Top-1 of a classifier of all real images."""
    overrides = [
        "training.real=fashion_mnist",
        "generation.images_per_class=6000",
        f"training.num_epochs={FULL_EPOCHS}",
        "training.seeds=[0]",
        "evaluation.validation_set=null",  # all of its images are trained on
    ]
    experiment = load_experiment(CONFIG, [f"storage={storage}", *overrides])
    commands.train(experiment)
    return test_accuracies(commands.evaluate(experiment, COMMAND), kind="real")


def write_table(rows):
    """Mean and spread over the seeds of each setting and set."""
    groups = {}
    for row in rows:
        groups.setdefault((row["trained_on"]["name"], row["role"], row["dataset"]), []).append(row["value"])
    with (RESULTS / "demo.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trained on", "role", "measured on", "mean", "standard deviation", "seeds"])
        for (trained_on, role, dataset), values in groups.items():
            writer.writerow([trained_on, role, dataset, f"{mean(values):.2f}", f"{stdev(values):.2f}", len(values)])


def metric(*arguments, **options):
    record.write("demo", [record.metric(*arguments, **options, command=COMMAND)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--parts", nargs="+", choices=("demo", "sweep"), default=["demo", "sweep"])
    arguments = parser.parse_args()
    storage = str(Path(arguments.storage).resolve())
    size = sum(path.stat().st_size for path in EMBEDDED.rglob("*.safetensors"))
    metric("model_bytes", size, "bytes", "lower", baseline="at most 6 MiB")
    if "demo" in arguments.parts:
        seconds = run_demo(storage)
        metric("demo_seconds", seconds, "s", "lower", baseline="the whole demo from nothing", runs=[seconds])
        seconds = run_demo(storage, *FLOAT32, ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2")
        about = "the whole demo from nothing, as on a CPU with AVX2 alone, in float32"
        metric("demo_seconds_without_bfloat16", seconds, "s", "lower", baseline=about, runs=[seconds])
    if "sweep" not in arguments.parts:
        raise SystemExit
    sweep, rows = run_sweep(storage)
    write_table(rows)
    best = sweep["best"]["guidance_scale"]
    clone, usual = (test_accuracies(rows, "name", scale) for scale in (best, 7.5))
    about = (
        f"guidance {best:g} (chosen on validation images), name prompt, 500 images a class, a clone each, seed spread "
        f"{stdev(clone):.2f}"
    )
    metric("clone_top1_real_test", mean(clone), "percent", "higher", baseline=about, runs=clone)
    effect = [one - other for one, other in zip(clone, usual, strict=True)]
    metric(
        "guidance_effect",
        mean(effect),
        "points",
        "higher",
        baseline=f"guidance {best:g} minus 7.5, same clone seeds and classifier seeds",
        runs=effect,
    )
    real = test_accuracies(rows, kind="real")
    metric("real_top1_same_size", mean(real), "percent", "higher", baseline="500 real images a class", runs=real)
    full = train_on_everything(storage)
    metric(
        "real_top1_full",
        mean(full),
        "percent",
        "higher",
        baseline=f"60,000 real images, {FULL_EPOCHS} epochs, one seed",
        runs=full,
    )
