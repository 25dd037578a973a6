"""The settings of a sweep, best first, and which of them are worse than the best by more than noise."""

import math
from collections import Counter

import numpy as np
from scipy.special import stdtrit

from raysd.storage.fingerprint import fingerprint
from raysd.storage.results import Row
from raysd.sweep.analysis.noise import noise_margin


def setting_key(trial: Row) -> str:
    """What tells a trial's setting from others; its number only says when it was first tried."""
    return fingerprint(trial["setting"])


def scored(trials: list[Row]) -> list[Row]:
    """The trials that were measured, by setting and rung."""
    return sorted(
        (trial for trial in trials if trial["score"] is not None), key=lambda trial: (trial["number"], trial["rung"])
    )


def widest_rung(trials: list[Row]) -> list[Row]:
    """The trials of the rung that the most settings reached, the highest of several, in the order of their settings;
    nothing of nothing."""
    counts = Counter(trial["rung"] for trial in trials)
    rung = max(counts, key=lambda each: (counts[each], each), default=None)
    return sorted((trial for trial in trials if trial["rung"] == rung), key=lambda trial: trial["number"])


def rank_settings(trials: list[Row]) -> list[Row]:
    """Rank the settings; those that reached a higher rung come first, within a rung the better score.

    Both intervals are Student's t over the rung's pooled spread (`raysd.sweep.analysis.noise.pooled_spread`). So that
    of a score is for these seeds: what a seed does to all settings alike is not in it. A setting alone on its rung has
    the interval of its own seeds.

    Args:
        trials: of one sweep. A setting that has a score on a rung has one on all rungs below it. Settings without a
            score are left out.

    Returns:
        One row per setting. `score`, `low`, `high` are in percent and of its highest rung with a score; `difference`,
        `difference_low`, `difference_high` in points: this setting minus the best one, at the highest rung where both
        have a score (`compared_at`, in images per class). The ends are 95 % intervals, None where nothing is known of
        the seeds. The verdict is `worse` only where the whole interval of the difference lies below zero; without an
        interval it is `within noise`.
    """
    by_rung: dict[int, dict[str, Row]] = {}
    for trial in scored(trials):
        by_rung.setdefault(trial["rung"], {})[setting_key(trial)] = trial
    scores = {
        rung: np.array([trial["seed_scores"] for trial in own.values()], dtype=np.float64)
        for rung, own in by_rung.items()
    }
    last = {key: own[key] for _, own in sorted(by_rung.items()) for key in own}
    order = sorted(last.values(), key=lambda trial: (-trial["rung"], -trial["score"], trial["number"]))
    ranking = []
    for rank, trial in enumerate(order, start=1):
        ours, best = setting_key(trial), setting_key(order[0])
        rung = max(rung for rung, own in by_rung.items() if ours in own and best in own)
        pair = by_rung[rung][ours], by_rung[rung][best]
        low, high = _interval(trial["score"], _margin_of_mean(scores[trial["rung"]]))
        compared = (
            {"difference": 0.0, "difference_low": None, "difference_high": None, "verdict": "best"}
            if rank == 1
            else _compared(*pair, scores[rung])
        )
        ranking.append(
            {
                "rank": rank,
                **{key: trial[key] for key in ("label", "setting", "clone", "images_per_class")},
                "num_seeds": len(trial["seed_scores"]),
                "score": trial["score"],
                "low": low,
                "high": high,
                "compared_at": pair[0]["images_per_class"],
                **compared,
            }
        )
    return ranking


def _compared(trial: Row, best: Row, scores: np.ndarray) -> Row:
    difference = trial["score"] - best["score"]
    low, high = _interval(difference, noise_margin(scores, 0.975))
    verdict = "worse" if high is not None and high < 0 else "within noise"
    return {"difference": difference, "difference_low": low, "difference_high": high, "verdict": verdict}


def _margin_of_mean(scores: np.ndarray) -> float:
    num_settings, num_seeds = scores.shape
    if num_settings == 1 and num_seeds > 1:
        return float(stdtrit(num_seeds - 1, 0.975) * scores.std(ddof=1)) / math.sqrt(num_seeds)
    return noise_margin(scores, 0.975, num_means=1)


def _interval(value: float, margin: float) -> tuple[float, float] | tuple[None, None]:
    return (None, None) if math.isnan(margin) else (value - margin, value + margin)
