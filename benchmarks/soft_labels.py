"""Do soft labels help, without a single real image? python benchmarks/soft_labels.py --storage runs

The embedded generator generates 500 images a class of Fashion-MNIST, three times with other noise, at guidance 1 and at
guidance 2; a classifier learns from each clone. Then the mean distribution of the three classifiers of guidance 2
labels the images of guidance 1, and classifiers learn from these, with several weights and temperatures. The setting is
chosen on validation images, the gain is that on the test images. What is in the storage root is not made again, so a
run that was stopped goes on. Writes benchmarks/results/soft_labels.json.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

from record import metric, write

from raysd import commands
from raysd.config import load_experiment
from raysd.curation.teachers import mean_logs
from raysd.data.images import encoded_rows
from raysd.data.real_datasets import real_dataset
from raysd.resolve import find_teachers

COMMAND = "python benchmarks/soft_labels.py"
CONFIG = Path(__file__).parent.parent / "configs" / "fashion_mnist.yaml"
BATCH = 500
SETTINGS = ["0.9:2", "0.9:4", "0.5:2", "0.5:4"]
SEEDS = "generation.seeds=[0,1,2]"


def experiment(storage, guidance_scale, *more):
    return load_experiment(CONFIG, [f"storage={storage}", SEEDS, f"generation.guidance_scale={guidance_scale}", *more])


def measured(of):
    """Top-1 on the validation and on the test images, a value per classifier seed."""
    commands.generate(of)
    if of.scoring.teachers:
        commands.score(of)
    commands.train(of)
    rows = commands.evaluate(of, COMMAND)
    return {role: [row["value"] for row in rows if row["role"] == role] for role in ("validation", "test")}


def without_transfer(storage, guidance_scale, *more):
    """The accuracies of a setting; no transfer sets, which this does not report."""
    found = measured(experiment(storage, guidance_scale, "evaluation.transfer_sets=[]", *more))
    print(guidance_scale, *more[1:], {role: f"{mean(values):.2f}" for role, values in found.items()}, flush=True)
    return found


def teachers_top1(of):
    """Top-1 of the teachers' mean distribution on the test images."""
    teachers = [teacher.load() for teacher in find_teachers(of)]
    images, right, count = real_dataset("fashion_mnist", "test", of.root), 0, 0
    for file in images.files():
        encoded, labels = encoded_rows(images, images.read_rows(file))
        for start in range(0, len(labels), BATCH):
            part = slice(start, start + BATCH)
            logs = mean_logs([teacher.log_probabilities(encoded[part]) for teacher in teachers])
            right, count = right + int((logs.argmax(axis=1) == labels[part]).sum()), count + len(labels[part])
    return 100 * right / count


def best(settings):
    """The setting with the highest mean on the validation images."""
    return max(settings, key=lambda name: mean(settings[name]["validation"]))


def main(storage, settings):
    hard = {f"guidance {scale}": without_transfer(storage, scale) for scale in (1, 2)}
    teachers = f'scoring.teachers=["{CONFIG} storage={storage} {SEEDS} generation.guidance_scale=2"]'
    together, soft = teachers_top1(experiment(storage, 1, teachers)), {}
    for setting in settings:
        weight, temperature = map(float, setting.split(":"))
        loss = f"training.recipe_options={{soft_weight: {weight:g}, soft_temperature: {temperature:g}}}"
        soft[f"weight {weight:g}, temperature {temperature:g}"] = without_transfer(storage, 1, teachers, loss)
    report(hard, soft, together)


def report(hard, soft, together):
    about = "the three guidance-2 classifiers as one, by their mean distribution, test images"
    metrics = [metric("teachers_top1", together, "percent", "higher", COMMAND, about)]
    for kind, settings in {"hard": hard, "soft": soft}.items():
        for name, found in settings.items():
            about = f"test images, three clones and classifiers, standard deviation {stdev(found['test']):.2f}; "
            about += f"validation images {mean(found['validation']):.2f}"
            key = name.replace("guidance ", "g").replace("weight ", "w").replace(", temperature ", "_t")
            metrics.append(
                metric(f"{kind}_{key}_top1", mean(found["test"]), "percent", "higher", COMMAND, about, found["test"])
            )
    chosen, against = best(soft), best(hard)
    gains = [one - other for one, other in zip(soft[chosen]["test"], hard[against]["test"], strict=True)]
    about = (
        f"guidance 1 with soft labels of three guidance-2 classifiers ({chosen}) minus hard labels at {against}, both "
        f"chosen on validation images, of {len(soft)} soft settings; test images, standard deviation over three "
        f"clones and classifiers {stdev(gains):.2f}; no teacher saw a real image"
    )
    metrics.append(metric("soft_label_top1_gain_500", mean(gains), "points", "higher", COMMAND, about, gains))
    write("soft_labels", metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="weight:temperature of each soft setting")
    arguments = parser.parse_args()
    main(str(Path(arguments.storage).resolve()), arguments.settings)
