"""Prompt families and recipes on the embedded default: python benchmarks/prompts.py --storage runs

Generates three clones of 200 images a class with each prompt family that the embedded class table allows, at guidance
scale 2, with other noise each, and trains a classifier on each; then trains on the clones of `name` with each recipe,
and with the parts of `paper` switched off one at a time. All are measured on the 10,000 real test images and by 10-shot
probes. Needs the full Fashion-MNIST. Writes benchmarks/results/prompts.json and a table beside it.
"""

import argparse
import csv
from pathlib import Path
from statistics import mean, stdev

from record import RESULTS, metric, write

from raysd import commands
from raysd.config import load_experiment
from raysd.storage.rows import ACCURACY, SWEEP, read_rows

COMMAND = "python benchmarks/prompts.py"
CONFIG = Path(__file__).parent.parent / "configs" / "fashion_mnist.yaml"
FAMILIES = [
    "name",
    "name_hypernym",
    "name_definition",
    "background",
    "multiple",
    "multiple_different",
    "clip_templates",
    "attributes",
]
OWN = {"all_names": "{templates: ['{name}'], names: all}", "name_and_attributes": "{mixture: {name: 1, attributes: 1}}"}
IMAGES, EPOCHS = 200, 24
SIZE = [f"generation.images_per_class={IMAGES}", f"training.num_epochs={EPOCHS}", "generation.seeds=[0, 1, 2]"]
SMALL_PROJECTOR = {"projector_width": 256, "bottleneck_width": 64}
PAPER = {"learning_rate": 0.5, **SMALL_PROJECTOR}
RECIPES = {
    "small": ("small", {}),
    "standard": ("standard", {"learning_rate": 0.1, "final_learning_rate": 0.001}),
    "fast": ("fast", {}),
    "timm": ("timm", {"learning_rate": 0.05, "ema_decay": 0.99, "warmup_share": 0.15}),
    "paper": ("paper", PAPER),
    "paper without multi-crop": ("paper", {**PAPER, "local_crops": 0}),
    "paper without PixMix": ("paper", {**PAPER, "pixmix_rounds": 0}),
    "paper without both": ("paper", {**PAPER, "local_crops": 0, "pixmix_rounds": 0}),
}


def measured(rows):
    """Top-1 on real test images and the mean over the transfer sets, a value per seed."""
    seeds = sorted({row["seed"] for row in rows})
    top1 = [row["value"] for seed in seeds for row in rows if row["seed"] == seed and row["role"] == "test"]
    transfer = [
        mean(row["value"] for row in rows if row["seed"] == seed and row["role"] == "transfer") for seed in seeds
    ]
    return top1, transfer


def families(storage):
    """The rows of each variant's classifiers."""
    variants = [*FAMILIES, *OWN]
    own = [f"variants.{name}={body}" for name, body in OWN.items()]
    space = f"sweep.space.generation={{guidance_scale: [2], variant: [{', '.join(variants)}]}}"
    experiment = load_experiment(CONFIG, [f"storage={storage}", *SIZE, "name=prompts", space, *own])
    commands.sweep(experiment, COMMAND)
    (sweep,) = (row for row in read_rows(experiment.root, SWEEP) if row["name"] == experiment.name)
    wanted = set(sweep["rows"])
    rows = [
        row
        for row in read_rows(experiment.root, ACCURACY)
        if row["fingerprint"] in wanted and row["trained_on"]["kind"] == "clone"
    ]
    return {name: [row for row in rows if row["trained_on"]["variant"] == name] for name in variants}


def recipes(storage):
    """The rows of each recipe's classifiers on the clone of `name`."""
    found = {}
    for name, (recipe, options) in RECIPES.items():
        overrides = [
            f"training.recipe={recipe}",
            *(f"training.recipe_options.{key}={value}" for key, value in options.items()),
        ]
        experiment = load_experiment(CONFIG, [f"storage={storage}", *SIZE, "generation.guidance_scale=2", *overrides])
        commands.generate(experiment)
        commands.train(experiment)
        found[name] = commands.evaluate(experiment, COMMAND)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--parts", nargs="+", default=["families", "recipes"])
    arguments = parser.parse_args()
    storage = str(Path(arguments.storage).resolve())
    entries, table = [], []
    for part in arguments.parts:
        for name, rows in {"families": families, "recipes": recipes}[part](storage).items():
            top1, transfer = measured(rows)
            kind = "prompts" if part == "families" else "recipe"
            about = (
                f"{name}, {IMAGES} generated images a class, guidance 2, {EPOCHS} epochs, top-1 on 10,000 real "
                f"images, seed spread {stdev(top1):.2f}"
            )
            entries.append(metric(f"{kind}: {name}: top-1", mean(top1), "percent", "higher", COMMAND, about, top1))
            about = f"{name}, mean of 10-shot probes on digits and mnist_5k, seed spread {stdev(transfer):.2f}"
            entries.append(
                metric(f"{kind}: {name}: transfer", mean(transfer), "percent", "higher", COMMAND, about, transfer)
            )
            table.append(
                [
                    kind,
                    name,
                    f"{mean(top1):.2f}",
                    f"{stdev(top1):.2f}",
                    f"{mean(transfer):.2f}",
                    f"{stdev(transfer):.2f}",
                ]
            )
        write("prompts", entries)
    with (RESULTS / "prompts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "name", "top-1", "spread", "transfer", "spread"])
        writer.writerows(table)
