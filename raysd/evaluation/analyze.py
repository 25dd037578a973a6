"""Analyses as result rows: of classifiers' features, and of a clone against real images."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.preprocessing import normalize

from raysd.data.images import ImageSet
from raysd.evaluation.extraction import Extraction
from raysd.evaluation.features import extract
from raysd.evaluation.fidelity import frechet_distance, precision_recall_density_coverage
from raysd.evaluation.models import EvaluatedModel
from raysd.evaluation.moments import ROWS, moments
from raysd.evaluation.settings import AnalysisSettings
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.row_types.measured import AnalysisRow
from raysd.storage.rows import ANALYSIS, find_row, write_row
from raysd.versions import versions

ZERO = 1e-3
"""Of the root mean square of all entries; below this an entry counts as zero."""
CONSTANT = 1e-6
"""Of a dimension's largest entry; a standard deviation up to this is rounding of float32."""
EPS2 = 0.5
"""Squared distortion of the coding length (Yu et al. 2020)."""
WORKING_MEMORY = 128
"""MiB of one chunk of distances."""


def sparsity(features: np.ndarray, tolerance: float = ZERO) -> float | None:
    """Return the share of entries that are zero, 0 to 1: those with |z| <= tolerance x the root mean square of all
    entries.

    The scale makes it the same for features times a constant, and the tolerance also counts activations that only come
    near zero; where all entries are zero it is 1. features [N, D]; None when empty.
    """
    if features.size == 0:
        return None
    scale = np.sqrt(np.mean(np.square(features, dtype=np.float64)))
    return float(np.mean(np.abs(features) <= tolerance * scale))


