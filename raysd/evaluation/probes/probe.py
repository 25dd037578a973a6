"""Probes of frozen features: logistic regression by L-BFGS or SGD, and nearest neighbors.

A linear probe's settings are chosen on a class-stratified fifth of the training images; then it is fitted on all of
them and tested once. Features are scaled by statistics of the images it is fitted on, so not of the held-out ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysd.errors import UserError
from raysd.evaluation.metrics import mean_per_class
from raysd.evaluation.probes.lbfgs import HISTORY
from raysd.evaluation.probes.logistic import CHUNK, fit_path
from raysd.evaluation.probes.logistic import ROWS as SOLVER_ROWS
from raysd.evaluation.probes.neighbors import CHUNK as NEIGHBOR_CHUNK
from raysd.evaluation.probes.neighbors import predict_by_neighbors
from raysd.evaluation.probes.search import Examples, Found, fit_sgd_probe, search_sgd, search_strength
from raysd.evaluation.settings import ProbeSettings, Scale
from raysd.storage.fingerprint import seed_of_32_bits

VALIDATION_SHARE = 0.2
ONE_SHOT_STRENGTH = 1.0
CONSTANT_SHARE = 1e-7
"""A deviation that is a smaller share of the mean is float32 rounding."""
FIELD = "evaluation.transfer_sets"
ROWS = 4096
"""Images whose features are scaled at once, in float64."""
FLOAT_BYTES = 4
SOLVER_COPIES = 3 * HISTORY
"""Of a model."""
IMAGE_BYTES, ROOM = 200, 96 * 10**6
"""Of what a probe holds for each image beside its features, and of buffers; measured."""


@dataclass(frozen=True)
class ProbeResult:
    """A probe's predictions for the test images, and its chosen settings."""

    predictions: np.ndarray
    """Labels int64 [test images]."""
    top1: float
    """Percent."""
    mean_per_class: float
    """Mean of the classes' accuracies in percent, over the classes of the test images."""
    chosen: dict[str, Any]
    """The chosen settings, and their validation top-1 in percent, number of trials, iterations, and whether they lie
    at the edge."""


