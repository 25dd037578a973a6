"""What a report is made of: the rows of one sweep, or all accuracy rows of a storage root, and the settings that they are about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raysd.errors import UserError
from raysd.report.cells import Cell, Cells, Factors, Searched, collect_cells, role_score
from raysd.report.words import GUIDANCE, VARIANT, Objective
from raysd.storage.location import Location
from raysd.storage.results import Row, read_results

ALL = "all"
"""Where a report without a sweep goes."""


@dataclass(frozen=True)
class Rung:
    """What a setting scored at one number of images per class, in percent."""

    images_per_class: int
    score: float | None
    """By the objective; None when a measurement failed."""
    seed_scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One setting: a clone, and how classifiers were trained on it."""

    setting: Mapping[str, Any]
    """Searched field -> value."""
    label: str
    clone: str
    """The clone's fingerprint."""
    folder: str
    variant: str
    guidance_scale: float | None
    model: str | None = None
    num_inference_steps: int | None = None
    rungs: tuple[Rung, ...] = ()
    """Rising."""
    cells: Mapping[int, Cell] = field(default_factory=dict)
    """What its classifiers scored, by images per class."""

    @property
    def factors(self) -> Factors:
        """The searched fields, as a cell names them."""
        return factors_of(self.setting)

    def score_at(self, images_per_class: int | None) -> float | None:
        """The objective with this many images per class; None when the setting did not get there."""
        return next((rung.score for rung in self.rungs if rung.images_per_class == images_per_class), None)


@dataclass(frozen=True)
class Material:
    """All that a page is made of."""

    name: str
    sweep: Row
    """The sweep's row; empty when there is none."""
    objective: Objective
    """What a setting's score is; of a sweep, what chose the best."""
    entries: tuple[Entry, ...]
    cells: Cells
    rows: tuple[Row, ...]
    """Accuracy rows."""
    trials: tuple[Row, ...]
    """Trial rows of these settings, one for each setting and rung."""

    @property
    def is_sweep(self) -> bool:
        """False when no sweep chose among the settings."""
        return bool(self.sweep)

    @property
    def budgets(self) -> list[int]:
        """The numbers of images per class that settings were scored at, rising."""
        return sorted({rung.images_per_class for entry in self.entries for rung in entry.rungs})

    @property
    def common_budget(self) -> int | None:
        """The largest number of images per class that the most settings share: of a sweep, the last rung that all reached."""
        counts = {budget: sum(any(r.images_per_class == budget for r in entry.rungs) for entry in self.entries) for budget in self.budgets}
        return max(counts, key=lambda budget: (counts[budget], budget), default=None)


def gather(root: Location, sweep: str | None = None) -> Material:
    """Read what a report is made of.

    Args:
        root: the storage root.
        sweep: a sweep's fingerprint; default the newest sweep, or all accuracy rows where there is none.

    Raises:
        UserError: no such sweep, or nothing to report.
    """
    chosen, rows, trials = pick_sweep(root, sweep), read_results(root, "accuracy"), read_results(root, "trial")
    return gather_sweep(chosen, rows, trials) if chosen is not None else gather_all(root, rows, trials)


def pick_sweep(root: Location, sweep: str | None = None) -> Row | None:
    """The sweep row with this fingerprint, or the newest; None when there is no sweep at all and none was asked for.

    Raises:
        UserError: when the one that was asked for is not there.
    """
    found = sorted(read_results(root, "sweep"), key=lambda row: (row["date"], row["fingerprint"]), reverse=True)
    if sweep is None:
        return found[0] if found else None
    for row in found:
        if row["fingerprint"] == sweep:
            return row
    remedy = f"unknown; use one of {', '.join(row['fingerprint'] for row in found[:5])}" if found else "unknown; this storage holds no sweep"
    raise UserError("report.sweep", sweep, remedy)


