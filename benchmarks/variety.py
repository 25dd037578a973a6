"""Does guidance that keeps variety train better classifiers? python benchmarks/variety.py --storage runs

The embedded generator generates 500 images a class of Fashion-MNIST with each kind of guidance, three times with other
noise; a classifier learns from each clone. Its top-1 is measured on real validation and test images, and its frozen
features are probed on three sets of digits and, where the package animal-mnist is installed, on silhouettes of animals.
What wins on the validation images is compared with the better of plain guidance 1 and 2.

- `guiders`: the table of the kinds, `variety.json` and `variety.csv`, and `variety_top1_gain_500` in adaptive.json.
- `best`: soft labels of the guidance-2 classifiers, for guidance 1, for the best other kind, and for images of
  guidance 1 that are chosen by the teachers' entropy from more; `clone_top1_best` in adaptive.json is the best of all
  on validation images.
- `more`: ten times as many images of the chosen kind, of four clone seeds, and one classifier; `clone_top1_10x` in
  adaptive.json. With `--kind`, nothing else is measured before.

What is in the storage root is not made again, so a run that was stopped goes on. Needs the full Fashion-MNIST.
"""

import argparse
import csv
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev

from record import RESULTS, metric, write

from raysd import commands
from raysd.config import load_experiment

COMMAND = "python benchmarks/variety.py"
CONFIG = Path(__file__).parent.parent / "configs" / "fashion_mnist.yaml"
SEEDS, MORE_SEEDS = [0, 1, 2], [0, 1, 2, 3]
PLAIN = {"guidance 1": {"guidance_scale": 1}, "guidance 2": {"guidance_scale": 2}}
CADS = {"tau1": 0.6, "tau2": 0.9}
GUIDERS = {
    **PLAIN,
    "guidance 4, cads 0.1": {"guidance_scale": 4, "cads": {**CADS, "scale": 0.1}},
    "guidance 4, cads 0.05": {"guidance_scale": 4, "cads": {**CADS, "scale": 0.05}},
    "guidance 4, rising": {"guidance_scale": 4, "guidance_schedule": "rising"},
    "guidance 4 in steps 0.2 to 0.8": {"guidance_scale": 4, "guidance_interval": [0.2, 0.8]},
}
POOL, MIDDLE = 1250, [0.5, 0.9]  # images to choose 500 from, by quantiles of the teachers' entropy
SOFT = {"soft_weight": 0.5, "soft_temperature": 2}
TRANSFER = ["digits", "mnist_5k", "opencv_digits", *(["animal_mnist"] if find_spec("animal_mnist") else [])]
PROBE = {"scale": "standard"}
ROLES = ("validation", "test", "transfer")


def experiment(storage, changes, **more):
    sets = [{"name": name, "probe": PROBE} for name in TRANSFER]
    generation = {**changes, "seeds": more.pop("seeds", SEEDS), **more.pop("generation", {})}
    return load_experiment(CONFIG, storage=storage, generation=generation, evaluation={"transfer_sets": sets}, **more)


def measured(of):
    """Accuracies by role, a value for each classifier; those of transfer are a mean over the sets."""
    commands.generate(of)
    if of.scoring.teachers:
        commands.score(of)
    commands.train(of)
    rows = commands.evaluate(of, COMMAND)
    classifiers = list(dict.fromkeys(row["classifier"] for row in rows))

    def values(role):
        of_role = [row for row in rows if row["role"] == role]
        return [mean(row["value"] for row in of_role if row["classifier"] == each) for each in classifiers]

    found = {role: values(role) for role in ROLES}
    return found, {name: mean(row["value"] for row in rows if row["dataset"] == f"{name}-test") for name in TRANSFER}


def best(found):
    """The kind with the highest mean on the validation images."""
    return max(found, key=lambda name: mean(found[name][0]["validation"]))


def guiders(storage):
    """Measure all kinds."""
    found = {}
    for name, changes in GUIDERS.items():
        found[name] = measured(experiment(storage, changes))
        print(name, {role: f"{mean(values):.2f}" for role, values in found[name][0].items()}, flush=True)
    return found


def by_role(name, values):
    """The entries of a kind."""
    about = f"{name}, 500 images a class, three clones with a classifier each"
    return [
        metric(
            f"{name}: {role}",
            mean(values[role]),
            "percent",
            "higher",
            COMMAND,
            f"{about}, spread {stdev(values[role]):.2f}",
            values[role],
        )
        for role in ROLES
    ]


