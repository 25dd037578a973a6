"""The evaluation's figures: python benchmarks/evaluation.py --storage runs --photos photos.parquet

`photos.parquet` holds a photo of each of ImageNet's 1,000 classes, in the columns `image` and `label`. Parts can be
chosen, as `--parts probe`; `--size small` is for a try. Writes benchmarks/results/evaluation.json.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq
import torch
from record import metric, write

COMMAND = "python benchmarks/evaluation.py"
REPEATS = 3
CORES = os.cpu_count()
SIZES = {"full": (20_000, 2048, 100), "small": (4_000, 512, 20)}  # images, features, classes
NUM_TEST = 10_000
WRONG_LABELS = 0.15
TIGHT = 1e-6  # of scikit-learn, to see what its own end, 1e-4, costs
TRIALS, MAX_ITERATIONS, SEED = 30, 2000, 0


def relu_features(num_images, dim, num_classes):
    """Features [N, dim], none below 0, and labels [N], as a backbone's last layer gives them.

    Correlated, with a decaying spectrum and features of unlike scales. Some labels are wrong, so that weak
    regularisation costs accuracy.
    """
    rng = np.random.default_rng(SEED)
    spectrum = (1 + np.arange(dim // 2)) ** -0.6
    centres = rng.standard_normal((num_classes, dim // 2)) * spectrum * 0.3
    mixing = (rng.standard_normal((dim // 2, dim)) / np.linalg.norm(spectrum)).astype(np.float32)
    offsets, scales = 0.5 * rng.standard_normal(dim) - 0.3, 0.5 * np.exp(0.7 * rng.standard_normal(dim))
    labels = rng.integers(0, num_classes, num_images)
    latent = (centres[labels] + rng.standard_normal((num_images, dim // 2)) * spectrum).astype(np.float32)
    noise = 0.3 * rng.standard_normal((num_images, dim), dtype=np.float32)
    labels = np.where(rng.random(num_images) < WRONG_LABELS, rng.integers(0, num_classes, num_images), labels)
    return np.maximum(latent @ mixing + offsets.astype(np.float32) + noise, 0) * scales.astype(np.float32), labels


def scikit_fit(features, labels, strength, tol=1e-4):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver="lbfgs", C=strength, max_iter=MAX_ITERATIONS, tol=tol).fit(features, labels)


def probe(size):
    """A whole search with refit by raysd, against one fit of scikit-learn for each strength and a refit: same split,
    cores, and float32."""
    from raysd.evaluation.probes.logistic import LogisticProblem
    from raysd.evaluation.probes.probe import held_out, run_probe
    from raysd.evaluation.probes.search import evenly_spaced
    from raysd.evaluation.settings import ProbeSettings

    count, dim, num_classes = SIZES[size]
    features, labels = relu_features(count + NUM_TEST, dim, num_classes)
    train, test = (features[:count], labels[:count]), (features[count:], labels[count:])
    settings, seconds = ProbeSettings(trials=TRIALS, max_iterations=MAX_ITERATIONS), []
    for _ in range(REPEATS):
        began = time.monotonic()
        result = run_probe(train, test, settings, SEED)
        seconds.append(time.monotonic() - began)
        print(f"{seconds[-1]:.1f} s", result.top1, result.chosen, flush=True)
    about = (
        f"{TRIALS} strengths and a refit, {count} x {dim} features, {num_classes} classes, {CORES} cores; "
        f"{result.top1:.1f} % right"
    )
    yield metric("probe_seconds", median(seconds), "s", "lower", COMMAND, about, seconds)

    held, strengths = held_out(train[1], SEED), evenly_spaced(TRIALS)
    fit, check = (train[0][~held], train[1][~held]), (train[0][held], train[1][held])
    ours = LogisticProblem(*fit, num_classes).fit_path(strengths, MAX_ITERATIONS)
    top1 = [100 * (model.predict(test[0]) == test[1]).mean() for model in ours.models]
    found = [scikit_timed(fit, check, test, strength) for strength in strengths]
    best = int(np.argmax([score for _, score, _ in found]))
    refit_seconds, _, their_top1 = scikit_timed(train, check, test, strengths[best])
    their_seconds = sum(each[0] for each in found) + refit_seconds
    by_strength = [abs(one - theirs) for one, (_, _, theirs) in zip(top1, found, strict=True)]
    baseline = (
        f"scikit-learn's LogisticRegression as it comes (tol 1e-4), {MAX_ITERATIONS} iterations at most, run "
        f"once: {their_seconds:.0f} s"
    )
    baseline += f", C = {strengths[best]:.2g}, {their_top1:.2f} % right; {about}"
    speedups = [their_seconds / value for value in seconds]
    yield metric("probe_speedup", median(speedups), "ratio", "higher", COMMAND, baseline, speedups)
    where = "test top-1 after search and refit on both sides"
    yield metric(
        "probe_default_difference",
        abs(result.top1 - their_top1),
        "points",
        "lower",
        COMMAND,
        f"{where}; {baseline}",
        [result.top1, their_top1],
    )
    where = f"test top-1 at each of the strengths from {strengths[0]:g} to {strengths[-1]:g}"
    yield metric(
        "probe_default_difference_by_strength",
        max(by_strength),
        "points",
        "lower",
        COMMAND,
        f"{where}; {baseline}",
        by_strength,
    )

    tight_seconds, _, tight_top1 = scikit_timed(train, check, test, strengths[best], TIGHT)
    about_tight = (
        f"test top-1 after a refit at C = {strengths[best]:.2g}, scikit-learn with tol {TIGHT:g}, "
        f"{tight_seconds:.0f} s; {about}"
    )
    yield metric(
        "probe_tight_difference",
        abs(result.top1 - tight_top1),
        "points",
        "lower",
        COMMAND,
        about_tight,
        [result.top1, tight_top1],
    )


def scikit_timed(fit, check, test, strength, tol=1e-4):
    """Seconds of a fit and its score on `check`, and its accuracy on the test images in percent."""
    began = time.monotonic()
    model = scikit_fit(*fit, strength, tol)
    score = model.score(*check)
    seconds = time.monotonic() - began
    top1 = 100 * model.score(*test)
    print(f"C {strength:.2g}, tol {tol:g}: {model.n_iter_[0]} iterations, {seconds:.1f} s, {top1:.2f} %", flush=True)
    return seconds, score, top1


def agreement():
    """Test top-1 of each strength's fit against a fit of scikit-learn that is run to the end: by Newton steps, in
    float64, at the small size."""
    from sklearn.linear_model import LogisticRegression

    from raysd.evaluation.probes.logistic import fit_path
    from raysd.evaluation.probes.search import evenly_spaced

    count, dim, num_classes = SIZES["small"]
    features, labels = relu_features(count + NUM_TEST, dim, num_classes)
    strengths, differences = evenly_spaced(12), []
    path = fit_path(features[:count], labels[:count], num_classes, strengths, MAX_ITERATIONS)
    for strength, model in zip(strengths, path.models, strict=True):
        newton = LogisticRegression(solver="newton-cg", C=strength, tol=1e-7 * min(1, 1 / strength), max_iter=200)
        newton.fit(features[:count].astype(np.float64), labels[:count])
        ours, theirs = ((fitted.predict(features[count:]) == labels[count:]).mean() for fitted in (model, newton))
        differences.append(100 * abs(ours - theirs))
        print(f"C {strength:.2g}: {100 * ours:.2f} % and {100 * theirs:.2f} %", flush=True)
    about = (
        f"in test top-1 over 12 strengths, against scikit-learn's newton-cg run to the end in float64; {count} x "
        f"{dim} features, {num_classes} classes"
    )
    yield metric("probe_max_difference", max(differences), "points", "lower", COMMAND, about, differences)


def real_classifier(folder):
    """EfficientNet-Lite0 with its real weights, in timm's format."""
    sys.path.append(str(Path(__file__).parent.parent / "tests" / "evaluation"))
    from lite0 import write_lite0

    folder.mkdir(parents=True, exist_ok=True)
    return write_lite0(folder)


