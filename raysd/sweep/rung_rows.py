"""The rows of rung results: how they are named, found and scored, and which sets they are measured on."""

import numpy as np

from raysd.config import Experiment
from raysd.evaluation.evaluate import Evaluation
from raysd.storage.fingerprint import fingerprint
from raysd.storage.row_types.measured import MeasuredRow
from raysd.storage.row_types.sweep import RungResult
from raysd.storage.rows import RUNG_RESULT, read_rows
from raysd.sweep.space import Setting


def evaluation_at(evaluation: Evaluation, experiment: Experiment, rung: int, num_rungs: int) -> Evaluation:
    """Return the evaluation that measures the sets of a rung."""
    return evaluation if rung + 1 == num_rungs else evaluation.confined(experiment.sweep.weights)


def is_measured(result: RungResult, evaluation: Evaluation) -> bool:
    """Return whether a rung result has a score and all rows of its classifiers exist."""
    return result["score"] is not None and all(evaluation.is_measured(name) for name in result["classifiers"])


def rung_result_fingerprint(sweep: str, setting: Setting, rung: int) -> str:
    """Return the name of a rung result's row."""
    return fingerprint({"sweep": sweep, "setting": dict(setting.values), "rung": rung})


def seed_scores(
    rows: list[MeasuredRow], classifiers: list[str], evaluation: Evaluation, weights: dict[str, float]
) -> list[float]:
    """Return the objective of each classifier in percent; nothing when a value of any is missing, so that means stay
    comparable.

    Args:
        rows: of the classifiers.
        classifiers: their fingerprints, in the order of their seeds.
        evaluation: knows the sets.
        weights: the weight of each role; within a role all sets count the same.
    """
    scores = []
    for classifier in classifiers:
        own = [row for row in rows if row["classifier"] == classifier]
        score = 0.0
        for role, weight in weights.items():
            values = [row["value"] for row in own if row["role"] == role and row["value"] is not None]
            if not values or len(values) < sum(measured.role == role for measured in evaluation.sets):
                return []
            score += weight * float(np.mean(values))
        scores.append(score)
    return scores


def find_rung_results(experiment: Experiment, sweep: str, fingerprints: set[str] | None = None) -> list[RungResult]:
    """Return the rung results of a search, in the order of their settings and rungs, without those of finalists that
    were measured again; if fingerprints are given, those."""
    rows = [row for row in read_rows(experiment.root, RUNG_RESULT) if row["sweep"] == sweep]
    chosen = [
        row
        for row in rows
        if (not row.get("confirmed") if fingerprints is None else row["fingerprint"] in fingerprints)
    ]
    return sorted(chosen, key=lambda row: (row["number"], row["rung"]))
