"""The trials that Ray Tune runs for a sweep, and the settings that an earlier run of it tried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from raysd.config import Experiment
from raysd.sweep.rung import RungRunner
from raysd.sweep.rung_rows import find_rung_results
from raysd.sweep.space import Setting, identity_at


@dataclass
class TrialPlan:
    """The trials for Tune."""

    space: dict[str, Any]
    options: dict[str, Any]
    is_done: Callable[[int], bool]
    """Whether so many ended trials are all of them."""
    known: Callable[[], list[tuple[int, int]]] = list
    """Rung results that an earlier run measured and that are taken without a trial, by the setting's place and the
    rung; complete in the end."""
    num_left_out: int = 0
    """Baselines and, as far as is known at the start, rung results without a trial."""


def plan_trials(runner: RungRunner, settings: list[Setting], baselines: list[str]) -> TrialPlan:
    """Plan the trials of a sweep, without those that an earlier run finished, as far as that is known beforehand, since
    each would start a process.

    Args:
        runner: takes settings to rungs.
        settings: of the space, where it is listed.
        baselines: their kinds.
    """
    from ray import tune
    from ray.tune.search import BasicVariantGenerator

    from raysd.sweep import search

    wanted, num_rungs = runner.experiment.sweep, len(runner.rungs)
    options: dict[str, Any] = {"metric": search.METRIC, "mode": search.MODE}
    wanted_baselines, baselines = baselines, [kind for kind in baselines if not runner.is_baseline_measured(kind)]
    num_there = len(wanted_baselines) - len(baselines)
    if wanted.scheduler == "asha":
        options["scheduler"] = search.asha(wanted, num_rungs)
    if wanted.search == "tpe":
        tried = tried_settings(runner.experiment, runner.sweep)
        inner, setting_of = search.tpe(wanted, list(tried)), partial(search.decode, wanted)
        searcher = search.NumberedSearch(baselines, inner, tried, setting_of, partial(identity_at, runner.experiment))
        number = len(baselines) + (wanted.num_settings or 0)
        options |= {
            "search_alg": searcher,
            "num_samples": number,
            "max_concurrent_trials": runner.placement.most_trials,
        }
        return TrialPlan({}, options, lambda ended: ended == number, num_left_out=num_there)
    known = runner.known(settings)
    if wanted.scheduler == "halving":
        halving = search.HalvingSearch(
            len(settings), num_rungs, wanted.keep, wanted.keep_within_noise, baselines, known
        )
        options |= {"search_alg": halving, "num_samples": -1, "max_concurrent_trials": runner.placement.most_trials}
        return TrialPlan(
            {}, options, lambda ended: halving.is_done, lambda: halving.passed, num_there + len(halving.passed)
        )
    done = {place for place in range(len(settings)) if all((place, rung) in known for rung in range(num_rungs))}
    if wanted.scheduler == "asha":
        done = set()  # which rung it ends a setting at depends on the others
    jobs = [
        *({"setting": place} for place in range(len(settings)) if place not in done),
        *({"baseline": kind} for kind in baselines),
    ]
    options |= {"search_alg": BasicVariantGenerator(max_concurrent=runner.placement.most_trials)}
    passed = [(place, rung) for place in sorted(done) for rung in range(num_rungs)]
    return TrialPlan(
        {"job": tune.grid_search(jobs)},
        options,
        lambda ended: ended == len(jobs),
        lambda: passed,
        num_there + len(done),
    )


def plan_confirmation(runner: RungRunner, finalists: Sequence[tuple[Setting, int]]) -> TrialPlan:
    """Plan a trial for each finalist that no earlier run measured again.

    Args:
        runner: measures them.
        finalists: with their numbers.
    """
    from ray import tune
    from ray.tune.search import BasicVariantGenerator

    from raysd.sweep import search

    jobs = [{"finalist": place} for place, finalist in enumerate(finalists) if not runner.is_confirmed(*finalist)]
    limit = BasicVariantGenerator(max_concurrent=runner.placement.most_trials)
    options = {"metric": search.METRIC, "mode": search.MODE, "search_alg": limit}
    num_there = len(finalists) - len(jobs)
    return TrialPlan({"job": tune.grid_search(jobs)}, options, lambda ended: ended == len(jobs), num_left_out=num_there)


def tried_settings(experiment: Experiment, sweep: str) -> dict[Setting, int]:
    """Return the settings that an earlier run of this sweep tried, in their order, with their numbers."""
    return {Setting(row["setting"]): row["number"] for row in find_rung_results(experiment, sweep) if row["rung"] == 0}