def intra_class_distance(features: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mean distance between images of a class, 0 to 2.

    The Euclidean distance of features at unit length, over all pairs of different images of a class, then over classes,
    each of which weighs the same. features [N, D], labels [N]; None when no class has two images.
    """
    if not features.size:
        return None
    means = []
    for group in _by_class(normalize(features), labels):
        count = len(group)
        if count > 1:
            sums = pairwise_distances_chunked(group, reduce_func=_row_sums, working_memory=WORKING_MEMORY)
            means.append(sum(float(part.sum()) for part in sums) / (count * (count - 1)))
    return float(np.mean(means)) if means else None


def redundancy(features: np.ndarray) -> float | None:
    """Return the mean absolute Pearson correlation between different dimensions, 0 to 1 (Wang et al. 2022).

    Unlike theirs, the mean leaves out the correlation of a dimension with itself, so that independent dimensions come
    near 0; and constant dimensions are left out. features [N, D]; None when fewer than 2 dimensions vary.
    """
    if len(features) < 2:
        return None
    _, covariance = moments(features)
    deviations = np.sqrt(np.diag(covariance))
    varying = deviations > CONSTANT * np.abs(features).max(axis=0)
    count = int(varying.sum())
    if count < 2:
        return None
    correlation = covariance[np.ix_(varying, varying)] / np.outer(deviations[varying], deviations[varying])
    return min(1.0, float(np.abs(correlation).sum() - np.abs(np.diag(correlation)).sum()) / (count * (count - 1)))


def coding_length(features: np.ndarray, eps2: float = EPS2) -> float | None:
    """Return the coding length per image in nats, of features at unit length (Ma et al. 2007; Yu et al. 2020): how much
    space they fill.

    R = 1/2 log det(I + D / (N eps^2) Z^T Z), 0 or more. features [N, D]; None when empty.
    """
    return _rate(normalize(features), eps2) if features.size else None


def class_coding_length(features: np.ndarray, labels: np.ndarray, eps2: float = EPS2) -> float | None:
    """Return the coding length of the classes in nats (Yu et al. 2020): the mean of R over classes, each weighted by
    its number of images.

    features [N, D], labels [N]; None when empty.
    """
    if not features.size:
        return None
    return sum(len(group) / len(features) * _rate(group, eps2) for group in _by_class(normalize(features), labels))


def rate_reduction(features: np.ndarray, labels: np.ndarray, eps2: float = EPS2) -> float | None:
    """Return the coding length of all images minus that of the classes in nats, 0 or more (Yu et al. 2020): how far
    apart classes lie.

    features [N, D], labels [N]; None when empty.
    """
    return _reduction(coding_length(features, eps2), class_coding_length(features, labels, eps2))


def analyze(features: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Return all analyses of one set by name. One that is not defined is None; all are None when a feature is not
    finite. features [N, D], labels [N]."""
    names = ("sparsity", "intra_class_distance", "redundancy", "coding_length", "class_coding_length", "rate_reduction")
    if not np.isfinite(features).all():
        return dict.fromkeys(names)
    whole, classes = coding_length(features), class_coding_length(features, labels)
    values = (
        sparsity(features),
        intra_class_distance(features, labels),
        redundancy(features),
        whole,
        classes,
        _reduction(whole, classes),
    )
    return dict(zip(names, values, strict=True))


def _by_class(values: np.ndarray, labels: np.ndarray) -> Iterator[np.ndarray]:
    """Return the rows of each class that has images."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    for chosen in np.split(order, starts):
        yield values[chosen]


def _row_sums(distances: np.ndarray, start: int) -> np.ndarray:
    return distances.sum(axis=1, dtype=np.float64)


def _rate(unit: np.ndarray, eps2: float) -> float:
    """Return 1/2 log det(I + D / (N eps^2) Z^T Z) of rows at unit length [N, D]; over N x N where that is smaller."""
    num_images, dimensions = unit.shape
    rows = unit.astype(np.float64) if num_images < dimensions else None
    gram = rows @ rows.T if rows is not None else _gram(unit)
    _, value = np.linalg.slogdet(np.eye(len(gram)) + dimensions / (num_images * eps2) * gram)
    return max(0.0, 0.5 * float(value))


def _reduction(whole: float | None, classes: float | None) -> float | None:
    return None if whole is None or classes is None else max(0.0, whole - classes)


def _gram(unit: np.ndarray) -> np.ndarray:
    """Return Z^T Z [D, D] in float64."""
    total = np.zeros((unit.shape[1], unit.shape[1]))
    for start in range(0, len(unit), ROWS):
        part = unit[start : start + ROWS].astype(np.float64)
        total += part.T @ part
    return total


def analyze_features(root: Location, model: EvaluatedModel, images: ImageSet, command: str) -> AnalysisRow:
    """Measure sparsity, intra-class distance, redundancy and coding length of the features of some images."""
    features = Extraction(root, model, images, "features")

    def measure() -> dict[str, Any]:
        _extract([features])
        return analyze(*features.read_features())

    return _row(root, "features", model, [images], measure, command)


def compare_clone(
    root: Location, model: EvaluatedModel, clone: ImageSet, real: ImageSet, settings: AnalysisSettings, command: str
) -> AnalysisRow:
    """Measure precision, recall, density, coverage and Frechet distance of a clone against real images, with the
    features of a model.

    Raises:
        UserError: fewer images than neighbors.
    """
    ours, theirs = (Extraction(root, model, images, "features") for images in (clone, real))

    def measure() -> dict[str, Any]:
        _extract([ours, theirs])
        fake, true = ours.read_features()[0], theirs.read_features()[0]
        values = asdict(precision_recall_density_coverage(true, fake, settings.neighbors))
        return {
            **values,
            "frechet_distance": frechet_distance(true, fake),
            "num_clone": len(fake),
            "num_real": len(true),
        }

    return _row(root, "clone", model, [clone, real], measure, command, settings.neighbors)


def _extract(extractions: list[Extraction]) -> None:
    for error in extract(extractions).values():
        raise error


def _row(
    root: Location,
    kind: str,
    model: EvaluatedModel,
    sets: list[ImageSet],
    measure: Callable[[], dict[str, Any]],
    command: str,
    neighbors: int | None = None,
) -> AnalysisRow:
    options = {} if neighbors is None else {"neighbours": neighbors}
    key = fingerprint(
        {"analysis": kind, "classifier": model.fingerprint, "sets": [images.identity() for images in sets], **options}
    )
    if (found := find_row(root, ANALYSIS, key)) is not None:
        return found
    began = time.monotonic()
    row: AnalysisRow = {
        "fingerprint": key,
        "kind": kind,
        "datasets": [images.name for images in sets],
        "classifier": model.fingerprint,
        "seed": model.about["seed"],
        "backbone": model.about["backbone"],
        "trained_on": model.about["trained_on"],
        "values": measure(),
        "seconds": time.monotonic() - began,
        "command": command,
        "versions": versions(),
    }
    if neighbors is not None:
        row["neighbours"] = neighbors
    write_row(root, ANALYSIS, row)
    return row
