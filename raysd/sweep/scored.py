"""Trials that have a score."""

from collections import Counter

from raysd.storage.results import Row


def scored(trials: list[Row]) -> list[Row]:
    """The trials that were measured, by setting and rung."""
    return sorted((trial for trial in trials if trial["score"] is not None), key=lambda trial: (trial["number"], trial["rung"]))


def widest_rung(trials: list[Row]) -> list[Row]:
    """The trials of the rung that the most settings reached, the highest of several, in the order of their settings; nothing of nothing."""
    counts = Counter(trial["rung"] for trial in trials)
    rung = max(counts, key=lambda each: (counts[each], each), default=None)
    return sorted((trial for trial in trials if trial["rung"] == rung), key=lambda trial: trial["number"])
