"""A clone against real images, by their features in one network.

Features are float32 [N, D]. Sums are in float64; distances are computed in chunks, so that memory stays at N x D and D
x D.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, svdvals
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

from raysd.errors import UserError
from raysd.evaluation.moments import moments

SLACK = 1e-6
"""Of the root mean square length; distances that differ by less are the same distance, as float32 cannot tell them
apart."""
WORKING_MEMORY = 128
"""MiB of one chunk of distances."""


@dataclass(frozen=True)
class Overlap:
    """How far a clone and real images cover each other, by nearest neighbors."""

    precision: float
    """Share of the clone that lies among real images, 0 to 1."""
    recall: float
    """Share of real images that lie among the clone, 0 to 1."""
    density: float
    """How many real neighborhoods contain an image of the clone, over those expected; 0 or more, about 1 when both
    are alike."""
    coverage: float
    """Share of real images that have an image of the clone in their neighborhood, 0 to 1."""


def precision_recall_density_coverage(real: np.ndarray, fake: np.ndarray, neighbors: int = 5) -> Overlap:
    """Compare a clone with real images by nearest neighbors.

    An image's neighborhood is the closed ball that reaches its k-th nearest other image of the same set. Precision is
    the share of fake images in any real neighborhood, recall the share of real images in any fake one (Kynkaanniemi et
    al. 2019). Density is the mean number of real neighborhoods that contain a fake image over k, coverage the share of
    real neighborhoods that hold a fake one (Naeem et al. 2020). All depend on N, M and k, so compare only numbers of
    the same three.

    Args:
        real: features of real images [N, D].
        fake: features of the clone [M, D].
        neighbors: k.

    Raises:
        UserError: when a set has fewer than neighbors + 1 images, k is below 1, or the features do not fit each other
            or are not finite.
    """
    _need_fitting(real, fake)
    fewest = min(len(real), len(fake))
    if not 1 <= neighbors < fewest:
        raise UserError("analysis.neighbors", neighbors, f"give 1 to {fewest - 1}: the smaller set has {fewest} images")
    center = real.mean(axis=0, dtype=np.float64)
    real, fake = ((values - center).astype(np.float32) for values in (real, fake))
    slack = SLACK * np.sqrt(np.mean(np.square(real, dtype=np.float64).sum(axis=1)))
    real_radii, fake_radii = (_radii(values, neighbors) + slack for values in (real, fake))
    among_real, held, recalled, start = np.zeros(len(fake), dtype=np.int64), 0, 0, 0
    for distances in pairwise_distances_chunked(real, fake, working_memory=WORKING_MEMORY):
        inside = distances <= real_radii[start : start + len(distances), None]
        among_real += inside.sum(axis=0)
        held += int(inside.any(axis=1).sum())
        recalled += int((distances <= fake_radii).any(axis=1).sum())
        start += len(distances)
    density = float(among_real.mean()) / neighbors
    return Overlap(float(np.mean(among_real > 0)), recalled / len(real), density, held / len(real))


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the squared Frechet distance of two normal distributions with the sets' means and covariances, 0 or more
    (Heusel et al. 2017).

    |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)). With C = F F^T from the eigenvalues of C above rounding, the
    last trace is the sum of the singular values of F1^T F2: it needs no square root of a product that is not symmetric,
    and holds for fewer images than dimensions. The distance of few images is too high (Chong and Forsyth 2020), so
    compare only numbers of the same N and M.

    Args:
        real: features [N, D].
        fake: features [M, D].

    Raises:
        UserError: when a set has fewer than 2 images, or the features do not fit each other or are not finite.
    """
    _need_fitting(real, fake)
    if min(len(real), len(fake)) < 2:
        raise UserError("analysis.features", (real.shape, fake.shape), "give at least 2 images of each set")
    (real_mean, real_covariance), (fake_mean, fake_covariance) = moments(real), moments(fake)
    shared = svdvals(_factor(real_covariance).T @ _factor(fake_covariance)).sum()
    between = float(np.sum((real_mean - fake_mean) ** 2))
    return max(0.0, between + float(np.trace(real_covariance) + np.trace(fake_covariance) - 2 * shared))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Return F [D, rank] with F F^T = covariance; eigenvalues that are only rounding errors are left out."""
    values, vectors = eigh(covariance)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def _radii(features: np.ndarray, neighbors: int) -> np.ndarray:
    """Return the distance of each image to its k-th nearest other image [N]."""
    distances, _ = NearestNeighbors(n_neighbors=neighbors, algorithm="brute").fit(features).kneighbors()
    return np.asarray(distances[:, -1])


def _need_fitting(real: np.ndarray, fake: np.ndarray) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise UserError(
            "analysis.features", (real.shape, fake.shape), "give features of the same network for both sets"
        )
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise UserError("analysis.features", "NaN or infinity", "choose a network whose features are finite numbers")
