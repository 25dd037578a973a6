"""Do rounds that a classifier steers beat one even clone? python benchmarks/adaptive.py --storage runs

Fashion-MNIST, the embedded generator. Each way is run with every clone seed, at the same images and with the same share
of them in the first round. What decides within the rounds are the last 100 training images of each class; what is
reported are the 10,000 test images, and probes on sets of digits and, where the package animal-mnist is installed, on
silhouettes of animals. Every clone seed has classifiers of its own: seed number k learns from clone number k modulo
their number. All figures are means over the clone seeds, each of them a mean over its classifiers.

`adaptive.json` holds, for each size, the gain of the best way over the best even clone that is trained as it is, both
chosen on the validation images: at the same images, and at the same device seconds of generation, for which the even
clone has more images. For the largest size it has the share of the images to train on with which the best way comes as
far; and the share of the rounds' wall time that is neither generation nor training, which is larger where an earlier
way has generated the images. `adaptive.csv` has a row for each way and size. Needs the full Fashion-MNIST. What is in
the storage root is not made again.
"""

import argparse
import csv
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from statistics import mean, stdev

import numpy as np
from record import RESULTS, metric, write

import raysd
from raysd import commands
from raysd.config import load_experiment
from raysd.evaluation.evaluate import Evaluation
from raysd.resolve import replicates

COMMAND = "python benchmarks/adaptive.py"
CONTINUED = {"training": "continued"}
EVEN = {
    "uniform": ({"way": "uniform"}, 2),
    "uniform, guidance 1": ({"way": "uniform"}, 1),
    "uniform, continued": ({"way": "uniform", **CONTINUED}, 2),
}
WAYS = {
    **EVEN,
    "budgets": ({"way": "budgets"}, 2),
    "budgets, continued": ({"way": "budgets", **CONTINUED}, 2),
    "select": ({"way": "select"}, 2),
    "select, agreement": ({"way": "select", "agreement": True}, 2),
    "select, agreement, guidance 1": ({"way": "select", "agreement": True}, 1),
    "entropy 0.01": ({"way": "entropy", "weight": 0.01}, 2),
    "entropy 0.03": ({"way": "entropy", "weight": 0.03}, 2),
    "entropy 0.1": ({"way": "entropy", "weight": 0.1}, 2),
    "entropy 0.3": ({"way": "entropy", "weight": 0.3}, 2),
}
"""The section `adaptive` and the guidance scale of each."""
TRANSFER = ["digits", "mnist_5k", "opencv_digits", *(["animal_mnist"] if find_spec("animal_mnist") else [])]
TRAINING = {
    "backbone": "resnet18",
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
    "stem_stride": 2,
    "num_epochs": 24,
    "batch_size": 100,
    "num_workers": 1,
    "logger": "none",
}

HEADER = [
    *("images per class", "way", "clone seeds", "classifiers", "validation", "test", "standard deviation"),
    *("transfer", "its standard deviation", "device seconds of a clone", "seconds of generation"),
    *("seconds of training", "seconds in all"),
]


def experiment(storage, images, clone_seeds, seeds, guidance_scale):
    return load_experiment(
        {
            "name": "adaptive",
            "storage": storage,
            "generation": {
                "images_per_class": images,
                "batch_size": 50,
                "guidance_scale": guidance_scale,
                "seeds": list(range(clone_seeds)),
            },
            "training": {**TRAINING, "seeds": list(range(seeds))},
            "evaluation": {
                "test_set": "fashion_mnist",
                "validation_set": "fashion_mnist",
                "validation_images_per_class": 100,
                "transfer_sets": [{"name": name, "probe": {"scale": "standard"}} for name in TRANSFER],
            },
            "adaptive": {"num_rounds": 4, "first_share": 0.25},
        }
    )


def by_clone(rows, role, groups):
    """Accuracy of each clone seed: a mean over its classifiers and the sets of the role."""
    of_role = [row for row in rows if row["role"] == role]
    return [mean(row["value"] for row in of_role if row["classifier"] in group) for group in groups]


@dataclass
class Result:
    """What a way came to at a size."""

    experiment: object
    answer: object

    def top1(self, role):
        """Accuracy of each clone seed after its last round."""
        groups = [row["classifiers"] for row in self.answer.rounds if row["is_last"]]
        return by_clone(self.answer.accuracies, role, groups)

    @property
    def seconds(self):
        return self.answer.row["seconds"]

    @property
    def overhead(self):
        """Share of the rounds' wall time that is neither generation nor training."""
        seconds = [row["seconds"] for row in self.answer.rounds]
        return 1 - sum(each["generate"] + each["train"] for each in seconds) / sum(each["total"] for each in seconds)

    @cached_property
    def device_seconds(self):
        """Of generating a clone, mean over the clone seeds."""
        return mean(row["device_seconds"] for row in self.answer.rounds if row["is_last"])

    @cached_property
    def curve(self):
        """Images of a class to train on, and top-1 on the test images of the first classifier of each round, means over
        the clone seeds."""
        test = Evaluation(self.experiment.root, self.experiment.evaluation, self.experiment.table, COMMAND)
        test = test.confined(["test"])
        points = {}
        for row in self.answer.rounds:
            size = row["num_images"] / len(row["class_names"])
            value = test.measure(row["classifiers"][0], here=True)[0]["value"]
            points.setdefault(row["number"], []).append((size, value))
        return [tuple(np.mean(points[number], axis=0)) for number in sorted(points)]


def images_for(curve, accuracy):
    """Images of a class at which a rising curve comes to an accuracy, in a line between two rounds; None if it does
    not."""
    for (before, low), (after, high) in pairwise(curve):
        if high >= accuracy:
            return before if low >= accuracy else before + (after - before) * (accuracy - low) / (high - low)
    return None