def gather_sweep(sweep: Row, rows: Sequence[Row], trials: Sequence[Row]) -> Material:
    """What is known of one sweep."""
    entries = [_sweep_entry(clone, sweep) for clone in sweep["clones"]]
    own = {entry.factors for entry in entries}
    trials = [row for row in trials if row.get("sweep", sweep["fingerprint"]) == sweep["fingerprint"] and factors_of(row["setting"]) in own]
    members = {**sweep, "classifiers": [*sweep["classifiers"], *(name for row in trials for name in row.get("classifiers", ()))]}
    if "rows" in sweep:
        members["rows"] = [*sweep["rows"], *(name for row in trials for name in row.get("rows", ()))]
    rows = select_rows(rows, members)
    variants = list(dict.fromkeys(entry.variant for entry in entries))
    cells = collect_cells(rows, variants, _searched(rows, entries, trials), complete=all(len(entry.rungs) < 2 for entry in entries))
    entries = [replace(entry, cells=_own_cells(entry, cells)) for entry in entries]
    return Material(sweep.get("name", "sweep"), sweep, sweep["objective"], tuple(entries), cells, tuple(rows), tuple(trials))


def gather_all(root: Location, rows: Sequence[Row], trials: Sequence[Row]) -> Material:
    """What is known where no sweep ended: each setting that was measured.

    Raises:
        UserError: when there are no accuracy rows.
    """
    if not rows:
        raise UserError("storage", root.uri, "holds no results; run `raysd sweep` or `raysd evaluate` with this storage first")
    known = {
        name: Searched(row.get("label", ""), factors_of(row["setting"]), row.get("images_per_class")) for row in trials for name in row.get("classifiers", ())
    }
    cells = collect_cells(rows, (), known, complete=False)
    if not cells.cells:
        raise UserError("storage", root.uri, "holds no accuracy row with a value; run `raysd evaluate` again, it says why a measurement fails")
    roles = [role for role in ("test", "validation", "transfer") if cells.of_role(role)]
    objective = roles[0] if roles else "test"
    settings = [cell.setting for cell in cells.of_kind("clone")]
    further = [name for name in ("model", "num_inference_steps", "backbone") if len({getattr(setting, name) for setting in settings}) > 1]
    groups: dict[str, list[Cell]] = {}
    for cell in cells.of_kind("clone"):
        groups.setdefault(json.dumps([cell.setting.source, cell.setting.backbone, cell.setting.factors]), []).append(cell)
    entries = [_row_entry(root, members, further, cells, objective) for members in groups.values()]
    return Material("All results", {}, objective, _told_apart(entries), cells, tuple(rows), tuple(trials))


def factors_of(setting: Mapping[str, Any]) -> Factors:
    """The searched fields of a setting, as a cell names them."""
    return tuple(sorted((name, json.dumps(value, sort_keys=True)) for name, value in setting.items()))


def select_rows(rows: Sequence[Row], sweep: Row) -> list[Row]:
    """The accuracy rows of a sweep's classifiers; where these have no `real` or `random` classifier, those of the same backbone and sets."""
    members, own = set(sweep["classifiers"]), set(sweep.get("rows", [row["fingerprint"] for row in rows]))
    chosen = [row for row in rows if row["classifier"] in members and row["fingerprint"] in own]
    backbones = {row["backbone"] for row in chosen}
    sets = {_measured(row) for row in chosen}
    for kind in ("real", "random"):
        if not any(row["trained_on"]["kind"] == kind for row in chosen):
            chosen += [row for row in rows if row["trained_on"]["kind"] == kind and row["backbone"] in backbones and _measured(row) in sets]
    return chosen


def _measured(row: Row) -> tuple[Any, ...]:
    """What two rows must share to stand in one column."""
    return tuple(row.get(name) for name in ("version", "role", "dataset_fingerprint", "shots", "probe_label", "metric", "num_images"))


def _sweep_entry(clone: Row, sweep: Row) -> Entry:
    """A setting of a sweep's row; older rows know variant, guidance and one score."""
    variant, guidance = str(clone["variant"]), clone["guidance_scale"]
    count = clone.get("images_per_class") or sweep.get("images_per_class")
    alone = [{"images_per_class": count, "score": clone.get("score")}] if count is not None else []
    rungs = clone.get("rungs") or alone
    return Entry(
        setting=clone.get("setting") or {VARIANT: variant, GUIDANCE: guidance},
        label=clone.get("label") or f"{variant}, guidance {_guidance(guidance)}",
        clone=clone["fingerprint"],
        folder=clone["folder"],
        variant=variant,
        guidance_scale=guidance,
        model=clone.get("model"),
        num_inference_steps=clone.get("num_inference_steps"),
        rungs=tuple(sorted((Rung(r["images_per_class"], r.get("score"), tuple(r.get("seed_scores") or ())) for r in rungs), key=lambda r: r.images_per_class)),
    )


