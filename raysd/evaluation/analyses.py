"""What features look like: of one set of pictures, and of a clone against real pictures.

Features are float32 [N, D]. Sums are in float64; distances are computed in chunks, so that memory stays at N x D and D x D.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, svdvals
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from raysd.errors import UserError

ZERO = 1e-3
"""Of the root mean square of all entries; below this an entry counts as zero."""
CONSTANT = 1e-6
"""Of a dimension's largest entry; a standard deviation up to this is rounding of float32."""
SLACK = 1e-6
"""Of the root mean square length; distances that differ by less are the same distance, as float32 cannot tell them apart."""
EPS2 = 0.5
"""Squared distortion of the coding length (Yu et al. 2020)."""
ROWS = 8192
"""Pictures that are summed at once in float64."""
WORKING_MEMORY = 128
"""MiB of one chunk of distances."""


@dataclass(frozen=True)
class Overlap:
    """How far a clone and real pictures cover each other, by nearest neighbours."""

    precision: float
    """Share of the clone that lies among real pictures, 0 to 1."""
    recall: float
    """Share of real pictures that lie among the clone, 0 to 1."""
    density: float
    """How many real neighbourhoods a picture of the clone lies in, over those expected; 0 or more, about 1 when both are alike."""
    coverage: float
    """Share of real pictures that have a picture of the clone in their neighbourhood, 0 to 1."""


def sparsity(features: np.ndarray, tolerance: float = ZERO) -> float | None:
    """Share of entries at zero, 0 to 1: those with |z| <= tolerance x the root mean square of all entries.

    The scale makes it the same for features times a constant, and the tolerance also counts activations that only come near zero; where all
    entries are zero it is 1. features [N, D]; None when empty.
    """
    if features.size == 0:
        return None
    scale = np.sqrt(np.mean(np.square(features, dtype=np.float64)))
    return float(np.mean(np.abs(features) <= tolerance * scale))


