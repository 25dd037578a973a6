"""Means over sets of images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SetMean:
    """The mean over the sets that have a value."""

    mean: float | None
    """None when no set has one."""
    used: tuple[str, ...]
    missing: tuple[str, ...]
    """Sets that failed or were skipped."""


def mean_log_odds(percents: list[float], num_images: list[int]) -> float:
    """Return the mean over sets of log(p / (1 - p)) (Kornblith et al. 2019); p is kept half an image from 0 and 1."""
    odds = []
    for percent, count in zip(percents, num_images, strict=True):
        p = min(max(percent / 100, 0.5 / count), 1 - 0.5 / count)
        odds.append(math.log(p / (1 - p)))
    return float(np.mean(odds))


def mean_over_sets(values: Mapping[str, float | None]) -> SetMean:
    """Return the mean over those sets that have a value (neither None nor NaN), and the names of the others."""
    used = {name: value for name, value in values.items() if value is not None and not math.isnan(value)}
    mean = math.fsum(used.values()) / len(used) if used else None
    return SetMean(mean, tuple(used), tuple(name for name in values if name not in used))
