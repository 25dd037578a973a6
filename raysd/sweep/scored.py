"""Trials that have a score."""

from collections import Counter

from raysd.storage.fingerprint import fingerprint
from raysd.storage.results import Row


def setting_key(trial: Row) -> str:
    """What tells a trial's setting from others; its number only says when it was first tried."""
    return fingerprint(trial["setting"])


def scored(trials: list[Row]) -> list[Row]:
    """The trials that were measured, by setting and rung."""
    return sorted((trial for trial in trials if trial["score"] is not None), key=lambda trial: (trial["number"], trial["rung"]))


def widest_rung(trials: list[Row]) -> list[Row]:
    """The trials of the rung that the most settings reached, the highest of several, in the order of their settings; nothing of nothing."""
    counts = Counter(trial["rung"] for trial in trials)
    rung = max(counts, key=lambda each: (counts[each], each), default=None)
    return sorted((trial for trial in trials if trial["rung"] == rung), key=lambda trial: trial["number"])
