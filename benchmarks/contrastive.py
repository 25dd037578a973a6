"""Does a contrastive loss help transfer? python benchmarks/contrastive.py --storage runs

The embedded generator generates 200 images a class of Fashion-MNIST with `attributes` prompts at guidance 2, several
times with other noise. On each clone a classifier with a projector learns by cross-entropy alone, and by cross-entropy
and the contrastive loss with images of one class, or of one class and prompt, as positives; and one without a projector
by cross-entropy. All are measured on the
10,000 real test images and by 10-shot probes on three sets of digits. What is in the storage root is not made again, so
a run that was stopped goes on. Writes benchmarks/results/contrastive.json.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

from record import metric, write

from raysd import commands
from raysd.config import load_experiment

COMMAND = "python benchmarks/contrastive.py"
CONFIG = Path(__file__).parent.parent / "configs" / "fashion_mnist.yaml"
SETS = ["digits", "mnist_5k", "opencv_digits"]
PROJECTOR = {"head": "projector", "projector_width": 256, "bottleneck_width": 64}
SETTINGS = {
    "no projector": {},
    "cross-entropy": PROJECTOR,
    "class": {**PROJECTOR, "contrastive_weight": 1, "contrastive_groups": "class"},
    "prompt": {**PROJECTOR, "contrastive_weight": 1, "contrastive_groups": "prompt"},
}
IMAGES, EPOCHS = 200, 24


def experiment(storage, seeds, options):
    probes = ", ".join(f"{{name: {name}, shots: 10, probe: {{scale: standard}}}}" for name in SETS)
    recipe = ", ".join(f"{name}: {value}" for name, value in options.items())
    numbers = list(range(seeds))
    return load_experiment(
        CONFIG,
        [
            f"storage={storage}",
            f"generation={{images_per_class: {IMAGES}, guidance_scale: 2, variant: attributes, seeds: {numbers}}}",
            f"training={{num_epochs: {EPOCHS}, seeds: {numbers}, recipe_options: {{{recipe}}}}}",
            "evaluation.validation_set=null",
            f"evaluation.transfer_sets=[{probes}]",
        ],
    )


def measured(of):
    """Top-1 on the test images, and the mean over the transfer sets, a value per seed."""
    commands.generate(of)
    commands.train(of)
    rows = [row for row in commands.evaluate(of, COMMAND) if row["role"] in ("test", "transfer")]
    by_seed = [[row for row in rows if row["seed"] == seed] for seed in of.training.seeds]
    top1 = [row["value"] for own in by_seed for row in own if row["role"] == "test"]
    return top1, [mean(row["value"] for row in own if row["role"] == "transfer") for own in by_seed]


def main(storage, seeds):
    found = {name: measured(experiment(storage, seeds, options)) for name, options in SETTINGS.items()}
    metrics = []
    for name, (top1, transfer) in found.items():
        about = f"{IMAGES} images a class, attributes prompts, guidance 2, {EPOCHS} epochs, {name}, projector 256 wide"
        about = about.replace("no projector, projector 256 wide", "no projector")
        for what, values in (("top1", top1), ("transfer", transfer)):
            of = "10,000 real test images" if what == "top1" else f"mean of 10-shot probes on {', '.join(SETS)}"
            note = f"{about}; {of}; standard deviation over {seeds} clones and classifiers {stdev(values):.2f}"
            metrics.append(metric(f"{name}_{what}", mean(values), "percent", "higher", COMMAND, note, values))
    for name in ("class", "prompt"):
        for number, what in enumerate(("top1", "transfer")):
            gains = [
                one - other for one, other in zip(found[name][number], found["cross-entropy"][number], strict=True)
            ]
            note = f"contrastive loss by {name} beside cross-entropy minus cross-entropy alone, on the same clones; "
            note += f"standard deviation over {seeds} {stdev(gains):.2f}"
            metrics.append(
                metric(f"contrastive_{name}_{what}_gain", mean(gains), "points", "higher", COMMAND, note, gains)
            )
    write("contrastive", metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--seeds", type=int, default=3, help="clones, with a classifier each")
    arguments = parser.parse_args()
    main(str(Path(arguments.storage).resolve()), arguments.seeds)