def intra_class_distance(features: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean distance between pictures of a class, 0 to 2.

    The Euclidean distance of features at unit length, over all pairs of different pictures of a class, then over classes, each of which weighs
    the same. features [N, D], labels [N]; None when no class has two pictures.
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
    """Mean absolute Pearson correlation between different dimensions, 0 to 1 (Wang et al. 2022).

    Unlike theirs, the mean leaves out the correlation of a dimension with itself, so that independent dimensions come near 0; and constant
    dimensions are left out. features [N, D]; None when fewer than 2 dimensions vary.
    """
    if len(features) < 2:
        return None
    _, covariance = _moments(features)
    deviations = np.sqrt(np.diag(covariance))
    varying = deviations > CONSTANT * np.abs(features).max(axis=0)
    count = int(varying.sum())
    if count < 2:
        return None
    correlation = covariance[np.ix_(varying, varying)] / np.outer(deviations[varying], deviations[varying])
    return min(1.0, float(np.abs(correlation).sum() - np.abs(np.diag(correlation)).sum()) / (count * (count - 1)))


def coding_length(features: np.ndarray, eps2: float = EPS2) -> float | None:
    """Coding length per picture in nats, of features at unit length (Ma et al. 2007; Yu et al. 2020): how much space they fill.

    R = 1/2 log det(I + D / (N eps^2) Z^T Z), 0 or more. features [N, D]; None when empty.
    """
    return _rate(normalize(features), eps2) if features.size else None


def class_coding_length(features: np.ndarray, labels: np.ndarray, eps2: float = EPS2) -> float | None:
    """Coding length of the classes in nats (Yu et al. 2020): the mean of R over classes, each weighted by its number of pictures.

    features [N, D], labels [N]; None when empty.
    """
    if not features.size:
        return None
    return sum(len(group) / len(features) * _rate(group, eps2) for group in _by_class(normalize(features), labels))


def rate_reduction(features: np.ndarray, labels: np.ndarray, eps2: float = EPS2) -> float | None:
    """Coding length of all pictures minus that of the classes in nats, 0 or more (Yu et al. 2020): how far apart classes lie.

    features [N, D], labels [N]; None when empty.
    """
    return _reduction(coding_length(features, eps2), class_coding_length(features, labels, eps2))


def analyse(features: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """All analyses of one set by name; None where one is not defined, and everywhere when a feature is not finite. features [N, D], labels [N]."""
    names = ("sparsity", "intra_class_distance", "redundancy", "coding_length", "class_coding_length", "rate_reduction")
    if not np.isfinite(features).all():
        return dict.fromkeys(names)
    whole, classes = coding_length(features), class_coding_length(features, labels)
    values = (sparsity(features), intra_class_distance(features, labels), redundancy(features), whole, classes, _reduction(whole, classes))
    return dict(zip(names, values, strict=True))


def precision_recall_density_coverage(real: np.ndarray, fake: np.ndarray, neighbours: int = 5) -> Overlap:
    """Compare a clone with real pictures by nearest neighbours.

    A picture's neighbourhood is the closed ball that reaches its k-th nearest other picture of the same set. Precision is the share of fake
    pictures in any real neighbourhood, recall the share of real pictures in any fake one (Kynkaanniemi et al. 2019). Density is the mean number
    of real neighbourhoods that a fake picture lies in over k, coverage the share of real neighbourhoods that hold a fake one (Naeem et al.
    2020). All depend on N, M and k, so compare only numbers of the same three.

    Args:
        real: features of real pictures [N, D].
        fake: features of the clone [M, D].
        neighbours: k.

    Raises:
        UserError: when a set has fewer than neighbours + 1 pictures, k is below 1, or the features do not fit each other or are not finite.
    """
    _need_fitting(real, fake)
    fewest = min(len(real), len(fake))
    if not 1 <= neighbours < fewest:
        raise UserError("analysis.neighbours", neighbours, f"give 1 to {fewest - 1}: the smaller set has {fewest} pictures")
    centre = real.mean(axis=0, dtype=np.float64)
    real, fake = ((values - centre).astype(np.float32) for values in (real, fake))
    slack = SLACK * np.sqrt(np.mean(np.square(real, dtype=np.float64).sum(axis=1)))
    real_radii, fake_radii = (_radii(values, neighbours) + slack for values in (real, fake))
    among_real, held, recalled, start = np.zeros(len(fake), dtype=np.int64), 0, 0, 0
    for distances in pairwise_distances_chunked(real, fake, working_memory=WORKING_MEMORY):
        inside = distances <= real_radii[start : start + len(distances), None]
        among_real += inside.sum(axis=0)
        held += int(inside.any(axis=1).sum())
        recalled += int((distances <= fake_radii).any(axis=1).sum())
        start += len(distances)
    density = float(among_real.mean()) / neighbours
    return Overlap(float(np.mean(among_real > 0)), recalled / len(real), density, held / len(real))


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Squared Frechet distance of two normal distributions with the sets' means and covariances, 0 or more (Heusel et al. 2017).

    |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)). With C = F F^T from the eigenvalues of C above rounding, the last trace is the sum of
    the singular values of F1^T F2: it needs no square root of a product that is not symmetric, and holds for fewer pictures than dimensions.
    The distance of few pictures is too high (Chong and Forsyth 2020), so compare only numbers of the same N and M.

    Args:
        real: features [N, D].
        fake: features [M, D].

    Raises:
        UserError: when a set has fewer than 2 pictures, or the features do not fit each other or are not finite.
    """
    _need_fitting(real, fake)
    if min(len(real), len(fake)) < 2:
        raise UserError("analysis.features", (real.shape, fake.shape), "give at least 2 pictures of each set")
    (real_mean, real_covariance), (fake_mean, fake_covariance) = _moments(real), _moments(fake)
    shared = svdvals(_factor(real_covariance).T @ _factor(fake_covariance)).sum()
    between = float(np.sum((real_mean - fake_mean) ** 2))
    return max(0.0, between + float(np.trace(real_covariance) + np.trace(fake_covariance) - 2 * shared))


def _by_class(values: np.ndarray, labels: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each class that has any."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    for chosen in np.split(order, starts):
        yield values[chosen]


def _row_sums(distances: np.ndarray, start: int) -> np.ndarray:
    return distances.sum(axis=1, dtype=np.float64)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] (over N - 1) in float64."""
    num_images, dimensions = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((dimensions, dimensions))
    for start in range(0, num_images, ROWS):
        centred = features[start : start + ROWS] - mean
        covariance += centred.T @ centred
    return mean, covariance / (num_images - 1)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F [D, rank] with F F^T = covariance; eigenvalues that are rounding are left out."""
    values, vectors = eigh(covariance)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def _rate(unit: np.ndarray, eps2: float) -> float:
    """1/2 log det(I + D / (N eps^2) Z^T Z) of rows at unit length [N, D]; over N x N where that is smaller."""
    num_images, dimensions = unit.shape
    rows = unit.astype(np.float64) if num_images < dimensions else None
    gram = rows @ rows.T if rows is not None else _gram(unit)
    _, value = np.linalg.slogdet(np.eye(len(gram)) + dimensions / (num_images * eps2) * gram)
    return max(0.0, 0.5 * float(value))


def _reduction(whole: float | None, classes: float | None) -> float | None:
    return None if whole is None or classes is None else max(0.0, whole - classes)


def _gram(unit: np.ndarray) -> np.ndarray:
    """Z^T Z [D, D] in float64."""
    total = np.zeros((unit.shape[1], unit.shape[1]))
    for start in range(0, len(unit), ROWS):
        part = unit[start : start + ROWS].astype(np.float64)
        total += part.T @ part
    return total


def _radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each picture to its k-th nearest other one [N]."""
    distances, _ = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(features).kneighbors()
    return np.asarray(distances[:, -1])


def _need_fitting(real: np.ndarray, fake: np.ndarray) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise UserError("analysis.features", (real.shape, fake.shape), "give features of the same network for both sets")
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise UserError("analysis.features", "NaN or infinity", "choose a network whose features are finite numbers")
