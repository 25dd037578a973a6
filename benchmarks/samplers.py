"""What each kind of guidance does to labels and variety: python benchmarks/samplers.py --storage runs/samplers

The embedded generator, 300 images a setting and clone seed, with the same image seeds in all settings. Three figures:

- agreement: share of the images whose label a judge gives them, in percent. The judge is a random forest that learned
  from 15,000 real images;
- spread: standard deviation of a pixel over the images of one class, gray levels of 0 to 255, a mean over pixels and
  classes;
- top-1 of a random forest that learns from these 300 images alone, on 3,000 real test images, in percent.

A probe of the trade between right labels and variety, in some minutes of one core; no measure of a classifier at size.
Images are kept below --storage, and a second call goes on from there. Needs the real Fashion-MNIST.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np
import record
import torch
from sklearn.ensemble import RandomForestClassifier

from raysd.clone.plan import ImageCounts, Plan
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import resolve_clone_spec
from raysd.config import Experiment
from raysd.data.catalog import load_fashion_mnist
from raysd.generation.cost import guided_steps
from raysd.generation.pipeline import Generator

COMMAND = "python benchmarks/samplers.py --storage runs/samplers"
PER_CLASS, BATCH = 30, 60
NUM_JUDGED, NUM_TEST = 15_000, 3_000
CADS = {"scale": 0.1, "tau1": 0.6, "tau2": 0.9}
PLAIN = {f"g{scale:g}".replace(".", "_"): {"guidance_scale": scale} for scale in (1, 1.5, 2, 4)}
WEAK = {f"weak_g{scale:g}".replace(".", "_"): {"guidance_scale": scale} for scale in (1.5, 2, 3)}
OTHERS = {
    "cads_g4": {"guidance_scale": 4, "cads": CADS},
    "range_1_4": {"guidance_range": (1, 4)},
    "skip_middle_g1_5": {"guidance_scale": 1.5, "skip_blocks": [1]},
    "rising_g4": {"guidance_scale": 4, "guidance_schedule": "rising"},
    "falling_g2": {"guidance_scale": 2, "guidance_schedule": "falling"},
    "interval_g4": {"guidance_scale": 4, "guidance_interval": (0.2, 0.8)},
    "skip_middle_g2": {"guidance_scale": 2, "skip_blocks": [1]},
    "cads_more_g4": {"guidance_scale": 4, "cads": {**CADS, "scale": 0.5}},
    "cads_g2": {"guidance_scale": 2, "cads": CADS},
    "rising_g2": {"guidance_scale": 2, "guidance_schedule": "rising"},
}


def spec_of(changes, seed):
    experiment = Experiment(generation=GenerationSettings(seed=seed, **changes))
    return resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants)


def images_of(spec, generators, folder):
    """Gray images of a clone [N, H, W] and their labels; taken from the folder where they are."""
    plan = Plan(spec, ImageCounts(len(spec.table), PER_CLASS), BATCH)
    images = [plan.image(position) for position in range(len(plan))]
    file = folder / f"{spec.fingerprint}_{len(plan)}.npy"
    if not file.exists():
        if spec.pipeline_key not in generators:
            generators[spec.pipeline_key] = Generator(spec)
        generator = generators[spec.pipeline_key]
        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        pixels = np.concatenate([generator.generate(spec, batch).pixels for batch in batches])
        np.save(file, pixels[..., 0] if pixels.ndim == 4 else pixels)
    return np.load(file), np.array([image.label for image in images])


def forest():
    return RandomForestClassifier(100, n_jobs=1, random_state=0)


def figures(images, labels, judge, test):
    """Agreement, spread and top-1 of one set of images."""
    rows, classes = images.reshape(len(images), -1), np.unique(labels)
    agreement = 100 * (judge.predict(rows) == labels).mean()
    spread = mean(images[labels == label].astype(float).std(axis=0).mean() for label in classes)
    top1 = 100 * forest().fit(rows, labels).score(test[0].reshape(len(test[0]), -1), test[1])
    return {"agreement": agreement, "spread": spread, "top1": top1}


def measure(folder, weak_model, seeds, only):
    """Metrics of real images, and of each setting."""
    (images, labels), test = load_fashion_mnist("train"), tuple(part[:NUM_TEST] for part in load_fashion_mnist("test"))
    judge = forest().fit(images[:NUM_JUDGED].reshape(NUM_JUDGED, -1), labels[:NUM_JUDGED])
    generators, units = {}, {"agreement": "percent", "spread": "gray levels", "top1": "percent"}
    rest_images, rest_labels = images[NUM_JUDGED:], labels[NUM_JUDGED:]

    def real(seed):
        rng = np.random.default_rng(seed)
        chosen = [rng.choice(np.flatnonzero(rest_labels == label), PER_CLASS, replace=False) for label in range(10)]
        return rest_images[np.concatenate(chosen)], rest_labels[np.concatenate(chosen)]

    weak = {name: {**changes, "weak_model": weak_model} for name, changes in WEAK.items() if weak_model}
    known = {"real": None, **PLAIN, **weak, **OTHERS}
    known = {name: known[name] for name in only or known}
    for name, changes in known.items():
        specs = [] if changes is None else [spec_of(changes, seed) for seed in seeds]
        sets = [images_of(spec, generators, folder) for spec in specs] or [real(seed) for seed in seeds]
        found = [figures(*each, judge, test) for each in sets]
        cost = f"; cost over guidance {guided_steps(specs[0]) / guided_steps(spec_of({}, 0)):.2f}" if specs else ""
        shown = {**(changes or {}), **({"weak_model": Path(weak_model).name} if name in weak else {})}
        about = f"{json.dumps(shown)}, {10 * PER_CLASS} images for each of {len(seeds)} clone seeds{cost}"
        yield [
            record.metric(f"{name}_{figure}", mean(runs), unit, "higher", COMMAND, about, runs)
            for figure, unit in units.items()
            for runs in [[each[figure] for each in found]]
        ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, type=Path, help="folder for the images")
    parser.add_argument("--weak-model", help="a weaker model for the embedded one, in diffusers format")
    parser.add_argument("--seeds", type=int, default=1, help="number of clone seeds")
    parser.add_argument("--only", nargs="+", help="names of settings, as g2; all when left out")
    options = parser.parse_args()
    options.storage.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for metrics in measure(options.storage, options.weak_model, range(options.seeds), options.only):
        record.write("samplers", metrics)