def run(storage, sizes, clone_seeds, seeds, ways):
    found = {}
    for images in sizes:
        for name in ways:
            adaptive, guidance_scale = WAYS[name]
            of = experiment(storage, images, clone_seeds, seeds, guidance_scale)
            result = found[images, name] = Result(of, raysd.adapt(of, COMMAND, adaptive=adaptive))
            top1 = {role: f"{mean(result.top1(role)):.2f}" for role in ("validation", "test", "transfer")}
            print(images, name, top1, f"{result.device_seconds:.0f} s", f"overhead {result.overhead:.3f}", flush=True)
    return found


def table(found):
    """Put the rows of all ways and sizes into the table, in the place of older ones."""
    path, rows = RESULTS / "adaptive.csv", {}
    with path.open(newline="") as file:
        header, *older = csv.reader(file)
    if header == HEADER:
        rows = {(int(row[0]), row[1]): row for row in older}
    for (images, name), result in found.items():
        test, transfer = result.top1("test"), result.top1("transfer")
        rows[images, name] = [
            *(images, name, len(test), len(result.answer.row["classifiers"])),
            *(f"{number:.2f}" for number in (mean(result.top1("validation")), mean(test), stdev(test))),
            *(f"{mean(transfer):.2f}", f"{stdev(transfer):.2f}", f"{result.device_seconds:.0f}"),
            *(f"{result.seconds[part]:.0f}" for part in ("generate", "train", "total")),
        ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *(rows[key] for key in sorted(rows))])


def best(found, images, names):
    """The way with the highest mean on the validation images."""
    return max(names, key=lambda name: mean(found[images, name].top1("validation")))


def same_seconds(storage, clone_seeds, seeds, even, seconds):
    """Top-1 on the test images of an even clone that takes so many device seconds, and its images of a class."""
    images = round(even.experiment.generation.images_per_class * seconds / even.device_seconds)
    of = experiment(storage, images, clone_seeds, seeds, even.experiment.generation.guidance_scale)
    commands.generate(of)
    names = {classifier.seed: classifier.fingerprint for classifier in commands.train(of)}
    groups = [[names[seed] for seed in each.training.seeds] for each in replicates(of)]
    return by_clone(commands.evaluate(of, COMMAND), "test", groups), images


def differences(ones, others):
    return [one - other for one, other in zip(ones, others, strict=True)]


def evens(way, ways):
    """The even clones that are trained as a way is."""
    return [name for name in ways if name in EVEN and EVEN[name][0].get("training") == WAYS[way][0].get("training")]


def report(storage, found, sizes, clone_seeds, seeds, ways, with_seconds):
    written, about = [], f"{clone_seeds} clone seeds, {seeds} classifiers in all"
    for images in sizes:
        way = best(found, images, [name for name in ways if name not in EVEN])
        even = best(found, images, evens(way, ways))
        chosen, against = found[images, way], found[images, even]
        gains = differences(chosen.top1("test"), against.top1("test"))
        what = f"{way} minus {even}, both chosen on validation images, at {images} images a class, {about}"
        written.append(metric(f"adaptive_top1_gain_{images}", mean(gains), "points", "higher", COMMAND, what, gains))
        gains = differences(chosen.top1("transfer"), against.top1("transfer"))
        note = f"{what}; mean of probes on {', '.join(TRANSFER)}"
        written.append(
            metric(f"adaptive_transfer_gain_{images}", mean(gains), "points", "higher", COMMAND, note, gains)
        )
        if with_seconds and "continued" not in way:
            longer, more = same_seconds(storage, clone_seeds, seeds, against, chosen.device_seconds)
            gains = differences(chosen.top1("test"), longer)
            what = f"{way} at {images} images a class minus {even} at {more}, for the same device seconds of "
            name = f"adaptive_top1_gain_{images}_equal_seconds"
            written.append(metric(name, mean(gains), "points", "higher", COMMAND, f"{what}generation, {about}", gains))
    goal = against.curve[-1][1]
    needed = images_for(chosen.curve, goal)
    what = f"images a class to train on with which {way} has the {goal:.2f} % of {even} at {images}, over {images}; "
    what += f"between two rounds in a line, first classifier of each round, test images, {clone_seeds} clone seeds"
    if needed is None:
        what = f"more than 1: {way} does not come to the {goal:.2f} % of {even} at {images}; its rounds: {chosen.curve}"
    ratio = 1 if needed is None else needed / images
    written.append(metric("adaptive_images_ratio", ratio, "share", "lower", COMMAND, what))
    shares = [result.overhead for result in found.values()]
    what = "share of the rounds' wall time that is neither generation nor training: " + ", ".join(
        f"{name} at {images}" for images, name in found
    )
    written.append(metric("adaptive_overhead", mean(shares), "share", "lower", COMMAND, what, shares))
    write("adaptive", written)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 200, 500])
    parser.add_argument("--clone-seeds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--no-equal-seconds", action="store_true", help="leave out the larger even clones")
    arguments = parser.parse_args()
    ways = list(dict.fromkeys(["uniform", *arguments.ways]))
    if not set(ways) - set(EVEN) or arguments.clone_seeds < 2 or arguments.seeds < arguments.clone_seeds:
        parser.error("name a way beside uniform, two clone seeds or more, and a classifier seed for each")
    if alone := [name for name in ways if not evens(name, ways)]:
        parser.error(f"{', '.join(alone)}: name an even clone that is trained alike")
    sizes = sorted(arguments.sizes)
    found = run(arguments.storage, sizes, arguments.clone_seeds, arguments.seeds, ways)
    table(found)
    report(
        arguments.storage, found, sizes, arguments.clone_seeds, arguments.seeds, ways, not arguments.no_equal_seconds
    )
