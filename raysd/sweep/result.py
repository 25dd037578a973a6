"""What a sweep found, as one result row, from the rows of its steps."""

import time
from typing import Any

from raysd.clone.clone import clone_folder
from raysd.config import Experiment
from raysd.errors import UserError
from raysd.evaluation.compare import compare_classifiers
from raysd.evaluation.evaluate import FAILED, KIND, Evaluation
from raysd.resolve import clone_spec_of
from raysd.storage.results import Row, find_result
from raysd.sweep.analysis.cost import sweep_cost
from raysd.sweep.analysis.effects import marginal_effects
from raysd.sweep.analysis.proxies import proxy_regrets
from raysd.sweep.analysis.ranking import rank_settings
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import Setting, experiment_at
from raysd.versions import versions

COMPARED = (
    "with",
    "label",
    "setting",
    "role",
    "dataset",
    "shots",
    "probe_label",
    "difference",
    "low",
    "high",
    "p_value",
    "verdict",
)


def sweep_row(
    experiment: Experiment,
    sweep: str,
    rungs: list[RungSettings],
    num_settings: int,
    steps: list[Row],
    baselines: dict[str, list[str]],
    evaluation: Evaluation,
) -> Row:
    """The best setting, the ranking, the effects, the cost, and what failed or was skipped.

    Args:
        experiment: with the sweep.
        sweep: its fingerprint.
        rungs: its budgets.
        num_settings: of the whole grid, or of a random search; 0 where it is not known beforehand.
        steps: the rows of the steps that were taken.
        baselines: fingerprints of the baselines' classifiers, by kind.
        evaluation: knows the real data sets.

    Raises:
        UserError: no setting was measured on all sets of the objective.
    """
    last = {Setting(step["setting"]): step for step in sorted(steps, key=lambda step: step["rung"])}
    classifiers = list(
        dict.fromkeys(
            [key for step in steps for key in step["classifiers"]]
            + [key for group in baselines.values() for key in group]
        )
    )
    rows, failed = _measured(evaluation, classifiers)
    failed += [
        {"dataset": "-", "error": step["error"], "seed": None, "trained_on": step["label"]}
        for step in steps
        if "error" in step
    ]
    if all(step["score"] is None for step in steps):
        why = f" ({failed[0]['error']})" if failed else ""
        raise UserError(
            "sweep.objective",
            experiment.sweep.objective,
            f"no setting was measured on all of its sets{why}; run the same command again",
        )
    ranking = rank_settings(steps)
    best = last[Setting(ranking[0]["setting"])]
    at = experiment_at(experiment, Setting(best["setting"]), rungs[best["rung"]])
    budgets = [(rung.images_per_class, rung.num_seeds or 0) for rung in rungs]
    return {
        "fingerprint": sweep,
        "name": experiment.name,
        "objective": experiment.sweep.objective,
        "search": experiment.sweep.search,
        "scheduler": experiment.sweep.scheduler,
        "rungs": [{"images_per_class": count, "num_seeds": seeds} for count, seeds in budgets],
        "factors": _factors(experiment, list(last)),
        "best": {
            "variant": at.generation.variant,
            "guidance_scale": at.generation.guidance_scale,
            **{field: best[field] for field in ("clone", "setting", "label", "score", "images_per_class")},
            **{field: ranking[0][field] for field in ("low", "high")},
        },
        "images_per_class": rungs[-1].images_per_class,
        "clones": [_clone(experiment, setting, step, rungs, steps) for setting, step in last.items()],
        "ranking": ranking,
        "effects": marginal_effects(steps, _factors(experiment, list(last))),
        "proxies": proxy_regrets(steps),
        "cost": sweep_cost(steps, num_settings or len(last), budgets, len(experiment.table)),
        "num_generated": sum(step["num_generated"] for step in steps),
        "seconds": {part: sum(step["seconds"][part] for step in steps) for part in ("generate", "train", "measure")},
        "steps": [step["fingerprint"] for step in steps],
        "rows": [row["fingerprint"] for row in rows],
        "classifiers": classifiers,
        "comparisons": _comparisons(evaluation, best, list(last.values()), baselines, rows),
        "failed": failed,
        "skipped_sets": evaluation.skipped,
        "command": evaluation.command,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _measured(evaluation: Evaluation, classifiers: list[str]) -> tuple[list[Row], list[Row]]:
    """The accuracy rows of some classifiers, and what was not measured, and why."""
    rows, failed = [], []
    for key in (key for classifier in classifiers for key in evaluation.row_fingerprints(classifier)):
        if (row := find_result(evaluation.root, KIND, key)) is not None:
            rows.append(row)
        elif (row := find_result(evaluation.root, FAILED, key)) is not None:
            failed.append(
                {
                    "dataset": row["dataset"],
                    "error": row["error"],
                    "seed": row["seed"],
                    "trained_on": row["trained_on"]["name"],
                }
            )
    return rows, failed


def _factors(experiment: Experiment, settings: list[Setting]) -> dict[str, list[Any]]:
    """The values of each factor that were tried, in the order of the space, or rising where it names a range."""
    found = {}
    for name, choices in experiment.sweep.space.factors().items():
        tried = [setting.values[name] for setting in settings]
        found[name] = (
            [value for value in choices if value in tried] if isinstance(choices, list) else sorted(set(tried))
        )
    return found


def _clone(experiment: Experiment, setting: Setting, last: Row, rungs: list[RungSettings], steps: list[Row]) -> Row:
    """A setting with its clone, as far as it went."""
    at = experiment_at(experiment, setting, rungs[last["rung"]])
    spec, own = clone_spec_of(at), [step for step in steps if Setting(step["setting"]) == setting]
    return {
        "fingerprint": spec.fingerprint,
        "folder": clone_folder(experiment.root, spec).uri,
        "setting": dict(setting.values),
        "label": setting.label,
        "variant": spec.variant_name,
        "guidance_scale": spec.guidance_scale,
        "model": spec.model.name,
        "num_inference_steps": spec.num_inference_steps,
        **{field: last[field] for field in ("images_per_class", "num_images", "num_flagged", "short_classes", "score")},
        "rungs": [{field: step[field] for field in ("images_per_class", "score", "seed_scores")} for step in own],
        "proxies": own[0]["proxies"],
    }


def _comparisons(
    evaluation: Evaluation, best: Row, last: list[Row], baselines: dict[str, list[str]], rows: list[Row]
) -> list[Row]:
    """The best setting against each that reached as many images, and against the baselines: image by image, on each
    set."""
    rivals = [step for step in last if step["rung"] == best["rung"] and step["fingerprint"] != best["fingerprint"]]
    sides = [(step["clone"], step["label"], step["setting"], step["classifiers"]) for step in rivals]
    sides += [(kind, kind, None, group) for kind, group in baselines.items()]
    found = []
    ours = [row for row in rows if row["classifier"] in best["classifiers"]]
    for name, label, setting, classifiers in sides:
        theirs, side = (
            [row for row in rows if row["classifier"] in classifiers],
            {"with": name, "label": label, "setting": setting},
        )
        found += [{**side, **row} for row in compare_classifiers(evaluation, ours, theirs, evaluation.command)]
    return [{field: row[field] for field in COMPARED} for row in found]
