"""The inputs of a report: the rows of one sweep, or all accuracy rows of a storage root, and the settings that
they are about."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raysd.errors import UserError
from raysd.report.cells import Cells, Setting, collect_cells, factors_of, role_score, telling
from raysd.report.plots.rounds import Adapted, comparable
from raysd.report.text import Objective
from raysd.storage.location import Location
from raysd.storage.row_types.measured import AccuracyRow, ComparisonRow
from raysd.storage.row_types.sweep import RungResult, SweepRow, SweptClone
from raysd.storage.rows import ACCURACY, ADAPTIVE, COMPARISON, ROUND, RUNG_RESULT, SWEEP, read_rows

ALL = "all"
"""Where a report without a sweep goes."""
OBJECTIVES = ("test", "validation", "transfer", "shift", "generated")
"""What a score is where there is no sweep: the first of these roles that was measured."""


@dataclass(frozen=True)
class Rung:
    """The scores of a setting at one number of images per class, in percent."""

    images_per_class: int
    score: float | None
    """By the objective; None when a measurement failed."""
    seed_scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One setting with its clone."""

    setting: Setting
    """At any number of images per class."""
    folder: str
    """Of the clone; empty for a mixture that no sweep knows."""
    rungs: tuple[Rung, ...] = ()
    """Rising."""

    @property
    def label(self) -> str:
        """The setting in a few words."""
        return self.setting.label

    def score_at(self, images_per_class: int) -> float | None:
        """Return the objective with this many images per class; None when the setting was not measured there."""
        return next((rung.score for rung in self.rungs if rung.images_per_class == images_per_class), None)


@dataclass(frozen=True)
class ReportInputs:
    """The inputs of a page."""

    name: str
    sweep: SweepRow | None
    """None when no sweep chose among the settings."""
    objective: Objective
    """What a setting's score is; of a sweep, what chose the best."""
    entries: tuple[Entry, ...]
    cells: Cells
    rows: tuple[AccuracyRow, ...]
    """Accuracy rows."""
    rung_results: tuple[RungResult, ...]
    """Of these settings, one for each setting and rung."""
    borrowed: tuple[str, ...] = ()
    """Kinds of baselines that a sweep has not measured itself, and that are another run's."""
    lacking: tuple[str, ...] = ()
    """Which accuracy rows of the sweep are not there, a note for each setting."""
    compared: tuple[ComparisonRow, ...] = ()
    """What `raysd compare` found."""
    adapted: tuple[Adapted, ...] = ()
    """Adaptive clones that can be shown beside each other."""

    @property
    def is_sweep(self) -> bool:
        """Whether a sweep chose among the settings."""
        return self.sweep is not None

    @property
    def budgets(self) -> list[int]:
        """The numbers of images per class that settings were scored at, rising."""
        return sorted({rung.images_per_class for entry in self.entries for rung in entry.rungs})

    @property
    def shown_budgets(self) -> list[int]:
        """The numbers of images per class that figures show."""
        return widest_and_last(rung.images_per_class for entry in self.entries for rung in entry.rungs)


def widest_and_last(budgets: Iterable[int]) -> list[int]:
    """Return the number of images per class that the most settings share, the largest of several, and the largest of
    all where that is another."""
    sizes = Counter(budgets)
    return list(dict.fromkeys([max(sizes, key=lambda budget: (sizes[budget], budget)), max(sizes)])) if sizes else []


def gather(root: Location, sweep: str | None = None) -> ReportInputs:
    """Read the inputs of a report.

    Args:
        root: the storage root.
        sweep: a sweep's fingerprint; default the newest sweep, or all accuracy rows where there is none.

    Raises:
        UserError: no such sweep, or nothing to report.
    """
    chosen, rows, results = pick_sweep(root, sweep), read_rows(root, ACCURACY), read_rows(root, RUNG_RESULT)
    inputs = gather_sweep(chosen, rows, results) if chosen is not None else gather_all(root, rows, results)
    adapted = comparable(read_rows(root, ADAPTIVE), read_rows(root, ROUND))
    return replace(inputs, compared=tuple(read_rows(root, COMPARISON)), adapted=tuple(adapted))


def pick_sweep(root: Location, sweep: str | None = None) -> SweepRow | None:
    """Return the sweep row with this fingerprint, or the newest; None when there is no sweep and no fingerprint is
    given.

    Raises:
        UserError: no sweep has this fingerprint.
    """
    found = sorted(read_rows(root, SWEEP), key=lambda row: (row["date"], row["fingerprint"]), reverse=True)
    if sweep is None:
        return found[0] if found else None
    for row in found:
        if row["fingerprint"] == sweep:
            return row
    remedy = (
        f"unknown; use one of {', '.join(row['fingerprint'] for row in found[:5])}"
        if found
        else "unknown; this storage holds no sweep"
    )
    raise UserError("report.sweep", sweep, remedy)


def gather_sweep(sweep: SweepRow, rows: Sequence[AccuracyRow], results: Sequence[RungResult]) -> ReportInputs:
    """Return the inputs of a report on one sweep."""
    again = sweep["confirmed"]["rung_results"] if "confirmed" in sweep else []
    taken = {*sweep["rung_results"], *again}
    results = [result for result in results if result["fingerprint"] in taken]
    own = {*sweep["rows"], *(name for result in results for name in result["rows"])}
    chosen_by = _chosen_by(results)
    found = [row for row in rows if row["fingerprint"] in own]
    others = {kind: baseline_rows(kind, found, rows) for kind in ("real", "random")}
    borrowed = tuple(kind for kind, members in others.items() if members)
    shown = [row for row in found if row["classifier"] not in chosen_by]
    chosen = [*shown, *(row for members in others.values() for row in members)]
    variants = list(dict.fromkeys(str(clone["variant"]) for clone in sweep["clones"]))
    cells = collect_cells(chosen, variants, results)
    entries = tuple(_sweep_entry(clone) for clone in sweep["clones"])
    return ReportInputs(
        sweep["name"],
        sweep,
        sweep["objective"],
        entries,
        cells,
        tuple(chosen),
        tuple(results),
        borrowed,
        tuple(_lacking(sweep, results, found)),
    )


