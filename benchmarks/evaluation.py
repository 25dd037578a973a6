"""The evaluation's figures: python benchmarks/evaluation.py

Parts can be chosen, as `--parts probe`; `--size small` is for a try. Writes benchmarks/results/evaluation.json.
"""

import argparse
import os
import time
from statistics import median

import numpy as np
from record import metric, write

COMMAND = "python benchmarks/evaluation.py"
REPEATS = 3
CORES = os.cpu_count()
SIZES = {"full": (20_000, 2048, 100), "small": (4_000, 512, 20)}  # pictures, features, classes
NUM_TEST = 10_000
TRIALS, MAX_ITERATIONS, SEED = 30, 2000, 0


def relu_features(num_pictures, dim, num_classes):
    """Features [N, dim], none below 0, and labels [N], as a backbone's last layer gives them.

    Correlated, with a decaying spectrum and features of unlike scales; a good probe gets 60 to 85 % right.
    """
    rng = np.random.default_rng(SEED)
    spectrum = (1 + np.arange(dim // 2)) ** -0.6
    centres = rng.standard_normal((num_classes, dim // 2)) * spectrum * 0.3
    mixing = (rng.standard_normal((dim // 2, dim)) / np.linalg.norm(spectrum)).astype(np.float32)
    offsets, scales = 0.5 * rng.standard_normal(dim) - 0.3, 0.5 * np.exp(0.7 * rng.standard_normal(dim))
    labels = rng.integers(0, num_classes, num_pictures)
    latent = (centres[labels] + rng.standard_normal((num_pictures, dim // 2)) * spectrum).astype(np.float32)
    noise = 0.3 * rng.standard_normal((num_pictures, dim), dtype=np.float32)
    return np.maximum(latent @ mixing + offsets.astype(np.float32) + noise, 0) * scales.astype(np.float32), labels


def scikit_fit(features, labels, strength):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver="lbfgs", C=strength, max_iter=MAX_ITERATIONS).fit(features, labels)


def probe(size):
    """A whole search with refit by raysd, against one fit of scikit-learn for each strength and a refit: same split, cores, and float32."""
    from raysd.evaluation.logistic import LogisticProblem
    from raysd.evaluation.probe import held_out, run_probe
    from raysd.evaluation.search import evenly_spaced
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
    about = f"{TRIALS} strengths and a refit, {count} x {dim} features, {num_classes} classes, {CORES} cores; {result.top1:.1f} % right"
    yield metric("probe_seconds", median(seconds), "s", "lower", COMMAND, about, seconds)

    held, strengths = held_out(train[1], SEED), evenly_spaced(TRIALS)
    fit, check = (train[0][~held], train[1][~held]), (train[0][held], train[1][held])
    ours = LogisticProblem(*fit, num_classes).fit_path(strengths, MAX_ITERATIONS)
    their_seconds, scores, differences = 0.0, [], []
    for strength, model in zip(strengths, ours.models, strict=True):
        began = time.monotonic()
        theirs = scikit_fit(*fit, strength)
        scores.append(theirs.score(*check))
        their_seconds += time.monotonic() - began
        differences.append(100 * abs((model.predict(test[0]) == test[1]).mean() - theirs.score(*test)))
        print(f"C {strength:.2g}: {theirs.n_iter_[0]} iterations, {differences[-1]:.2f} points, {their_seconds:.0f} s so far", flush=True)
    began = time.monotonic()
    refit = scikit_fit(*train, strengths[int(np.argmax(scores))])
    their_top1 = 100 * refit.score(*test)
    their_seconds += time.monotonic() - began
    differences.append(abs(result.top1 - their_top1))
    baseline = f"scikit-learn's LogisticRegression, {MAX_ITERATIONS} iterations at most, run once: {their_seconds:.0f} s, {their_top1:.1f} % right; {about}"
    speedups = [their_seconds / value for value in seconds]
    yield metric("probe_speedup", median(speedups), "ratio", "higher", COMMAND, baseline, speedups)
    where = f"in test top-1, over all strengths and the refit, whose own difference is the last; {baseline}"
    yield metric("probe_max_difference", max(differences), "points", "lower", COMMAND, where, differences)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full", help="a small one is printed only")
    parser.add_argument("--parts", nargs="+", default=["probe"])
    arguments = parser.parse_args()
    parts = {"probe": lambda: probe(arguments.size)}
    for part in arguments.parts:
        metrics = list(parts[part]())
        if arguments.size == "full":
            write("evaluation", metrics)
