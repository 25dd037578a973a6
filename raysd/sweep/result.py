"""The result row of a sweep, made from its rung results."""

import time
from collections.abc import Mapping
from typing import Any

from raysd.clone.clone import clone_folder
from raysd.config import Experiment
from raysd.errors import Failure
from raysd.evaluation.compare import compare_classifiers
from raysd.evaluation.evaluate import Evaluation
from raysd.resolve import clone_spec_of, replicates
from raysd.storage.row_types.measured import AccuracyRow
from raysd.storage.row_types.sweep import (
    BestSetting,
    Confirmation,
    FailedMeasurement,
    RankedSetting,
    RungResult,
    SweepRow,
    SweptClone,
    SweptComparison,
)
from raysd.storage.rows import ACCURACY, FAILED, find_row
from raysd.sweep.analysis.cost import sweep_cost
from raysd.sweep.analysis.effects import marginal_effects
from raysd.sweep.analysis.proxies import proxy_regrets
from raysd.sweep.analysis.ranking import expected_score, rank_settings
from raysd.sweep.confirm import confirmation
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import Setting, experiment_at
from raysd.versions import versions


def sweep_row(
    experiment: Experiment,
    sweep: str,
    rungs: list[RungSettings],
    num_settings: int,
    results: list[RungResult],
    confirmed: list[RungResult],
    baselines: dict[str, list[str]],
    failed_baselines: Mapping[str, str],
    evaluation: Evaluation,
) -> SweepRow:
    """Return the best setting, the ranking, the effects, the cost, and the failed and skipped settings. Where fresh
    seeds confirmed some settings, the best one is chosen among them by these scores alone.

    Args:
        experiment: with the sweep.
        sweep: its fingerprint.
        rungs: its budgets.
        num_settings: of the whole grid, or of a random search; 0 where it is not known beforehand.
        results: the rung results that were taken.
        confirmed: those of the finalists' fresh measurements.
        baselines: fingerprints of the baselines' classifiers, by kind.
        failed_baselines: why a baseline failed, by kind.
        evaluation: knows the real data sets.

    Raises:
        Failure: no setting was measured on all sets of the objective.
    """
    last = {Setting(result["setting"]): result for result in sorted(results, key=lambda result: result["rung"])}
    classifiers = list(
        dict.fromkeys(
            [key for result in [*results, *confirmed] for key in result["classifiers"]]
            + [key for group in baselines.values() for key in group]
        )
    )
    rows, failed = _measured(evaluation, classifiers)
    failed += [_failed(result) for result in [*results, *confirmed] if "error" in result]
    failed += [
        {"dataset": "-", "error": reason, "seed": None, "trained_on": kind, "is_unexplained": True}
        for kind, reason in failed_baselines.items()
    ]
    if all(result["score"] is None for result in results):
        why = f": {failed[0]['trained_on']}: {failed[0]['error']}" if failed else ""
        count = len(last) or num_settings
        raise Failure(f"all {count} settings of the sweep failed{why}; the same command tries them again")
    ranking, again = rank_settings(results), confirmation(results, confirmed, experiment)
    best = last[Setting((again or {"ranking": ranking})["ranking"][0]["setting"])]
    budgets = [(rung.images_per_class, rung.num_seeds or 0) for rung in rungs]
    cost = sweep_cost(results, num_settings or len(last), budgets, len(experiment.table), confirmed)
    row: SweepRow = {
        "fingerprint": sweep,
        "name": experiment.name,
        "objective": experiment.sweep.objective,
        "search": experiment.sweep.search,
        "scheduler": experiment.sweep.scheduler,
        "rungs": [{"images_per_class": count, "num_seeds": seeds} for count, seeds in budgets],
        "factors": _factors(experiment, list(last)),
        "best": _best(experiment, ranking[0], rungs[best["rung"]], expected_score(results))
        if again is None
        else _confirmed_best(experiment, again, best, expected_score(confirmed)),
        "images_per_class": rungs[-1].images_per_class,
        "clones": [_clone(experiment, setting, result, rungs, results) for setting, result in last.items()],
        "ranking": ranking,
        "effects": marginal_effects(results, _factors(experiment, list(last))),
        "proxies": proxy_regrets(results),
        "cost": cost,
        "num_generated": cost["num_generated"],
        "seconds": {
            "generate": cost["generate_seconds"],
            "train": cost["train_seconds"],
            "measure": cost["measure_seconds"],
        },
        "rung_results": [result["fingerprint"] for result in results],
        "rows": [row["fingerprint"] for row in rows],
        "classifiers": classifiers,
        "comparisons": _comparisons(evaluation, best, list(last.values()), confirmed, baselines, rows),
        "failed": failed,
        "skipped_sets": evaluation.skipped,
        "command": evaluation.command,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if again is not None:
        row["confirmed"] = again
    return row


def _failed(result: RungResult) -> FailedMeasurement:
    failed: FailedMeasurement = {
        "dataset": "-",
        "error": result["error"],
        "seed": None,
        "trained_on": f"{result['label']}, confirmed" if result.get("confirmed") else result["label"],
    }
    return {**failed, "is_unexplained": True} if result.get("is_unexplained") else failed


def _measured(evaluation: Evaluation, classifiers: list[str]) -> tuple[list[AccuracyRow], list[FailedMeasurement]]:
    """Return the accuracy rows of some classifiers, and the measurements that failed with the reason."""
    rows: list[AccuracyRow] = []
    failed: list[FailedMeasurement] = []
    for key in (key for classifier in classifiers for key in evaluation.row_fingerprints(classifier)):
        if (row := find_row(evaluation.root, ACCURACY, key)) is not None:
            rows.append(row)
        elif (absent := find_row(evaluation.root, FAILED, key)) is not None:
            failed.append(
                {
                    "dataset": absent["dataset"],
                    "error": absent["error"],
                    "seed": absent["seed"],
                    "trained_on": absent["trained_on"]["name"],
                }
            )
    return rows, failed


def _best(experiment: Experiment, first: RankedSetting, rung: RungSettings, expected: float) -> BestSetting:
    """Return the best setting from the one that is ranked first."""
    at = experiment_at(experiment, Setting(first["setting"]), rung)
    return {
        "variant": at.generation.variant,
        "guidance_scale": at.generation.mean_guidance_scale,
        "clone": first["clone"],
        "setting": first["setting"],
        "label": first["label"],
        "score": first["score"],
        "images_per_class": first["images_per_class"],
        "low": first["low"],
        "high": first["high"],
        "expected": expected,
    }


def _confirmed_best(experiment: Experiment, again: Confirmation, search: RungResult, expected: float) -> BestSetting:
    """Return the best finalist with its confirmed score; its clone is that of the search."""
    first, budget = again["ranking"][0], RungSettings(images_per_class=again["images_per_class"])
    best = _best(experiment, first, budget, expected)
    return {**best, "clone": search["clone"], "search_score": first["search_score"]}


def _factors(experiment: Experiment, settings: list[Setting]) -> dict[str, list[Any]]:
    """Return the values of each factor that were tried, in the order of the space, or rising where it names a range."""
    found = {}
    for name, choices in experiment.sweep.space.factors().items():
        tried = [setting.values[name] for setting in settings]
        found[name] = (
            [value for value in choices if value in tried] if isinstance(choices, list) else sorted(set(tried))
        )
    return found


def _clone(
    experiment: Experiment, setting: Setting, last: RungResult, rungs: list[RungSettings], results: list[RungResult]
) -> SweptClone:
    """Return a setting with its clone, up to the last rung that it reached."""
    at = experiment_at(experiment, setting, rungs[last["rung"]])
    spec = clone_spec_of(replicates(at)[0])
    own = [result for result in results if Setting(result["setting"]) == setting]
    clone: SweptClone = {
        "fingerprint": spec.fingerprint,
        "folder": clone_folder(experiment.root, spec).uri,
        "setting": dict(setting.values),
        "label": setting.label,
        "variant": spec.variant_name,
        "guidance_scale": spec.guidance_scale,
        "model": spec.model.name,
        "num_inference_steps": spec.num_inference_steps,
        "images_per_class": last["images_per_class"],
        "num_images": last["num_images"],
        "num_flagged": last["num_flagged"],
        "short_classes": last["short_classes"],
        "score": last["score"],
        "rungs": [
            {
                "images_per_class": result["images_per_class"],
                "score": result["score"],
                "seed_scores": result["seed_scores"],
            }
            for result in own
        ],
        "proxies": own[0]["proxies"],
    }
    if "clones" in last:
        clone["clones"] = last["clones"]
    return clone


def _comparisons(
    evaluation: Evaluation,
    best: RungResult,
    last: list[RungResult],
    confirmed: list[RungResult],
    baselines: dict[str, list[str]],
    rows: list[AccuracyRow],
) -> list[SweptComparison]:
    """Compare the best setting with each that reached as many images, and with the baselines: image by image, on each
    set. The intervals allow for so many comparisons, and for the choice of the best. Finalists are compared by their
    fresh measurements, and so is the best one with the baselines.

    Args:
        evaluation: knows the sets.
        best: of the search's rung results, that of the best setting.
        last: the last rung result of each setting.
        confirmed: the finalists' fresh measurements.
        baselines: fingerprints of the baselines' classifiers, by kind.
        rows: all accuracy rows.
    """
    fresh = {Setting(result["setting"]): result for result in confirmed if result["score"] is not None}
    own = fresh.get(Setting(best["setting"]), best)
    others = [result for result in last if result is not best]
    rivals = [each for each in others if each["rung"] == best["rung"] or Setting(each["setting"]) in fresh]
    sides: list[tuple[str, str, dict[str, Any] | None, list[str], RungResult]] = []
    for rival in rivals:
        both = (again, own) if (again := fresh.get(Setting(rival["setting"]))) is not None else (rival, best)
        sides.append((rival["clone"], rival["label"], rival["setting"], both[0]["classifiers"], both[1]))
    sides += [(kind, kind, None, group, own) for kind, group in baselines.items()]
    found: list[SweptComparison] = []
    for name, label, setting, classifiers, ours in sides:
        left, right = ([row for row in rows if row["classifier"] in own] for own in (ours["classifiers"], classifiers))
        found += [
            {
                "with": name,
                "label": label,
                "setting": setting,
                "role": row["role"],
                "dataset": row["dataset"],
                "shots": row["shots"],
                "probe_label": row["probe_label"],
                "difference": row["difference"],
                "low": row["low"],
                "high": row["high"],
                "p_value": row["p_value"],
                "verdict": row["verdict"],
            }
            for row in compare_classifiers(evaluation, left, right, evaluation.command, 1 + len(sides))
        ]
    return found