def _chosen_by(results: Sequence[RungResult]) -> set[str]:
    """Return the classifiers that chose a finalist among all settings: where fresh ones were measured at the same
    number of images per class, these alone say how good it is."""
    fresh = [
        (result["setting"], result["images_per_class"])
        for result in results
        if result.get("confirmed") and result["score"] is not None
    ]
    return {
        name
        for result in results
        if not result.get("confirmed") and (result["setting"], result["images_per_class"]) in fresh
        for name in result["classifiers"]
    }


def gather_all(root: Location, rows: Sequence[AccuracyRow], results: Sequence[RungResult]) -> ReportInputs:
    """Return the inputs of a report without a finished sweep: each setting that was measured.

    Raises:
        UserError: there are no accuracy rows.
    """
    if not rows:
        raise UserError(
            "storage", root.uri, "holds no results; run `raysd sweep` or `raysd evaluate` with this storage first"
        )
    cells = collect_cells(rows, (), results)
    objective = next(role for role in OBJECTIVES if cells.of_role(role))
    groups: dict[Setting, list[Rung]] = {}
    for cell in cells.of_kind("clone"):
        rungs = groups.setdefault(replace(cell.setting, images_per_class=None), [])
        if cell.setting.images_per_class is not None:
            rungs.append(Rung(cell.setting.images_per_class, role_score(cells, cell, objective)))
    entries = [_row_entry(root, setting, rungs) for setting, rungs in groups.items()]
    return ReportInputs("All results", None, objective, _told_apart(entries), cells, tuple(rows), tuple(results))


def baseline_rows(kind: str, own: Sequence[AccuracyRow], rows: Sequence[AccuracyRow]) -> list[AccuracyRow]:
    """Return the rows of a kind of baseline from other runs, of the same backbone and on the same sets; none where a
    sweep has its own."""
    if any(row["trained_on"]["kind"] == kind for row in own):
        return []
    backbones, sets = {row["backbone"] for row in own}, {_measured(row) for row in own}
    return [
        row
        for row in rows
        if row["trained_on"]["kind"] == kind and row["backbone"] in backbones and _measured(row) in sets
    ]


def _measured(row: AccuracyRow) -> tuple[Any, ...]:
    """Return the values that two rows must share to stand in one column."""
    named = (row["role"], row["dataset_fingerprint"], row["probe_label"], row["shots"])
    return (*named, row["version"], row["metric"], row["num_images"])


def _lacking(sweep: SweepRow, results: Sequence[RungResult], rows: Sequence[AccuracyRow]) -> list[str]:
    """Return a note for each setting whose rung results name accuracy rows or classifiers that do not exist, and one
    for the rest of the sweep."""
    there, measured = {row["fingerprint"] for row in rows}, {row["classifier"] for row in rows}
    notes = []
    for label in dict.fromkeys(result["label"] for result in results):
        own = [result for result in results if result["label"] == label]
        wanted = [name for result in own for name in result["rows"]]
        classifiers = [name for result in own for name in result["classifiers"]]
        absent = (
            [f"{sum(name not in there for name in wanted)} of {len(wanted)} accuracy rows"]
            if not there.issuperset(wanted)
            else []
        )
        absent += (
            [f"all rows of {sum(name not in measured for name in classifiers)} classifiers"]
            if not measured.issuperset(classifiers)
            else []
        )
        if absent:
            notes.append(f"{label}: missing {' and '.join(absent)}.")
    further = set(sweep["rows"]).difference(*(result["rows"] for result in results))
    return [
        *notes,
        *(
            [f"Baselines and further sets: missing {len(further - there)} of {len(further)} accuracy rows."]
            if further - there
            else []
        ),
    ]


def _sweep_entry(clone: SweptClone) -> Entry:
    setting = Setting(
        kind="clone",
        variant=str(clone["variant"]),
        guidance_scale=clone["guidance_scale"],
        images_per_class=None,
        backbone="",
        model=clone["model"],
        num_inference_steps=clone["num_inference_steps"],
        name="",
        source=clone["fingerprint"],
        factors=factors_of(clone["setting"]),
        words=clone["label"],
    )
    rungs = [Rung(rung["images_per_class"], rung["score"], tuple(rung["seed_scores"])) for rung in clone["rungs"]]
    return Entry(setting, clone["folder"], tuple(rungs))


def _row_entry(root: Location, setting: Setting, rungs: Sequence[Rung]) -> Entry:
    """Return the entry of a setting outside sweeps."""
    folder = "" if setting.is_mixture else root.child("clones", str(setting.source)).uri
    return Entry(setting, folder, tuple(sorted(rungs, key=lambda rung: rung.images_per_class)))


def _told_apart(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the entries with distinct labels: the fields that differ are added, then the fingerprint, then a
    number."""
    found: list[Entry] = []
    for entry in entries:
        alike = [other.setting.fields() for other in entries if other.label == entry.label]
        own = entry.setting.fields()
        label = ", ".join([entry.label, *(f"{name} {own[name]}" for name in telling(alike) if name in own)])
        if alike.count(own) > 1:
            label = f"{label} ({str(entry.setting.source)[:6]})"
        number = sum(other.label.startswith(label) for other in found)
        words = f"{label} #{number + 1}" if number else label
        found.append(replace(entry, setting=replace(entry.setting, words=words)))
    return tuple(found)
