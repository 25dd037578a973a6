"""The share of the gap between no training and real images that a clone closes."""

import math
from dataclasses import dataclass

from raysd.statistics.seeds import Score


@dataclass(frozen=True)
class Share:
    """A share, 1 is the whole gap, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`98 % [90, 106]`."""
        return f"{100 * self.value:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def gap_closed(clone: Score, real: Score, random: Score) -> Share | None:
    """Return (clone - random) / (real - random) of three mean accuracies; None when real images are not better than no
    training.

    The three are independent. With share g, a change of clone, real and random by one point moves g by 1, -g and g - 1
    over the gap; the ends of their 95 % intervals add up by squares (the delta method).
    """
    gap = real.mean - random.mean
    if gap <= 0:
        return None
    share = (clone.mean - random.mean) / gap
    above, below = (
        math.hypot(*(slope * _reach(score, slope * sign > 0) for score, slope in slopes)) / gap
        for sign in (1, -1)
        for slopes in [((clone, 1.0), (real, -share), (random, share - 1))]
    )
    return Share(share, share - below, share + above)


def _reach(score: Score, is_up: bool) -> float:
    return score.high - score.mean if is_up else score.mean - score.low
