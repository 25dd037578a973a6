"""Intervals over images, and whether two settings differ on the same images."""

import math
from dataclasses import dataclass

import numpy as np

from raysd.errors import UserError
from raysd.statistics.many import tukey_p_value, tukey_quantile
from raysd.statistics.verdict import Verdict, verdict_of

ROUNDING = 1e-6
"""Images; a number of right ones that is this close to a whole one is whole."""
RESAMPLES = 10_000
MOST_VALUES = 64
"""Up to so many different values, a bootstrap samples how often each one comes up, not image by image."""
CHUNK = 8_000_000
"""Numbers that a bootstrap holds at once."""


@dataclass(frozen=True)
class Comparison:
    """Setting A against setting B on the same images."""

    difference: float
    """Mean accuracy of A minus that of B in points."""
    low: float
    """Lower end of the 95 % interval of the difference in points."""
    high: float
    p_value: float
    """Two-sided, of no difference."""
    verdict: Verdict
    """Of A; `within noise` when the interval holds 0."""
    counts_seeds: bool
    """False when both settings have one classifier, so that the interval only holds for these two classifiers."""


@dataclass(frozen=True)
class _Side:
    """The classifiers of one setting, as shares of images."""

    num_seeds: int
    seeds: float
    """Variance of the accuracy between classifiers; 0 with one classifier."""
    rest: float
    """Part of `seeds` that comes from the choice of images: the mean square of (classifier x image) over N; 0 with
    one classifier."""


def wilson_interval(percent: float, num_images: int) -> tuple[float, float]:
    """Return the 95 % interval in percent of an accuracy over `num_images` images (Wilson 1927).

    The images are independent of each other. The accuracy may be a mean over several classifiers of these images, which
    need not be a whole number of them.
    """
    from scipy.stats import binomtest  # half a second to import, and seldom needed

    count = percent * num_images / 100
    test = binomtest(round(count), num_images)
    if abs(count - round(count)) > ROUNDING:
        test.k = count  # the interval is defined for any share, though the test wants a whole number
    low, high = test.proportion_ci(0.95, method="wilson")
    return 100 * max(0.0, float(low)), 100 * min(1.0, float(high))