def _searched(rows: Sequence[Row], entries: Sequence[Entry], trials: Sequence[Row]) -> dict[str, Searched]:
    """Which setting a classifier belongs to: by the trial rows, else by its clone, else by variant and guidance where these name one setting."""
    by_factors = {entry.factors: entry for entry in entries}
    tried = {name: row for row in trials for name in row.get("classifiers", ())}
    found = {}
    for row in rows:
        data = row["trained_on"]
        if data["kind"] != "clone":
            continue
        same = [entry for entry in entries if entry.clone == data.get("fingerprint")]
        same = same or [e for e in entries if (e.variant, e.guidance_scale) == (data.get("variant"), data.get("guidance_scale"))]
        trial = tried.get(row["classifier"])
        entry = by_factors[factors_of(trial["setting"])] if trial else same[0] if len(same) == 1 else None
        if entry is not None:
            found[row["classifier"]] = Searched(entry.label, entry.factors, trial.get("images_per_class") if trial else None)
    return found


def _own_cells(entry: Entry, cells: Cells) -> dict[int, Cell]:
    own = [cell for cell in cells.of_kind("clone") if cell.setting.factors == entry.factors]
    return {cell.setting.images_per_class: cell for cell in own if isinstance(cell.setting.images_per_class, int)}


def _row_entry(root: Location, members: Sequence[Cell], further: Sequence[str], cells: Cells, objective: Objective) -> Entry:
    """A setting that no sweep knows; `members` differ in images per class alone."""
    setting = members[0].setting
    own = {cell.setting.images_per_class: cell for cell in members if isinstance(cell.setting.images_per_class, int)}
    fields = {name: json.loads(value) for name, value in setting.factors}
    known = {VARIANT: setting.variant, GUIDANCE: setting.guidance_scale, **{_FIELDS[name]: getattr(setting, name) for name in further}}
    return Entry(
        setting={**known, **fields},
        label=setting.label,
        clone=setting.source or "",
        folder=root.child("clones", setting.source or "-").uri,
        variant=str(setting.variant),
        guidance_scale=setting.guidance_scale,
        model=setting.model,
        num_inference_steps=setting.num_inference_steps,
        rungs=tuple(Rung(count, role_score(cells, cell, objective), _seed_scores(cell, objective)) for count, cell in sorted(own.items())),
        cells=own,
    )


_FIELDS = {"model": "generation.model", "num_inference_steps": "generation.num_inference_steps", "backbone": "training.backbone"}


def _seed_scores(cell: Cell, objective: Objective) -> tuple[float, ...]:
    """The values of each seed; of a single set alone."""
    rows = [row for row in cell.rows if row["role"] == objective]
    return tuple(row["value"] for row in rows) if len({row["dataset_fingerprint"] for row in rows}) == 1 and objective != "transfer" else ()


def _told_apart(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The same with labels that are unlike: the fields that differ are added, and then the fingerprint."""
    labels = [entry.label for entry in entries]
    found = []
    for entry in entries:
        alike = [other for other in entries if other.label == entry.label]
        fields = [name for name in entry.setting if len({json.dumps(other.setting.get(name)) for other in alike}) > 1]
        label = ", ".join([entry.label, *(f"{name.rpartition('.')[2].replace('_', ' ')} {entry.setting[name]}" for name in fields)])
        if labels.count(entry.label) > 1 and sum(other.setting == entry.setting for other in alike) > 1:
            label = f"{label} ({entry.clone[:6]})"
        found.append(replace(entry, label=label))
    return tuple(found)


def _guidance(guidance: float | None) -> str:
    return "its own" if guidance is None else f"{guidance:g}"
