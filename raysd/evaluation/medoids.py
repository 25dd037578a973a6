"""K-medoids: those k of some points that lie nearest to all others, each point counted to its nearest medoid."""

import numpy as np


def k_medoids(features: np.ndarray, count: int) -> list[int]:
    """Return the numbers of the medoids, rising, of points float [N, D]; N >= `count`.

    Medoids are added one by one, each where it lessens the sum of squared distances most, and then exchanged for other
    points as long as that lessens it (Kaufman and Rousseeuw's PAM). Nothing is random: of equal points the first is
    taken.
    """
    points = features.astype(np.float64)
    norms = np.square(points).sum(axis=1)
    distances = np.maximum(norms[:, None] + norms[None] - 2 * points @ points.T, 0)
    nearest, medoids = np.full(len(points), np.inf), list[int]()
    for _ in range(count):
        sums = np.minimum(distances, nearest[:, None]).sum(axis=0)
        sums[medoids] = np.inf
        medoids.append(int(sums.argmin()))
        nearest = np.minimum(nearest, distances[:, medoids[-1]])
    while (better := _exchanged(distances, medoids)) is not None:
        medoids = better
    return sorted(medoids)


def _exchanged(distances: np.ndarray, medoids: list[int]) -> list[int] | None:
    """Return the medoids after the best exchange of one of them; None where none lessens the sum of distances."""
    best, found = distances[:, medoids].min(axis=1).sum() * (1 - 1e-9), None
    for place in range(len(medoids)):
        others = medoids[:place] + medoids[place + 1 :]
        nearest = distances[:, others].min(axis=1, initial=np.inf)
        sums = np.minimum(distances, nearest[:, None]).sum(axis=0)
        sums[others] = np.inf
        if sums.min() < best:
            best, found = sums.min(), [*others, int(sums.argmin())]
    return found
