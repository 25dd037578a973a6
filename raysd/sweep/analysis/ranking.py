"""The settings of a sweep, best first, and which of them are worse than the best by more than noise."""

from collections import Counter
from typing import cast

import numpy as np

from raysd.statistics.many import interval_of_best, margin_to_best, shrunk_best
from raysd.statistics.seeds import interval_around, margin_of_mean, means_by_clone
from raysd.statistics.verdict import verdict_below_best
from raysd.storage.fingerprint import fingerprint
from raysd.storage.row_types.sweep import RankedSetting, RungResult, ScoredResult


def setting_key(result: RungResult | ScoredResult) -> str:
    """Return a key that tells a rung result's setting from others; its number only gives the order of trial."""
    return fingerprint(result["setting"])


def independent_scores(result: RungResult | ScoredResult) -> list[float]:
    """Return the scores of a rung result that count as independent: of its clones where there are several, else of its
    classifiers."""
    return means_by_clone(result["seed_scores"], len(result.get("clones", ())))


def scored(results: list[RungResult]) -> list[ScoredResult]:
    """Return the rung results that have a score, by setting and rung. Where clones have unequal numbers of classifiers,
    the score is the mean over the clones, as in all intervals."""
    measured = [cast(ScoredResult, _evened(result)) for result in results if result["score"] is not None]
    return sorted(measured, key=lambda result: (result["number"], result["rung"]))


def _evened(result: RungResult) -> RungResult:
    num_clones = max(1, len(result.get("clones", ())))
    if len(result["seed_scores"]) % num_clones == 0:
        return result
    return {**result, "score": float(np.mean(independent_scores(result)))}


def widest_rung(results: list[ScoredResult]) -> list[ScoredResult]:
    """Return the results of the rung that the most settings reached, the highest of several, in the order of their
    settings; an empty list without results."""
    counts = Counter(result["rung"] for result in results)
    rung = max(counts, key=lambda each: (counts[each], each), default=None)
    return sorted((result for result in results if result["rung"] == rung), key=lambda result: result["number"])


def expected_score(results: list[RungResult]) -> float:
    """Return what the best setting's score is expected to be when it is measured again, in percent.

    Args:
        results: of one sweep, with at least one score.
    """
    known = scored(results)
    last = max(result["rung"] for result in known)
    return shrunk_best(np.array([independent_scores(result) for result in known if result["rung"] == last]))


def rank_settings(results: list[RungResult]) -> list[RankedSetting]:
    """Rank the settings; those that reached a higher rung come first, within a rung the better score.

    The best one's score and the differences to it have intervals that allow for the choice among many settings
    (`raysd.statistics.many`). The interval of another score is Student's t over the rung's pooled spread
    (`raysd.statistics.seeds.pooled_spread`): for this setting alone, and for these seeds, since what a seed does to all
    settings alike is not in it. With several clones for each setting, settings are compared by their clones' means, so
    the intervals count the clones' noise; with one they are for this one clone seed.

    Args:
        results: of one sweep. A setting that has a score on a rung has one on all rungs below it. Settings without a
            score are left out.

    Returns:
        One row per setting. `score`, `low`, `high` are in percent and of its highest rung with a score; `difference`,
        `difference_low`, `difference_high` in points: this setting minus the best one, at the highest rung where both
        have a score (`compared_at`, in images per class). The ends are 95 % intervals, None where nothing is known of
        the seeds. The verdict is `worse` only where the whole interval of the difference is below zero; without an
        interval it is `unknown`.
    """
    by_rung: dict[int, dict[str, ScoredResult]] = {}
    for result in scored(results):
        by_rung.setdefault(result["rung"], {})[setting_key(result)] = result
    scores = {
        rung: np.array([independent_scores(result) for result in own.values()], dtype=np.float64)
        for rung, own in by_rung.items()
    }
    last = {key: own[key] for _, own in sorted(by_rung.items()) for key in own}
    order = sorted(last.values(), key=lambda result: (-result["rung"], -result["score"], result["number"]))
    ranking: list[RankedSetting] = []
    for rank, result in enumerate(order, start=1):
        ours, best = setting_key(result), setting_key(order[0])
        rung = max(rung for rung, own in by_rung.items() if ours in own and best in own)
        here = by_rung[rung][ours]
        at_rung = scores[result["rung"]]
        low, high = (
            interval_of_best(at_rung) if rank == 1 else interval_around(result["score"], margin_of_mean(at_rung))
        )
        difference = here["score"] - by_rung[rung][best]["score"]
        ends = (None, None) if rank == 1 else interval_around(difference, margin_to_best(scores[rung], len(order)))
        ranking.append(
            {
                "rank": rank,
                "label": result["label"],
                "setting": result["setting"],
                "clone": result["clone"],
                "images_per_class": result["images_per_class"],
                "num_seeds": len(result["seed_scores"]),
                "num_clone_seeds": len(result.get("clones", [result["clone"]])),
                "score": result["score"],
                "low": low,
                "high": high,
                "compared_at": here["images_per_class"],
                "difference": difference,
                "difference_low": ends[0],
                "difference_high": ends[1],
                "verdict": "best" if rank == 1 else verdict_below_best(ends[1]),
            }
        )
    return ranking