def probe_memory(num_learnt: int, num_tested: int, dimensions: int, num_classes: int, settings: ProbeSettings) -> int:
    """Return the bytes that `run_probe` takes at most on a CPU, its features included; `python
    benchmarks/peak_memory.py probe` compares it with what is measured.

    A linear probe has the features and, while all images are fitted, scaled ones and those in the solver's frame; while
    settings are searched, copies of both parts, and four fifths in the frame. On top come the images that are worked on
    at once, in float64 where they are turned, and the models with the solver's history of them.
    """
    row, scaled = FLOAT_BYTES * dimensions, settings.used_scale != "raw"
    held = IMAGE_BYTES * num_learnt + ROOM
    if settings.kind == "knn":  # both as they are, scaled, and of unit length
        similarities = FLOAT_BYTES * min(NEIGHBOR_CHUNK, num_learnt * num_tested)
        return held + (2 + scaled) * (num_learnt + num_tested) * row + similarities
    copies = 2 + (1 if scaled else 1 - VALIDATION_SHARE)
    held += round(copies * num_learnt * row) + (1 + scaled) * num_tested * row
    models = (settings.trials + SOLVER_COPIES) * row * num_classes
    if settings.kind == "sgd":
        return held + models
    chunk = min(num_learnt, CHUNK["cpu"] // max(1, num_classes)) * row
    in_doubles = 2 * row * (2 * min(SOLVER_ROWS, num_learnt) + 3 * dimensions)  # two arrays of images, three of axes
    return held + models + chunk + in_doubles


def choose_shots(labels: np.ndarray, shots: int | None, seed: int) -> np.ndarray:
    """Return indices of `shots` images of each class (all when None), sampled by the seed."""
    if shots is None:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def run_probe(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    settings: ProbeSettings,
    seed: int,
    shots: int | None = None,
) -> ProbeResult:
    """Choose a probe's settings, fit it and test it.

    With one image per class nothing can be held out: `lbfgs` then takes C = 1.

    Args:
        train: features [N, D] and labels [N], any whole numbers.
        test: features [M, D] and labels [M], of the classes of `train`.
        settings: which probe, and how it is searched.
        seed: of the shots, the split, TPE and SGD.
        shots: training images per class; all when None.

    Raises:
        UserError: no images, features that are not finite, fewer than two classes, test classes without training
            images, classes with too few images, or SGD with one shot or features on which it diverges.
    """
    _check(train, test, settings, shots)
    kept = choose_shots(train[1], shots, seed)
    classes, labels = np.unique(train[1][kept], return_inverse=True)
    known = train[0] if shots is None else train[0][kept]
    learn, asked = (
        (known.astype(np.float32, copy=False), labels.astype(np.int64)),
        test[0].astype(np.float32, copy=False),
    )
    predictions, chosen = (
        _nearest(learn, asked, settings)
        if settings.kind == "knn"
        else _linear(learn, asked, settings, seed, shots == 1)
    )
    named, truth = classes[predictions].astype(np.int64), test[1]
    correct = named == truth
    per_class = mean_per_class(np.searchsorted(classes, truth), correct, len(classes))
    return ProbeResult(named, 100 * float(correct.mean()), per_class, chosen)


def _nearest(learn: Examples, asked: np.ndarray, settings: ProbeSettings) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the predicted classes [M], and the number of neighbors."""
    (known, scaled), labels = _scaled(learn[0], asked, settings.used_scale), learn[1]
    neighbors = min(settings.neighbors, len(known))
    return predict_by_neighbors(known, labels, scaled, int(labels.max()) + 1, neighbors), {"neighbors": neighbors}


def _linear(
    learn: Examples, asked: np.ndarray, settings: ProbeSettings, seed: int, one_shot: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the predicted classes [M], and the chosen settings."""
    num_classes = int(learn[1].max()) + 1
    found = None if one_shot else _search(learn, settings, seed)
    values = found.values if found else {"C": ONE_SHOT_STRENGTH}
    features, scaled = _scaled(learn[0], asked, settings.used_scale)
    chosen: dict[str, Any] = {**values, "validation_top1": None, "trials": 0, "at_edge": False}
    if found:
        chosen |= {"validation_top1": found.validation_top1, "trials": found.trials, "at_edge": found.at_edge}
    if settings.kind == "sgd":
        sgd = fit_sgd_probe(
            (features, learn[1]), num_classes, [values["learning_rate"]], [values["weight_decay"]], settings, seed
        )
        if sgd.diverged[0]:
            rate = f"{values['learning_rate']:.3g}"
            raise UserError(
                FIELD, "sgd", f"diverged on all images at the chosen learning rate of {rate}; use lbfgs, or scale: l2"
            )
        return sgd.models[0].predict(scaled), chosen
    path = fit_path(
        features, learn[1], num_classes, [values["C"]], settings.max_iterations, start=found.model if found else None
    )
    return path.models[0].predict(scaled), chosen | {
        "iterations": path.iterations[0],
        "search_iterations": found.iterations if found else [],
    }


def _search(learn: Examples, settings: ProbeSettings, seed: int) -> Found:
    features, labels = learn
    held = held_out(labels, seed)
    fit, validation = _scaled(features[~held], features[held], settings.used_scale, in_place=True)
    search = search_sgd if settings.kind == "sgd" else search_strength
    return search((fit, labels[~held]), (validation, labels[held]), int(labels.max()) + 1, settings, seed)


def held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the mask [N] of the validation images: a stratified fifth, and at least one of each class."""
    from sklearn.model_selection import train_test_split  # takes as long to import as a small probe takes

    num_classes = int(labels.max()) + 1
    size = max(num_classes, round(len(labels) * VALIDATION_SHARE))
    _, validation = train_test_split(
        np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed_of_32_bits(seed)
    )
    held = np.isin(np.arange(len(labels)), validation)
    for missing in np.setdiff1d(np.arange(num_classes), labels[held]):
        held[np.flatnonzero(labels == missing)[0]] = True
    return held


def _scaled(fit: np.ndarray, other: np.ndarray, scale: Scale, in_place: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scale both float32 feature arrays by the statistics of the first; constant features stay constant."""
    if scale == "l2":
        return _changed(fit, _unit, in_place), _changed(other, _unit, in_place)
    if scale == "standard":
        mean = fit.mean(0, dtype=np.float64)
        deviation = _deviation(fit, mean)
        deviation[deviation <= CONSTANT_SHARE * np.abs(mean)] = 1

        def standard(rows: np.ndarray) -> np.ndarray:
            return np.asarray((rows - mean) / deviation)

        return _changed(fit, standard, in_place), _changed(other, standard, in_place)
    return fit, other


def _changed(features: np.ndarray, change: Callable[[np.ndarray], np.ndarray], in_place: bool = False) -> np.ndarray:
    """Return changed features, made some rows at a time: in float64 all of them would take twice their memory."""
    changed = features if in_place else np.empty_like(features)
    for start in range(0, len(features), ROWS):
        rows = slice(start, start + ROWS)
        changed[rows] = change(features[rows])
    return changed


def _deviation(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the standard deviations, float64 [D]; rows are added in their order, as numpy's `std` does."""
    squares = np.zeros((1, len(mean)))
    for start in range(0, len(features), ROWS):
        parts = np.concatenate([squares, np.square(features[start : start + ROWS] - mean)])
        squares = parts.sum(0, keepdims=True)
    return np.sqrt(squares[0] / len(features))


def _unit(features: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; rows of zeros stay."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _check(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    settings: ProbeSettings,
    shots: int | None,
) -> None:
    for name, (features, labels) in (("training", train), ("test", test)):
        if len(labels) == 0:
            raise UserError(FIELD, f"0 {name} images", "give a set with images")
        if not np.isfinite(features).all():
            raise UserError(FIELD, f"{name} features that are not finite", "check the classifier's weights")
    classes, counts = np.unique(train[1], return_counts=True)
    if len(classes) < 2:
        raise UserError(FIELD, f"training images of class {classes[0]} alone", "give at least two classes")
    if unknown := np.setdiff1d(test[1], classes).tolist():
        raise UserError(FIELD, f"test classes {unknown}", "give training images of these classes, or leave them out")
    if few := classes[counts < (shots or 0)].tolist():
        raise UserError(
            f"{FIELD}.shots", shots, f"classes {few} have fewer training images; ask for at most {counts.min()}"
        )
    if settings.kind == "sgd" and shots == 1:
        raise UserError(
            f"{FIELD}.shots", 1, "sgd has nothing to choose its learning rate on; use lbfgs or knn, or two shots"
        )
    if settings.kind != "knn" and shots is None and (single := classes[counts == 1].tolist()):
        raise UserError(
            FIELD, f"classes {single} with one training image", "give two of each class, one to hold out, or use knn"
        )
