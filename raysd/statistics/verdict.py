"""The words for a difference and its interval."""

from typing import Literal

Verdict = Literal["better", "worse", "within noise"]


def verdict_of(low: float, high: float) -> Verdict:
    """Return what a difference is whose 95 % interval goes from `low` to `high`; within noise when it holds 0."""
    return "better" if low > 0 else "worse" if high < 0 else "within noise"
