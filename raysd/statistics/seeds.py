"""Intervals over seeds, and how much of a difference between settings the seeds alone explain.

All settings of a sweep are trained with the same seeds. What a seed does to all settings alike is therefore no noise in
a comparison; only what it does to one setting and not to the others is. Where settings have several clones, a seed
stands for a clone in all of this: the score is the mean over the classifiers of the clone (`means_by_clone`).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtri, stdtrit

CONFIDENCE = 0.95
"""Of a setting as good as another to be kept."""
DECIMALS = 9
"""Of a number of settings; 100 * 0.07 is 7, not a little more."""
POOLED_BELOW = 0.75
"""Quantile of F up to which a fit's residuals pass for the seeds' noise (Bozivich, Bancroft and Hartley 1956)."""


@dataclass(frozen=True)
class Score:
    """An accuracy in percent, over seeds."""

    mean: float
    sd: float | None
    """Standard deviation over seeds in points; None with one seed."""
    num_seeds: int
    low: float
    """Lower end of the 95 % interval of the mean: Student's t over seeds, but no narrower than that over images."""
    high: float

    def __str__(self) -> str:
        """`78.1 ± 0.4` (standard deviation over seeds), or `78.1 [77.3, 78.9]` (one seed, 95 % interval over
        images)."""
        return (
            f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"
            if self.sd is None
            else f"{self.mean:.1f} ± {self.sd:.1f}"
        )


def independent_groups(clones: Sequence[str | None]) -> list[list[int]]:
    """Return which classifiers of a setting count as one, by their places: those that learned from one clone, since
    they share its noise, where there are several clones; else each counts by itself, and only for this clone.

    Args:
        clones: the name of each classifier's clone.
    """
    if len(set(clones)) < 2:
        return [[place] for place in range(len(clones))]
    groups: dict[str | None, list[int]] = {}
    for place, clone in enumerate(clones):
        groups.setdefault(clone, []).append(place)
    return list(groups.values())


def means_by_clone(scores: Sequence[float], num_clones: int) -> list[float]:
    """Return the mean over the classifiers of each clone: number k learned from clone number k modulo their number.
    Classifiers of one clone share its noise, so that only clones are independent. With one clone each classifier counts
    by itself, and only for this clone.

    Args:
        scores: of each classifier, in the order of the seeds.
        num_clones: of the setting.
    """
    if num_clones < 2:
        return list(scores)
    return [statistics.fmean(own) for place in range(num_clones) if (own := scores[place::num_clones])]


def pooled_spread(scores: np.ndarray) -> tuple[float, int]:
    """Return the spread of the seeds, pooled over settings, and its degrees of freedom.

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
    """Return how far noise alone moves a mean over seeds, or the difference of two: t * spread * sqrt(num_means / K).

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
    """Return which settings are not worse than the reference by more than noise.

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
    """Return how many of `count` settings go on when a share does: rounded up, at least one."""
    return max(1, math.ceil(round(count * share, DECIMALS)))


def keep_best(scores: np.ndarray, share: float, within_noise: bool) -> list[int]:
    """Return the settings that go on to the next rung, best first.

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
    """Return the lowest mean within noise of the reference's."""
    return float(scores[reference].mean() - np.nan_to_num(noise_margin(scores, confidence)))


def margin_of_mean(scores: np.ndarray) -> float:
    """Return half the 95 % interval of each setting's mean, from the pooled spread; a setting alone has that of its own
    seeds.

    Args:
        scores: in percent [S settings, K seeds].

    Returns:
        Points; NaN with one seed.
    """
    num_settings, num_seeds = scores.shape
    if num_settings == 1 and num_seeds > 1:
        return t_margin(scores[0].tolist())
    return noise_margin(scores, 0.975, num_means=1)


def setting_margin(residuals: np.ndarray, freedom: int, scores: np.ndarray) -> float | None:
    """Return Student's t times the noise of a setting's mean in points, for an effect; None when nothing is known of
    it.

    There are two measures of this noise: the residuals of a fit of main effects, which hold the seeds' noise and what
    main effects leave unexplained, but often have few degrees of freedom; and the pooled spread of the seeds over the
    root of their number, which has more but knows nothing of the rest. Where the residuals are not larger than the
    seeds explain (F below its 75 % quantile), both are pooled; else the residuals count alone. A fit without degrees of
    freedom leaves the seeds alone.

    Args:
        residuals: of the settings' means, in points [S].
        freedom: degrees of freedom that the fit leaves.
        scores: in percent [S settings, K seeds].
    """
    spread, seeds_freedom = pooled_spread(scores)
    seeds = spread**2 / scores.shape[1]
    fit = float(np.sum(residuals**2)) / freedom if freedom else math.nan
    if not freedom and not seeds_freedom:
        return None
    if not freedom:
        variance, used = seeds, seeds_freedom
    elif not seeds_freedom or fit > seeds * fdtri(freedom, seeds_freedom, POOLED_BELOW):
        variance, used = fit, freedom
    else:
        used = freedom + seeds_freedom
        variance = (freedom * fit + seeds_freedom * seeds) / used
    return float(stdtrit(used, 0.975)) * math.sqrt(variance)


def interval_around(value: float, margin: float) -> tuple[float, float] | tuple[None, None]:
    """Return the ends of an interval; None where the margin is NaN."""
    return (None, None) if math.isnan(margin) else (value - margin, value + margin)


def t_margin(values: Sequence[float]) -> float:
    """Return half the 95 % interval of the mean of some values: Student's t over their own spread; at least two."""
    return float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))


def score_over_seeds(values: Sequence[float], margins: Sequence[tuple[float, float]]) -> Score:
    """Return the mean of percentages [num_seeds] with its 95 % interval.

    Args:
        values: one per seed.
        margins: how far the 95 % interval over images reaches below and above each of them, in points. Few seeds may
            agree by chance, so the interval over seeds is made no narrower than the mean of these.
    """
    mean, count = statistics.fmean(values), len(values)
    sd = statistics.stdev(values) if count > 1 else None
    half = 0.0 if sd is None else t_margin(values)
    below, above = (max(half, statistics.fmean(side)) for side in zip(*margins, strict=True))
    return Score(mean, sd, count, max(0.0, mean - below), min(100.0, mean + above))


def margins_over_sets(margins: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return how far the interval of a mean over sets reaches below and above it; the sets are independent, so the
    margins of each add up by squares."""
    below, above = (math.hypot(*side) / len(margins) for side in zip(*margins, strict=True))
    return below, above