def bare_rate(model, images):
    """Images per second of nothing but forward passes of 64 decoded images."""
    with torch.inference_mode():
        model.features_and_logits(images[:64])
        began = time.monotonic()
        for batch in images.split(64):
            model.features_and_logits(batch)
    return len(images) / (time.monotonic() - began)


def actors_rate(rows):
    """Images per second of all actors together, each from the begin of its first part to the end of its last."""
    spans = {}
    for row in rows:
        images, began, ended = spans.get(row["process"], (0, row["began"], 0.0))
        spans[row["process"]] = images + row["images"], min(began, row["began"]), max(ended, row["ended"])
    return sum(images / (ended - began) for images, began, ended in spans.values())


def features(root, photos):
    """Extraction by raysd's actors, which read, decode, and store, against bare forward passes of one process with
    all cores."""
    from raysd.cluster.session import close_ray
    from raysd.data.images import decode_all
    from raysd.data.real_datasets import real_dataset
    from raysd.evaluation.extraction import Extraction
    from raysd.evaluation.features import rows_of_actors
    from raysd.evaluation.models import pretrained_model
    from raysd.prompts.table import load_class_table

    model = pretrained_model(
        str(real_classifier(Path(root.path) / "lite0")), load_class_table("imagenet1k"), needs_classes=False
    )
    images, model = real_dataset(photos, "test", root), model.load()
    images = model.preprocessing.normalize(torch.from_numpy(decode_all(images, 224).images))
    pairs = []
    for repeat in range(REPEATS):
        jobs = [Extraction(root.child(f"try-{time.time_ns()}-{turn}"), model, images, "features") for turn in range(2)]
        rows = list(
            rows_of_actors(jobs, [(job, number) for job, each in enumerate(jobs) for number in range(len(each.parts))])
        )
        close_ray()
        torch.set_num_threads(CORES)
        pairs.append((actors_rate(rows), bare_rate(model, images)))
        print(repeat, pairs[-1], flush=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    theirs = median(theirs for _, theirs in pairs)
    about = (
        f"EfficientNet-Lite0 at 224 px, {len(images)} photos of 256 px JPEG, {theirs:.0f} images/s; without the "
        "start of the actors"
    )
    yield metric(
        "feature_efficiency",
        median(ratios),
        "ratio",
        "higher",
        COMMAND,
        f"forward passes of decoded images in memory, {about}",
        ratios,
    )


def lite0(root, photos):
    """raysd against timm's own loader and a plain loop."""
    import io

    import timm
    from PIL import Image

    from raysd.evaluation.evaluate import Evaluation
    from raysd.evaluation.models import pretrained_model
    from raysd.evaluation.settings import EvaluationSettings
    from raysd.prompts.table import load_class_table

    folder, table = real_classifier(Path(root.path) / "lite0"), load_class_table("imagenet1k")
    model = pretrained_model(str(folder), table, needs_classes=True)
    (row,) = Evaluation(root, EvaluationSettings(test_set=photos), table, COMMAND).measure_all([model])
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    rows = pq.read_table(photos)
    right = {1: 0, 5: 0}
    with torch.inference_mode():
        for start in range(0, len(rows), 50):
            part = rows.slice(start, 50)
            inputs = torch.stack(
                [
                    transform(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))
                    for image in part["image"].to_pylist()
                ]
            )
            hits = model(inputs).topk(5).indices == torch.tensor(part["label"].to_pylist())[:, None]
            right = {k: right[k] + int(hits[:, :k].any(1).sum()) for k in right}
    theirs = {k: 100 * count / len(rows) for k, count in right.items()}
    about = (
        f"a plain loop with timm's transforms: top-1 {theirs[1]:.1f} %, top-5 {theirs[5]:.1f} % of {len(rows)} photos"
    )
    both = [row["value"] - theirs[1], row["top5"] - theirs[5]]
    yield metric("lite0_top1_difference", both[0], "points", "lower", COMMAND, f"{about}; runs: top-1, top-5", both)


