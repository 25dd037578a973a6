"""What guidance by exemplars does to labels and variety: python benchmarks/exemplars.py --storage runs/exemplars

The embedded generator, with the figures of benchmarks/samplers.py: 300 images a setting and clone seed, their agreement
with a judge, their spread, and the top-1 of a random forest that learns from them alone.

1. A classifier learns from 100 images a class at guidance 2, here in this process. Images are compared in its features;
   it saw no real image.
2. Images are guided by 2 or 8 exemplars a class, at guidance 1 and 2: the first real images of each class, or the
   medoids of 100 generated ones.
3. Beside them stand the clones without exemplars, the real exemplars alone, and both together: what the same real
   images are worth without guidance.

All runs in one process, without Ray. Images are kept below --storage, and a second call goes on from there. Needs the
real Fashion-MNIST.
"""

import argparse
from pathlib import Path
from statistics import mean

import numpy as np
import record
import torch
from samplers import BATCH, NUM_JUDGED, NUM_TEST, PER_CLASS, figures, forest, images_of
from torch.nn import functional

from raysd.classifier.architecture import Architecture, load_record
from raysd.classifier.model import build_classifier, normalize, save_classifier
from raysd.clone.record import begin_record, end_record
from raysd.clone.scan import check_shards
from raysd.config import load_experiment
from raysd.data.catalog import load_fashion_mnist
from raysd.data.images import decode_all
from raysd.generation.actor import GenerationActor
from raysd.resolve import clone_images, clone_of, clone_spec_of
from raysd.storage.location import Location

COMMAND = "python benchmarks/exemplars.py --storage runs/exemplars --seeds 2"
POOL, LEARNT = 100, 100  # images of a class: of the clone without guidance, and of the clone of the classifier
ARCHITECTURE = Architecture("resnet18", {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}, 10, 32, 2)
NUM_EPOCHS, NUM_LEARNT = 24, 100  # images at once
MORE = {
    "weight_0_2": {"weight": 0.2},
    "every_2": {"every": 2},
}
UNITS = {"agreement": "percent", "spread": "gray levels", "top1": "percent"}


def settings():
    """Each setting by name: its guidance scale, and its exemplars, if there are any."""
    found = {f"g{scale}": (scale, None) for scale in (1, 2)}
    for scale in (1, 2):
        for count in (2, 8):
            for source, images in (("real", "fashion_mnist"), ("own", "own")):
                found[f"{source}_{count}_g{scale}"] = (scale, {"images": images, "per_class": count})
    for name, more in MORE.items():
        for scale in (1, 2):
            for source, images in (("real", "fashion_mnist"), ("own", "own")):
                found[f"{source}_8_g{scale}_{name}"] = (scale, {"images": images, "per_class": 8, **more})
    return found


def make_clone(storage, scale, per_class):
    """Generate a clone of the storage root in this process, and return its images."""
    generation = {"guidance_scale": scale, "images_per_class": per_class, "batch_size": BATCH}
    clone = clone_of(load_experiment({"storage": storage, "generation": generation}))
    if not clone.is_complete():
        begin_record(clone, BATCH, is_changed=True)
        actor = GenerationActor(clone.spec, BATCH, 1)
        for shard in range(clone.num_shards):
            actor.generate_shard(clone, shard)
        end_record(clone, check_shards(clone), 0)
    return clone_images(clone)


def train_classifier(storage):
    """Return the folder of a classifier that saw generated images alone."""
    folder = Location(f"{storage}/classifiers/generated")
    if load_record(folder) is not None:
        return folder.uri
    learnt = decode_all(make_clone(storage, 2, LEARNT), ARCHITECTURE.image_size)
    images, labels = normalize(torch.from_numpy(learnt.images.copy())), torch.from_numpy(learnt.labels)
    torch.manual_seed(0)
    model, num_steps = build_classifier(ARCHITECTURE).train(), NUM_EPOCHS * len(labels) // NUM_LEARNT
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, num_steps)
    for _ in range(NUM_EPOCHS):
        for rows in torch.randperm(len(labels)).split(NUM_LEARNT):
            views = torch.cat([images[rows[::2]], images[rows[1::2]].flip(-1)])
            loss = functional.cross_entropy(model(views), torch.cat([labels[rows[::2]], labels[rows[1::2]]]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    trained_on = {"kind": "clone", "name": f"{LEARNT} images a class at guidance 2"}
    save_classifier(folder, model, ARCHITECTURE, {"fingerprint": "generated", "seed": 0, "trained_on": trained_on})
    return folder.uri


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
    classifier, clones = train_classifier(storage), {}
    make_clone(storage, 1, POOL)
    for name, (scale, exemplars) in settings().items():
        if only and name not in only:
            continue
        specs = [spec_of(storage, classifier, scale, exemplars, seed) for seed in seeds]
        clones[name] = [images_of(spec, generators, folder) for spec in specs]
        found = [figures(*each, judge, test) for each in clones[name]]
        guide = specs[0].exemplar_guide
        through = ", through the denoiser" if guide is not None and guide.through_denoiser else ""
        shown = "no exemplars" if guide is None else f"{guide}, every {guide.every} steps{through}"
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