def bootstrap_interval(correct: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the 95 % percentile interval in percent of a mean over images (Efron 1979).

    The mean of N values that are sampled again needs only how often each different value came up, which is one
    multinomial sample (binomial for right and wrong). Only where there are many different values are images sampled one
    by one.

    Args:
        correct: of each image [N], true or false, or a share from 0 to 1, as the mean over several classifiers.
        seed: of the samples.
        resamples: how often.

    Raises:
        UserError: when there is no image.
    """
    values, num_images = np.asarray(correct, dtype=np.float64), len(correct)
    if num_images == 0:
        raise UserError("correct", values.shape, "give at least one image")
    rng = np.random.default_rng(seed)
    different, counts = np.unique(values, return_counts=True)
    if len(different) <= MOST_VALUES:
        means = rng.multinomial(num_images, counts / num_images, size=resamples) @ different / num_images
    else:
        from scipy.stats import bootstrap  # half a second to import, and seldom needed

        batch = max(1, CHUNK // num_images)
        found = bootstrap(
            (values,), np.mean, n_resamples=resamples, batch=batch, vectorized=True, method="percentile", rng=rng
        )
        means = found.bootstrap_distribution
    low, high = np.quantile(means, [0.025, 0.975])
    return 100 * float(low), 100 * float(high)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Return the two-sided p-value of two classifiers being equally often right on the same images.

    The exact binomial test on the images that only one of the two gets right (McNemar 1947); 1 when there are none.

    Args:
        correct_a: whether the first classifier is right, bool [N].
        correct_b: the same of the second.

    Raises:
        UserError: when the numbers of images differ.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape:
        raise UserError("correct", (a.shape, b.shape), "compare classifiers on the same images")
    from scipy.stats import binomtest  # half a second to import, and seldom needed

    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_difference(correct_a: np.ndarray, correct_b: np.ndarray, num_settings: int = 2) -> Comparison:
    """Compare two settings, each with several classifiers, on the same images.

    Both the images and the classifiers are a sample: another test set, or another seed, gives another difference. With
    c[s, i] = classifier s is right on image i, d[i] = mean over s of A minus that of B, and D = mean of d, three parts
    add up (a crossed random-effects analysis, as for several readers of the same cases: Dorfman, Berbaum and Metz 1992,
    Hillis 2007):

        classifiers  V_A = s2_A / S_A, V_B = s2_B / S_B           s2 = variance of one setting's accuracies
        images       V_P = max(0, v / N - m_A / S_A - m_B / S_B)  v = variance of d over images
        Var(D)       V = V_A + V_B + V_P

    Chance that belongs to neither alone, a classifier that happens to be right on an image, is in s2 and in v. So m,
    its part of s2, is taken off once: m = (mean square of c without its means over rows and columns) / N. The interval
    is D +- t * sqrt(V); t has the degrees of freedom V^2 / (V_A^2 / (S_A - 1) + V_B^2 / (S_B - 1) + V_P^2 / (N - 1))
    (Satterthwaite 1946, Welch 1947).

    In simulation with 2 to 5 classifiers of two equal settings, 3 to 6 % of the comparisons are not within noise. With
    one classifier on one side alone, that side takes s2 and m of the other (as in a t-test of equal variances; 5 to 8 %
    in simulation). With one on both sides, only the images count: the interval is that of these two classifiers, it
    says nothing of other seeds, and `counts_seeds` is false. The classifiers of A and B count as independent, also
    where they share a seed. To v are added one image that only A gets right and one that only B does (Bonett and Price
    2012), as few discordant images else make the interval too narrow; this is sqrt(2) / N in D.

    Where the two were picked among more settings, t is Tukey's (`raysd.statistics.many.tukey_quantile`): in 5 % of
    cases the two most different of so many equal settings are not within noise.

    Args:
        correct_a: of setting A, bool or 0 to 1 [S_a, N]; [N] is one classifier.
        correct_b: of setting B [S_b, N], for the same images in the same order.
        num_settings: among which the two were picked, from 2 on.

    Raises:
        UserError: when the numbers of images differ, there are fewer than 2 images, or no classifier.
    """
    a, b = (np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (correct_a, correct_b))
    num_images = a.shape[1]
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != num_images or num_images < 2 or not len(a) or not len(b):
        raise UserError(
            "correct",
            (a.shape, b.shape),
            "give at least one classifier of each setting, on the same images, at least 2",
        )
    differences = a.mean(axis=0) - b.mean(axis=0)
    difference = float(differences.mean())
    images = float((np.sum((differences - difference) ** 2) + 2) / (num_images + 1)) / num_images
    sides = [_side(a), _side(b)]
    counts_seeds = max(side.num_seeds for side in sides) > 1
    parts = _seed_parts(*sides) if counts_seeds else []
    images = max(0.0, images - sum(rest for _, _, rest in parts))
    total = images + sum(part for part, _, _ in parts)
    freedom = (
        total**2 / (images**2 / (num_images - 1) + sum(part**2 / own for part, own, _ in parts))
        if total
        else num_images - 1
    )
    error = math.sqrt(total)
    half = tukey_quantile(num_settings, freedom) * error
    p_value = tukey_p_value(difference / error, num_settings, freedom) if error else float(difference == 0)
    low, high = max(-1.0, difference - half), min(1.0, difference + half)
    return Comparison(100 * difference, 100 * low, 100 * high, p_value, verdict_of(low, high), counts_seeds)


def _side(correct: np.ndarray) -> _Side:
    num_seeds, num_images = correct.shape
    if num_seeds == 1:
        return _Side(1, 0.0, 0.0)
    accuracies = correct.mean(axis=1)
    residuals = correct - accuracies[:, None] - correct.mean(axis=0) + accuracies.mean()
    mean_square = float(np.sum(residuals**2)) / ((num_seeds - 1) * (num_images - 1))
    return _Side(num_seeds, float(accuracies.var(ddof=1)), mean_square / num_images)


def _seed_parts(a: _Side, b: _Side) -> list[tuple[float, float, float]]:
    """Return the classifiers' parts of the variance: (V, its degrees of freedom, what it shares with the images'
    part)."""
    if a.num_seeds > 1 and b.num_seeds > 1:
        return [(side.seeds / side.num_seeds, side.num_seeds - 1, side.rest / side.num_seeds) for side in (a, b)]
    known = max(a, b, key=lambda side: side.num_seeds)
    weight = 1 / a.num_seeds + 1 / b.num_seeds
    return [(known.seeds * weight, known.num_seeds - 1, known.rest * weight)]
