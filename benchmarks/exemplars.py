"""What guidance by exemplars does to labels and variety: python benchmarks/exemplars.py --storage runs/exemplars

The embedded generator, with the figures of benchmarks/samplers.py: 300 images a setting and clone seed, their agreement
with a judge, their spread, and the top-1 of a random forest that learns from them alone.

1. A classifier learns from a clone of 100 images a class at guidance 2. Images are compared in its features; it saw no
   real image.
2. Images are guided by 2 or 8 exemplars a class, at guidance 1 and 2: the first real images of each class, or the
   medoids of 100 generated ones.
3. Beside them stand the clones without exemplars, the real exemplars alone, and both together: what the same real
   images are worth without guidance.

Images are kept below --storage, and a second call goes on from there. Needs the real Fashion-MNIST.
"""

import argparse
from pathlib import Path
from statistics import mean

import numpy as np
import record
import torch
from samplers import NUM_JUDGED, NUM_TEST, PER_CLASS, figures, forest, images_of

import raysd
from raysd.config import load_experiment
from raysd.data.catalog import load_fashion_mnist
from raysd.resolve import clone_spec_of

COMMAND = "python benchmarks/exemplars.py --storage runs/exemplars"
POOL, LEARNT = 100, 100  # images of a class: of the clone without guidance, and of the clone of the classifier
TRAINING = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
    "stem_stride": 2,
    "num_epochs": 24,
    "batch_size": 100,
    "num_workers": 1,
    "logger": "none",
    "seeds": [0],
}
UNITS = {"agreement": "percent", "spread": "gray levels", "top1": "percent"}


def settings():
    """Each setting by name: its guidance scale, and its exemplars, if there are any."""
    found = {f"g{scale}": (scale, None) for scale in (1, 2)}
    for scale in (1, 2):
        for count in (2, 8):
            for source, images in (("real", "fashion_mnist"), ("own", "own")):
                found[f"{source}_{count}_g{scale}"] = (scale, {"images": images, "per_class": count})
    for weight in (0.02, 0.1, 0.2):
        name = f"weight_{weight:g}".replace(".", "_")
        for source, images in (("real", "fashion_mnist"), ("own", "own")):
            found[f"{source}_8_g2_{name}"] = (2, {"images": images, "per_class": 8, "weight": weight})
    return found


def train_classifier(storage):
    """Return the folder of a classifier that saw generated images alone; make the clone without guidance, too."""
    values = {"storage": storage, "generation": {"guidance_scale": 2, "images_per_class": LEARNT}}
    raysd.generate(values)
    raysd.generate(values, generation={"guidance_scale": 1, "images_per_class": POOL})
    (trained,) = raysd.train(values, training=TRAINING)
    return trained.path


def spec_of(storage, classifier, scale, exemplars, seed):
    guidance = None if exemplars is None else {"model": classifier, **exemplars}
    generation = {"guidance_scale": scale, "exemplar_guidance": guidance, "seed": seed}
    return clone_spec_of(load_experiment({"storage": storage, "generation": generation}))


def read_exemplars(spec):
    """Gray exemplars [N, H, W] and their labels."""
    exemplars = spec.exemplar_guide.exemplars
    each = [(image[..., 0], label) for label in range(len(spec.table)) for image in exemplars.read(label)]
    return np.stack([image for image, _ in each]), np.array([label for _, label in each])


def top1(images, labels, test):
    return 100 * forest().fit(images.reshape(len(images), -1), labels).score(test[0].reshape(len(test[0]), -1), test[1])


def measure(folder, seeds, only):
    """Metrics of each setting, and of the real exemplars without guidance."""
    (images, labels), test = load_fashion_mnist("train"), tuple(part[:NUM_TEST] for part in load_fashion_mnist("test"))
    judge = forest().fit(images[:NUM_JUDGED].reshape(NUM_JUDGED, -1), labels[:NUM_JUDGED])
    storage, generators = str(folder / "runs"), {}
    classifier = train_classifier(storage)
    clones = {}
    for name, (scale, exemplars) in settings().items():
        if only and name not in only:
            continue
        specs = [spec_of(storage, classifier, scale, exemplars, seed) for seed in seeds]
        clones[name] = [images_of(spec, generators, folder) for spec in specs]
        found = [figures(*each, judge, test) for each in clones[name]]
        shown = "no exemplars" if exemplars is None else str(specs[0].exemplar_guide).removeprefix("exemplar guidance ")
        about = f"guidance {scale}, {shown}, {10 * PER_CLASS} images for each of {len(seeds)} clone seeds"
        yield [metric(f"{name}_{key}", unit, about, [each[key] for each in found]) for key, unit in UNITS.items()]
    for count in (2, 8):
        spec = spec_of(storage, classifier, 2, {"images": "fashion_mnist", "per_class": count}, 0)
        real = read_exemplars(spec)
        yield [metric(f"real_{count}_alone_top1", "percent", f"{10 * count} real images alone", [top1(*real, test)])]
        if "g2" in clones:
            both = [tuple(map(np.concatenate, zip(real, clone, strict=True))) for clone in clones["g2"]]
            about = f"{10 * count} real images beside the clone at guidance 2 without exemplars"
            yield [metric(f"real_{count}_beside_g2_top1", "percent", about, [top1(*each, test) for each in both])]


def metric(name, unit, about, runs):
    return record.metric(name, mean(runs), unit, "higher", COMMAND, about, runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, type=Path, help="folder for the images")
    parser.add_argument("--seeds", type=int, default=1, help="number of clone seeds")
    parser.add_argument("--only", nargs="+", help="names of settings, as real_2_g2; all when left out")
    options = parser.parse_args()
    options.storage.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for metrics in measure(options.storage, range(options.seeds), options.only):
        record.write("exemplars", metrics)
