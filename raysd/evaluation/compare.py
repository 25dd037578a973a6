"""Two settings, measured on the same images: is one better, or is the difference within noise?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysd.evaluation.evaluate import Evaluation, read_correct, row_fingerprint
from raysd.evaluation.tasks import MeasuredOn
from raysd.statistics.images import bootstrap_interval, mcnemar, paired_difference
from raysd.statistics.seeds import independent_groups
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.row_types.measured import AccuracyRow, ComparedSide, ComparisonRow, GenerationCost, MeasuredRow
from raysd.storage.rows import COMPARISON, write_row
from raysd.versions import versions


@dataclass(frozen=True)
class Costs:
    """What it took to generate the images of two settings whose clones differ."""

    a: GenerationCost
    b: GenerationCost
    refused: str | None = None
    """What else differs, as a clause, so that an accuracy cannot be put down to the clones."""

    @property
    def share(self) -> float | None:
        """Device seconds of `a` over those of `b`; None where they are not known, or of other devices."""
        ours, theirs = self.a["seconds"], self.b["seconds"]
        return ours / theirs if ours is not None and theirs and self.a["device"] == self.b["device"] else None

    def refusal(self, num_seeds: int) -> str | None:
        """Return why the cost and a verdict together say nothing; None when they do.

        Args:
            num_seeds: classifiers of the setting that has fewer.
        """
        if self.refused is not None:
            return self.refused
        if num_seeds < 2:
            return "a setting has one seed alone; train both with training.seeds=[0,1,2]"
        if self.a["seconds"] is None or self.b["seconds"] is None:
            return "what generating took was not measured; raysd benchmark measures a rate"
        return None if self.share is not None else "the images were generated on different devices"


def compare_classifiers(
    evaluation: Evaluation,
    a: Sequence[MeasuredRow],
    b: Sequence[MeasuredRow],
    command: str = "",
    num_settings: int = 2,
    costs: Costs | None = None,
) -> list[ComparisonRow]:
    """Write and return a row for each set that both settings were measured on.

    Args:
        evaluation: knows the sets.
        a: the accuracy rows of one setting's classifiers, a classifier for each seed.
        b: those of the other.
        command: the command that repeats it.
        num_settings: among which the two were picked.
        costs: of the clones, where they differ.
    """
    rows = [_compare_on(evaluation.root, measured, a, b, command, num_settings, costs) for measured in evaluation.sets]
    return [row for row in rows if row is not None]


def _compare_on(
    root: Location,
    measured: MeasuredOn,
    a: Sequence[MeasuredRow],
    b: Sequence[MeasuredRow],
    command: str,
    num_settings: int,
    costs: Costs | None,
) -> ComparisonRow | None:
    """Write and return the row of one set; None where one side has no values."""
    ours, theirs = (_rows_on(measured, rows) for rows in (a, b))
    if not ours or not theirs:
        return None
    correct = [_correct(root, rows) for rows in (ours, theirs)]
    comparison = paired_difference(correct[0], correct[1], num_settings)
    names = [[row["fingerprint"] for row in rows] for rows in (ours, theirs)]
    row: ComparisonRow = {
        "fingerprint": fingerprint([*names, *([num_settings] if num_settings > 2 else [])]),
        "role": measured.role,
        "dataset": measured.images.name,
        "shots": measured.shots,
        "probe_label": measured.label,
        "metric": "top1",
        "a": {"top1": 100 * float(correct[0].mean()), "rows": [row["fingerprint"] for row in ours]},
        "b": {"top1": 100 * float(correct[1].mean()), "rows": [row["fingerprint"] for row in theirs]},
        "num_images": correct[0].shape[1],
        "num_settings": num_settings,
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "p_value": comparison.p_value,
        "verdict": comparison.verdict,
        "counts_seeds": comparison.counts_seeds,
        "mcnemar_p_value": mcnemar(*(part[0] for part in correct))
        if all(len(part) == 1 and measured.train is None for part in correct)
        else None,
        "command": command,
        "versions": versions(),
    }
    if costs is not None:
        _add_cost(row["a"], costs.a, correct[0])
        _add_cost(row["b"], costs.b, correct[1])
        row["cost_share"], row["refused"] = costs.share, costs.refusal(min(map(len, correct)))
    if counts := [num for rows in (ours, theirs) if (num := _num_clone_seeds(rows))]:
        row["num_clone_seeds"] = min(counts)
    write_row(root, COMPARISON, row)
    return row


def _add_cost(side: ComparedSide, cost: GenerationCost, correct: np.ndarray) -> None:
    side["low"], side["high"] = bootstrap_interval(correct.mean(axis=0))
    side["generation"] = cost


def _correct(root: Location, rows: Sequence[AccuracyRow]) -> np.ndarray:
    """Return which images are right, [S, N]: of each classifier, or where there are several clones, the mean of the
    classifiers of each."""
    each = np.stack([read_correct(root, row) for row in rows])
    groups = independent_groups([row["trained_on"].get("fingerprint") for row in rows])
    return each if len(groups) == len(each) else np.stack([each[group].mean(axis=0) for group in groups])


def _num_clone_seeds(rows: Sequence[AccuracyRow]) -> int:
    """Return how many clones the classifiers of a setting learned from; 0 where it is none."""
    return len({row["trained_on"].get("fingerprint") for row in rows if row["trained_on"]["kind"] == "clone"})


def _rows_on(measured: MeasuredOn, rows: Sequence[MeasuredRow]) -> list[AccuracyRow]:
    by_key = {row["fingerprint"]: row for row in rows if row["value"] is not None}
    keys = [row_fingerprint(classifier, measured) for classifier in dict.fromkeys(row["classifier"] for row in rows)]
    return [by_key[key] for key in keys if key in by_key]
