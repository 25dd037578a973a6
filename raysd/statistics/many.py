"""Many settings: what may be said of the one that was chosen for its high score, and of the others next to it.

The highest of several scores is partly luck. With 8 equal settings and three seeds, an interval for one setting alone
holds the true score of the best one in 83 % of all sweeps, and a test for one pair calls some setting worse than the
best in 42 % (benchmarks/verdicts.py). The rules here allow for the choice:

- a setting is worse than the best only where they differ by more than Tukey's margin (`tukey_quantile`). In at most 5 %
  of sweeps some setting is called worse that is not, whatever the settings are;
- the score of the best one has an interval that allows for the luck (`interval_of_best`), and an expected value without
  it (`shrunk_best`).

All assume scores = setting + seed + noise, with normal noise of one spread (`raysd.statistics.seeds.pooled_spread`).
"""

import math
from functools import lru_cache

import numpy as np
from scipy.special import stdtr, stdtrit

from raysd.statistics.seeds import pooled_spread

CONFIDENCE = 0.95


@lru_cache(maxsize=1024)
def tukey_quantile(num_settings: int, freedom: float) -> float:
    """Return by how many standard errors of a difference the highest and the lowest of several equal settings differ in
    5 % of cases; Student's t, two-sided, for two (Tukey 1953: the studentized range over the root of 2).

    Args:
        num_settings: from 2 on.
        freedom: degrees of freedom of the standard error, above 0.
    """
    if num_settings == 2:
        return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    from scipy.stats import studentized_range  # half a second to import, and seldom needed

    return float(studentized_range.ppf(CONFIDENCE, num_settings, freedom)) / math.sqrt(2)


def tukey_p_value(statistic: float, num_settings: int, freedom: float) -> float:
    """Return how often two of several equal settings differ by so many standard errors of a difference.

    Args:
        statistic: a difference over its standard error, of either sign.
        num_settings: see `tukey_quantile`, as for the rest.
    """
    if num_settings == 2:
        return 2 * float(stdtr(freedom, -abs(statistic)))
    from scipy.stats import studentized_range

    return float(studentized_range.sf(math.sqrt(2) * abs(statistic), num_settings, freedom))


def margin_to_best(scores: np.ndarray, num_settings: int) -> float:
    """Return the margin of a difference to the best setting: one that is further below is worse, beyond noise.

    Args:
        scores: in percent [S settings, K seeds], NaN where one failed.
        num_settings: that are compared, also those that have no scores here; S or more.

    Returns:
        Points; NaN where there is no pooled spread.
    """
    spread, freedom = pooled_spread(scores)
    return tukey_quantile(num_settings, freedom) * spread * math.sqrt(2 / scores.shape[1]) if freedom else math.nan


def interval_of_best(scores: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """Return the 95 % interval of the true score of the setting with the highest mean, over all seeds there could be.

    The variance of a mean is that of its own noise and of what the seeds do to all settings alike, each by its mean
    square (Satterthwaite 1946 for the degrees of freedom). The upper end is Student's: a setting that is chosen for its
    high mean is not below its true score more often than one that is given. The lower end is for S settings, each of
    which could be the lucky one (Sidak 1967).

    Args:
        scores: in percent [S settings, K seeds], NaN where one failed.

    Returns:
        Percent; None with one seed, or where all failed.
    """
    whole = scores[~np.isnan(scores).any(axis=1)]
    num_settings, num_seeds = whole.shape
    if num_seeds < 2 or not num_settings:
        return None, None
    best, seeds = float(whole.mean(axis=1).max()), float(whole.mean(axis=0).var(ddof=1))
    spread, freedom = pooled_spread(whole)
    own = (num_settings - 1) / num_settings * spread**2 if freedom else 0.0
    if not seeds + own:
        return best, best
    used = (seeds + own) ** 2 / (seeds**2 / (num_seeds - 1) + (own**2 / freedom if freedom else 0.0))
    error, tail = math.sqrt((seeds + own) / num_seeds), (1 + CONFIDENCE) / 2
    below, above = (float(stdtrit(used, level)) * error for level in (tail ** (1 / num_settings), tail))
    return max(0.0, best - below), min(100.0, best + above)


def shrunk_best(scores: np.ndarray) -> float:
    """Return what the best setting's score is expected to be when it is measured again.

    The highest mean is pulled toward the mean of all settings by the share of their spread that noise explains:
    (S - 3) f / (f + 2) v / sum (mean - mean of all)^2, at most 1, with v the noise of a mean and f its degrees of
    freedom (James and Stein 1961; Efron and Morris 1973).

    Args:
        scores: in percent [S settings, K seeds], NaN where one failed.

    Returns:
        Percent; the highest mean itself with fewer than four settings or with one seed.
    """
    whole = scores[~np.isnan(scores).any(axis=1)]
    means = whole.mean(axis=1)
    spread, freedom = pooled_spread(whole)
    between = float(np.sum((means - means.mean()) ** 2))
    if not freedom or len(means) < 4 or not between:
        return float(means.max())
    noise = (len(means) - 3) * freedom / (freedom + 2) * spread**2 / whole.shape[1]
    return float(means.mean() + max(0.0, 1 - noise / between) * (means.max() - means.mean()))
