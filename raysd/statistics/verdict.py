"""The words for a difference and its interval."""

from typing import Literal

Verdict = Literal["better", "worse", "within noise"]
OPPOSITE: dict[Verdict, Verdict] = {"better": "worse", "worse": "better", "within noise": "within noise"}
"""Of a verdict on A against B, that on B against A."""


def verdict_of(low: float, high: float) -> Verdict:
    """Return what a difference is whose 95 % interval goes from `low` to `high`; within noise when it holds 0."""
    return "better" if low > 0 else "worse" if high < 0 else "within noise"


def verdict_below_best(high: float | None) -> Literal["worse", "within noise", "unknown"]:
    """Return what a setting is whose difference to the best one has an interval up to `high`; unknown without one.

    It is never better: the best one is the highest, so that an interval above 0 only shows how it was chosen.
    """
    return "unknown" if high is None else "worse" if high < 0 else "within noise"
