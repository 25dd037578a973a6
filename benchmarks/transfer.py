"""Is transfer from a clone on par with transfer from real images? python benchmarks/transfer.py --storage runs
--cifar10 cifar10

The embedded generator generates 500 images a class of Fashion-MNIST, three times with other noise; three classifiers
are trained, each on a clone of its own, three on as many real images, and three not at all. Their frozen features are
probed on every set that needs no download (animal_mnist where its package is installed), and on CIFAR-10 where
`--cifar10` names a folder with train.parquet and test.parquet.
Writes benchmarks/results/transfer.json and transfer.csv.
"""

import argparse
import csv
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev

from record import RESULTS, metric, write

from raysd import commands
from raysd.config import validate_experiment
from raysd.evaluation.compare import compare_classifiers
from raysd.evaluation.evaluate import Evaluation

COMMAND = "python benchmarks/transfer.py"
SOURCES = ("clone", "real", "random")
TRAINING = {
    "backbone": "resnet18",
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
    "stem_stride": 2,
    "num_epochs": 24,
    "batch_size": 100,
    "seeds": [0, 1, 2],
}


def experiment(storage, transfer_sets, real=None):
    generation = {"images_per_class": 500, "batch_size": 50, "guidance_scale": 2, "seeds": [0, 1, 2]}
    evaluation = {"test_set": "fashion_mnist", "transfer_sets": transfer_sets}
    return validate_experiment(
        {"storage": storage, "generation": generation, "training": {**TRAINING, "real": real}, "evaluation": evaluation}
    )


def measured(storage, transfer_sets):
    """Accuracy rows by source."""
    clone, real = experiment(storage, transfer_sets), experiment(storage, transfer_sets, "fashion_mnist")
    commands.generate(clone)
    for each in (clone, real):
        commands.train(each)
    rows = {"clone": commands.evaluate(clone, COMMAND), "real": commands.evaluate(real, COMMAND)}
    evaluation = Evaluation(clone.root, clone.evaluation, clone.table, COMMAND)
    rows["random"] = [row for seed in TRAINING["seeds"] for row in evaluation.measure(untrained(clone, seed))]
    return rows, {row["dataset"]: row for row in compare_classifiers(evaluation, rows["clone"], rows["real"], COMMAND)}


def untrained(experiment, seed):
    from raysd.training.run import TrainingRun
    from raysd.training.train import train_classifiers

    settings = experiment.training.model_copy(update={"seeds": [seed]})
    return train_classifiers(TrainingRun(experiment.root, (), len(experiment.table), settings))[0]


def main(storage, cifar10):
    sets = ["digits", "mnist_5k", "opencv_digits"]
    if find_spec("animal_mnist"):
        sets.append("animal_mnist")
    transfer_sets = [{"name": name} for name in sets]
    if cifar10:
        transfer_sets.append({"name": cifar10})
    rows, comparisons = measured(storage, transfer_sets)
    metrics, lines = [], []
    for name, comparison in comparisons.items():
        spread = {}
        for source in SOURCES:
            values = [row["value"] for row in rows[source] if row["dataset"] == name]
            spread[source] = (mean(values), stdev(values))
            role, count = comparison["role"], comparison["num_images"]
            about = (
                f"{source}-trained, {role}, {count} test images, standard deviation over three seeds "
                f"{stdev(values):.2f}"
            )
            metrics.append(metric(f"{name}_{source}", mean(values), "percent", "higher", COMMAND, about, values))
        gap = [comparison[field] for field in ("difference", "low", "high")]
        about = (
            f"clone minus real, 95 % interval {gap[1]:+.2f} to {gap[2]:+.2f}, p = {comparison['p_value']:.2g}: "
            f"{comparison['verdict']}"
        )
        metrics.append(metric(f"{name}_clone_minus_real", gap[0], "points", "higher", COMMAND, about, gap))
        cells = [f"{value:.2f}" for source in SOURCES for value in spread[source]]
        lines.append(
            [
                name,
                comparison["role"],
                comparison["num_images"],
                *cells,
                *(f"{value:+.2f}" for value in gap),
                f"{comparison['p_value']:.3g}",
                comparison["verdict"],
            ]
        )
    with (RESULTS / "transfer.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        heads = [f"{source}{part}" for source in SOURCES for part in (", %", " spread")]
        writer.writerow(["set", "role", "test images", *heads, "clone minus real", "low", "high", "p value", "verdict"])
        writer.writerows(lines)
    write("transfer", metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--cifar10")
    arguments = parser.parse_args()
    main(str(Path(arguments.storage).resolve()), arguments.cifar10)
