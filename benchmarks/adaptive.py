"""Do rounds that a classifier steers beat one even clone? python benchmarks/adaptive.py --storage runs

Fashion-MNIST, the embedded generator. Each way is run with every clone seed, at the same images and with the same first
round. What decides within the rounds are the last 100 training images of each class; what is reported are the 10,000
test images. Every clone seed has classifiers of its own: seed number k learns from clone number k modulo their number.

`adaptive.json` holds the gain of the best way, chosen on the validation images, over `uniform` at the same images, and
the share of the wall time that is neither generation nor training. A table beside it has a row for each way and size,
with the device seconds of a clone. Needs the full Fashion-MNIST. What is in the storage root is not made again.
"""

import argparse
import csv
from statistics import mean, stdev

from record import RESULTS, metric, write

import raysd
from raysd.config import load_experiment

COMMAND = "python benchmarks/adaptive.py"
WAYS = {
    "uniform": {"way": "uniform"},
    "budgets": {"way": "budgets"},
    "select": {"way": "select"},
    "entropy 0.01": {"way": "entropy", "weight": 0.01},
    "entropy 0.03": {"way": "entropy", "weight": 0.03},
}
TRAINING = {
    "backbone": "resnet18",
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
    "stem_stride": 2,
    "num_epochs": 24,
    "batch_size": 100,
    "num_workers": 1,
    "logger": "none",
}


def experiment(storage, images, clone_seeds, seeds):
    return load_experiment(
        {
            "name": "adaptive",
            "storage": storage,
            "generation": {
                "images_per_class": images,
                "batch_size": 50,
                "guidance_scale": 2,
                "seeds": list(range(clone_seeds)),
            },
            "training": {**TRAINING, "seeds": list(range(seeds))},
            "evaluation": {
                "test_set": "fashion_mnist",
                "validation_set": "fashion_mnist",
                "validation_images_per_class": 100,
            },
            "adaptive": {"num_rounds": 4, "first_share": 0.25},
        }
    )


def scores(answer, role):
    """Top-1 of each classifier of the last rounds, by its place."""
    rows = {row["classifier"]: row["value"] for row in answer.accuracies if row["role"] == role}
    return [rows[name] for name in answer.row["classifiers"]]


def run(storage, sizes, clone_seeds, seeds, ways):
    table, found = [], {}
    for images in sizes:
        for name in ways:
            answer = raysd.adapt(experiment(storage, images, clone_seeds, seeds), COMMAND, adaptive=WAYS[name])
            validation, test = scores(answer, "validation"), scores(answer, "test")
            seconds = answer.row["seconds"]
            found[images, name] = answer, validation, test
            last = [row for row in answer.rounds if row["is_last"]]
            device = sum(row["device_seconds"] or 0 for row in last) / len(last)
            table.append(
                [
                    *(images, name, len(last), len(test), f"{mean(validation):.2f}", f"{mean(test):.2f}"),
                    *(f"{stdev(test):.2f}", f"{device:.0f}"),
                    *(f"{seconds[part]:.0f}" for part in ("generate", "train", "total")),
                ]
            )
    with (RESULTS / "adaptive.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                *("images per class", "way", "clone seeds", "classifiers", "validation", "test", "standard deviation"),
                *("device seconds of a clone", "seconds of generation", "seconds of training", "seconds in all"),
            ]
        )
        writer.writerows(table)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 200, 500])
    parser.add_argument("--clone-seeds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    arguments = parser.parse_args()
    ways = list(dict.fromkeys(["uniform", *arguments.ways]))
    if len(ways) < 2 or arguments.seeds < 2:
        parser.error("name a way beside uniform, and two classifier seeds or more")
    found = run(arguments.storage, arguments.sizes, arguments.clone_seeds, arguments.seeds, ways)
    written, about = [], f"{arguments.clone_seeds} clone seeds, {arguments.seeds} classifiers each"
    for images in arguments.sizes:
        others = [name for name in ways if name != "uniform"]
        best = max(others, key=lambda name: mean(found[images, name][1]))
        gains = [one - other for one, other in zip(found[images, best][2], found[images, "uniform"][2], strict=True)]
        baseline = f"{best}, chosen on validation images, minus uniform at {images} images a class, {about}"
        written.append(
            metric(
                f"adaptive_top1_gain_{images}",
                mean(gains),
                "points",
                "higher",
                baseline=baseline,
                runs=gains,
                command=COMMAND,
            )
        )
    fresh = [answer.row["seconds"] for answer, _, _ in found.values() if answer.row["seconds"]["train"] > 1]
    if fresh:
        shares = [1 - (each["generate"] + each["train"]) / each["total"] for each in fresh]
        written.append(
            metric(
                "adaptive_overhead",
                mean(shares),
                "share",
                "lower",
                baseline="of the wall time, neither generation nor training",
                runs=shares,
                command=COMMAND,
            )
        )
    write("adaptive", written)
