"""What a sweep found, as one result row."""

import time

import numpy as np

from raysd.clone.generate import CloneSummary
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import CloneSpec
from raysd.config import Experiment
from raysd.errors import UserError
from raysd.evaluation.compare import compare_classifiers
from raysd.evaluation.evaluate import FAILED, Evaluation
from raysd.storage.results import Row, find_result
from raysd.sweep.space import sweep_fingerprint
from raysd.versions import versions


def sweep_row(
    experiment: Experiment,
    specs: list[tuple[GenerationSettings, CloneSpec]],
    summaries: list[CloneSummary],
    classifiers: dict[str, list[str]],
    rows: list[Row],
    evaluation: Evaluation,
    command: str,
) -> Row:
    """What the sweep found: the best setting, every setting's score, the comparisons, and what failed or was skipped.

    Raises:
        UserError: no setting was measured on all sets of the objective.
    """
    own = {name: [row for row in rows if row["classifier"] in members] for name, members in classifiers.items()}
    num_values, objective = num_values_of(experiment, evaluation), experiment.sweep.objective
    scores = {spec.fingerprint: score_of(own[spec.fingerprint], objective, num_values) for _, spec in specs}
    failed = _failed(evaluation, classifiers, rows)
    scored = [spec for _, spec in specs if scores[spec.fingerprint] is not None]
    if not scored:
        why = f" ({failed[0]['error']})" if failed else ""
        raise UserError(
            "sweep.objective",
            objective,
            f"no setting was measured on all of its sets{why}; run the same command again",
        )
    best = max(scored, key=lambda spec: scores[spec.fingerprint] or 0.0)
    clones = [
        {
            "fingerprint": spec.fingerprint,
            "folder": summary.folder.uri,
            "variant": spec.variant_name,
            "guidance_scale": spec.guidance_scale,
            "images_per_class": experiment.generation.images_per_class,
            "num_images": summary.num_images,
            "num_flagged": summary.num_flagged,
            "short_classes": summary.short_classes,
            "score": scores[spec.fingerprint],
        }
        for (_, spec), summary in zip(specs, summaries, strict=True)
    ]
    return {
        "fingerprint": sweep_fingerprint(experiment),
        "name": experiment.name,
        "objective": experiment.sweep.objective,
        "best": {"variant": best.variant_name, "guidance_scale": best.guidance_scale, "clone": best.fingerprint},
        "images_per_class": experiment.generation.images_per_class,
        "num_drawn": sum(summary.num_drawn for summary in summaries),
        "rows": [row["fingerprint"] for row in rows],
        "failed": failed,
        "comparisons": _comparisons(evaluation, best.fingerprint, own, command),
        "skipped_sets": evaluation.skipped,
        "classifiers": [fingerprint for group in classifiers.values() for fingerprint in group],
        "clones": clones,
        "command": command,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def num_values_of(experiment: Experiment, evaluation: Evaluation) -> int:
    """How many values make a score: one for each set of the objective and each seed."""
    return sum(measured.role == experiment.sweep.objective for measured in evaluation.sets) * len(experiment.training.seeds)


def score_of(rows: list[Row], objective: str, num_values: int) -> float | None:
    """Mean over sets and seeds of the rows that the objective names, in percent; None when one of them failed, so that means stay comparable."""
    values = [row["value"] for row in rows if row["role"] == objective and row["value"] is not None]
    return float(np.mean(values)) if values and len(values) == num_values else None


def _comparisons(evaluation: Evaluation, best: str, rows: dict[str, list[Row]], command: str) -> list[Row]:
    """The best setting against each other one, picture by picture, on each set."""
    found = []
    for name, theirs in rows.items():
        if name != best:
            found += [{"with": name, **row} for row in compare_classifiers(evaluation, rows[best], theirs, command)]
    kept = ("with", "role", "dataset", "shots", "probe_label", "difference", "low", "high", "p_value", "verdict")
    return [{field: row[field] for field in kept} for row in found]


def _failed(evaluation: Evaluation, classifiers: dict[str, list[str]], rows: list[Row]) -> list[Row]:
    """What was not measured, and why."""
    there = {row["fingerprint"] for row in rows}
    missing = [key for group in classifiers.values() for classifier in group for key in evaluation.row_fingerprints(classifier) if key not in there]
    found = [row for key in missing if (row := find_result(evaluation.root, FAILED, key)) is not None]
    return [{"dataset": row["dataset"], "error": row["error"], "seed": row["seed"], "trained_on": row["trained_on"]["name"]} for row in found]