def reference(root, classifier, cifar10):
    """Probes of a trained classifier's features of real data sets, against scikit-learn's Newton solver run to the
    end at the chosen strength."""
    from sklearn.linear_model import LogisticRegression

    from raysd.data.real_datasets import real_dataset
    from raysd.evaluation.extraction import Extraction
    from raysd.evaluation.features import extract
    from raysd.evaluation.models import own_model
    from raysd.evaluation.probes.probe import run_probe
    from raysd.evaluation.settings import ProbeSettings

    model, found, differences = own_model(root, classifier), [], []
    for name in ("digits", "fashion_mnist", cifar10):
        parts = [
            Extraction(root, model, real_dataset(name, split, root, halve=True), "features")
            for split in ("train", "test")
        ]
        extract(parts)
        learn, check = (part.read_features() for part in parts)
        result = run_probe(learn, check, ProbeSettings(), SEED)
        newton = LogisticRegression(solver="newton-cholesky", C=result.chosen["C"], tol=1e-8, max_iter=100).fit(
            learn[0].astype(np.float64), learn[1]
        )
        differences.append(abs(result.top1 - 100 * newton.score(*check)))
        found.append(f"{parts[1].images.name} {result.top1:.2f} %, C = {result.chosen['C']:.2g}")
        print(found[-1], differences[-1], flush=True)
    about = f"scikit-learn's newton-cholesky run to the end in float64 at the chosen strength; {'; '.join(found)}"
    yield metric("probe_reference_difference", max(differences), "points", "lower", COMMAND, about, differences)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full", help="a small one is printed only")
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--photos")
    parser.add_argument(
        "--classifier",
        help=(
            "for the part reference: the fingerprint of a trained classifier in the storage, as transfer.py leaves some"
        ),
    )
    parser.add_argument("--cifar10", help="for the part reference: a folder with train.parquet and test.parquet")
    parser.add_argument("--parts", nargs="+", default=["lite0", "features", "probe", "agreement"])
    arguments = parser.parse_args()
    from raysd.storage.location import Location

    root = Location(str(Path(arguments.storage).resolve()))
    parts = {
        "lite0": lambda: lite0(root, arguments.photos),
        "features": lambda: features(root, arguments.photos),
        "probe": lambda: probe(arguments.size),
        "agreement": agreement,
        "reference": lambda: reference(root, arguments.classifier, arguments.cifar10),
    }
    for part in arguments.parts:
        metrics = list(parts[part]())
        if arguments.size == "full":
            write("evaluation", metrics)
