"""How much of a difference between settings the seeds alone explain.

All settings are trained with the same seeds. What a seed does to all settings alike is therefore no noise in a
comparison; only what it does to one setting and not to the others is.
"""

import math

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Of a setting as good as another to be kept."""
ROUNDING = 9
"""Decimals of a number of settings; 100 * 0.07 is 7, not a little more."""


def pooled_spread(scores: np.ndarray) -> tuple[float, int]:
    """The spread of the seeds, pooled over settings, and its degrees of freedom.

    The residual standard deviation of a two-way layout with one value per cell (Scheffé 1959, chapter 4): with r =
    score - mean of its setting - mean of its seed + mean of all, sqrt(sum r^2 / ((S - 1) (K - 1))).

    Args:
        scores: in percent [S settings, K seeds]; a setting with a NaN has failed and is left out.

    Returns:
        The spread in points and (S - 1) (K - 1); NaN and 0 with one seed, or fewer than 2 settings.
    """
    whole = scores[~np.isnan(scores).any(axis=1)]
    num_settings, num_seeds = whole.shape
    freedom = max(0, num_settings - 1) * (num_seeds - 1)
    if freedom == 0:
        return math.nan, 0
    residuals = whole - whole.mean(axis=1, keepdims=True) - whole.mean(axis=0) + whole.mean()
    return math.sqrt(float(np.sum(residuals**2)) / freedom), freedom


def noise_margin(scores: np.ndarray, quantile: float, num_means: int = 2) -> float:
    """How far noise alone moves a mean over seeds, or the difference of two: t * spread * sqrt(num_means / K).

    Args:
        scores: in percent [S settings, K seeds], NaN where one failed.
        quantile: of Student's t, over 0.5 and below 1; 0.975 for both ends of a 95 % interval.
        num_means: 1 for a mean, 2 for a difference.

    Returns:
        Points; NaN where there is no pooled spread.
    """
    spread, freedom = pooled_spread(scores)
    return float(stdtrit(freedom, quantile)) * spread * math.sqrt(num_means / scores.shape[1]) if freedom else math.nan


def within_noise(scores: np.ndarray, reference: int, confidence: float = CONFIDENCE) -> np.ndarray:
    """Which settings are not worse than the reference by more than noise.

    A one-sided t-test, paired by seed: a setting as good as the reference fails it with probability 1 - confidence.
    This holds for a reference that is fixed beforehand; next to one that was chosen for its high score more will fail.

    Args:
        scores: in percent [S settings, K seeds], NaN where one failed.
        reference: the index of a setting that has scores.
        confidence: over 0.5 and below 1.

    Returns:
        bool [S]. False for failed ones. Without a spread, as with one seed, true for those at least as good as the
        reference.
    """
    return scores.mean(axis=1) >= _lowest(scores, reference, confidence)


def num_kept(count: int, share: float) -> int:
    """How many of `count` settings go on when a share does: rounded up, at least one."""
    return max(1, math.ceil(round(count * share, ROUNDING)))


def keep_best(scores: np.ndarray, share: float, within_noise: bool) -> list[int]:
    """The settings that go on to the next rung, best first.

    Args:
        scores: in percent [S settings, K seeds], NaN where one failed.
        share: of the S settings, over 0 and up to 1; rounded up, at least one.
        within_noise: also those that are within noise of the last one kept.

    Returns:
        Indices, the lower one first where means are equal. Failed ones never; nothing when all failed.
    """
    means = scores.mean(axis=1)
    order = [int(index) for index in np.argsort(-means, kind="stable") if not np.isnan(means[index])]
    kept = order[: num_kept(len(scores), share)]
    if not within_noise or not kept:
        return kept
    lowest = _lowest(scores, kept[-1])
    return [index for index in order if means[index] >= lowest]


def _lowest(scores: np.ndarray, reference: int, confidence: float = CONFIDENCE) -> float:
    """The lowest mean within noise of the reference's."""
    return float(scores[reference].mean() - np.nan_to_num(noise_margin(scores, confidence)))