def report(found):
    """Write the table of the kinds, and what the best one gains."""
    entries = [entry for name, (values, _) in found.items() for entry in by_role(name, values)]
    write("variety", entries)
    with (RESULTS / "variety.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["guidance", *(word for role in ROLES for word in (f"{role}, %", "spread")), *TRANSFER])
        for name, (values, sets) in found.items():
            cells = [f"{number:.2f}" for role in ROLES for number in (mean(values[role]), stdev(values[role]))]
            writer.writerow([name, *cells, *(f"{sets[each]:.2f}" for each in TRANSFER)])
    chosen = best({name: found[name] for name in found if name not in PLAIN})
    against = best({name: found[name] for name in PLAIN})
    gains = [one - other for one, other in zip(found[chosen][0]["test"], found[against][0]["test"], strict=True)]
    about = (
        f"{chosen} minus {against}, both chosen on validation images; test images, three clones with a classifier each"
    )
    write("adaptive", [metric("variety_top1_gain_500", mean(gains), "points", "higher", COMMAND, about, gains)])


def teachers(storage):
    """The guidance-2 classifiers, as an own experiment."""
    return f"{CONFIG} storage={storage} generation.seeds=[0,1,2] generation.guidance_scale=2"


def best_clone(storage, found):
    """The best of all at 500 images a class, on validation images."""
    of_kinds = best({each: found[each] for each in found if each not in PLAIN})
    soft = {f"{name}, soft labels": (GUIDERS[name], SOFT, {}) for name in ("guidance 1", of_kinds)}
    for weight in (0.5, 0.9):
        name = f"guidance 1, 500 of {POOL} by entropy, soft labels of weight {weight}"
        soft[name] = (GUIDERS["guidance 1"], {**SOFT, "soft_weight": weight}, {"entropy": MIDDLE})
    every = dict(found)
    for name, (changes, options, filters) in soft.items():
        images = {"images_per_class": POOL} if filters else {}
        training = {"recipe_options": options, "filters": filters}
        scoring = {"teachers": [teachers(storage)]}
        every[name] = measured(experiment(storage, changes, generation=images, training=training, scoring=scoring))
        print(name, {role: f"{mean(values):.2f}" for role, values in every[name][0].items()}, flush=True)
    chosen = best(every)
    test = every[chosen][0]["test"]
    about = f"{chosen}, of {len(every)} chosen on validation images; test images, spread {stdev(test):.2f}"
    entries = [metric("clone_top1_best", mean(test), "percent", "higher", COMMAND, about, test)]
    write("adaptive", entries)
    write("variety", [of_role for name in soft for of_role in by_role(name, every[name][0])])


def more_images(storage, name):
    """Ten times as many images of a kind."""
    each = {"images_per_class": 5000 // len(MORE_SEEDS)}
    for seed in MORE_SEEDS:
        commands.generate(experiment(storage, GUIDERS[name], seeds=[seed], generation=each))
    sources = [{"clone": {"seed": seed}} for seed in MORE_SEEDS]
    training = {"seeds": [0], "sources": sources}
    of = experiment(storage, GUIDERS[name], seeds=[0], generation=each, training=training)
    commands.train(of)
    test = [row["value"] for row in commands.evaluate(of, COMMAND) if row["role"] == "test"]
    about = f"{name}, {len(MORE_SEEDS)} clone seeds of {each['images_per_class']} images a class each, one classifier; "
    about += "test images"
    write("adaptive", [metric("clone_top1_10x", mean(test), "percent", "higher", COMMAND, about, test)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--parts", nargs="+", choices=["guiders", "best", "more"], default=["guiders", "best", "more"])
    parser.add_argument("--kind", choices=list(GUIDERS), help="of `more`; the best on validation images when left out")
    arguments = parser.parse_args()
    storage = str(Path(arguments.storage).resolve())
    if arguments.kind and arguments.parts != ["more"]:
        parser.error("--kind is for --parts more alone")
    kinds = {} if arguments.kind else guiders(storage)
    if "guiders" in arguments.parts:
        report(kinds)
    if "best" in arguments.parts:
        best_clone(storage, kinds)
    if "more" in arguments.parts:
        more_images(storage, arguments.kind or best(kinds))
