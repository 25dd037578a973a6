"""From accuracy rows to cells: one cell per setting, with the mean over its seeds on each set of images.

Rows whose training data, number of images, generator, steps, backbone or searched fields differ are different cells.
Clones that differ in their seed alone are one setting; their classifiers count by clone where there are several.
Rows do not tell the recipe or the number of epochs: classifiers that differ in these alone share a cell outside a
sweep, and a note says so where two have one seed. A set is one set only when its role, name, probe, metric, shots,
fingerprint, size and version of the row agree.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from raysd.report.text import GUIDANCE, VARIANT, factor_words, guidance_words, value_words
from raysd.statistics.seeds import Score, independent_groups, margins_over_sets, score_over_seeds
from raysd.storage.row_types.measured import AccuracyRow, TrainedOn
from raysd.storage.row_types.sweep import RungResult

KINDS = ("clone", "real", "pretrained", "random")
ROLES = ("validation", "test", "shift", "transfer", "generated")
SELECTED: tuple[Literal["left_out", "from_end", "label_map", "groups", "teacher", "exemplars", "adaptive"], ...] = (
    "left_out",
    "from_end",
    "label_map",
    "groups",
    "teacher",
    "exemplars",
    "adaptive",
)
"""What a row says of the part of a set that was trained on."""
Factors = tuple[tuple[str, str], ...]
"""The searched fields of a setting and their values as JSON, in order of the fields."""


@dataclass(frozen=True)
class Setting:
    """The training data of a classifier, and its backbone."""

    kind: str
    """`clone`, `real`, `pretrained` or `random` (an untrained network)."""
    variant: str | None
    guidance_scale: float | None
    images_per_class: int | None
    backbone: str
    model: str | None
    num_inference_steps: int | None
    name: str
    """What rows call the training data."""
    source: str | None = None
    """Fingerprint of what was trained on."""
    is_mixture: bool = False
    """True when it is several sets."""
    selection: str = ""
    """Which part of the data was used, as JSON; empty for all."""
    factors: Factors = ()
    """The searched fields; empty outside a sweep."""
    words: str = field(default="", compare=False)
    """The sweep's own label."""

    @property
    def marks(self) -> tuple[str, ...]:
        """What is unusual about the training data."""
        marks = ["mixture"] if self.is_mixture else []
        selected = json.loads(self.selection) if self.selection else {}
        if "left_out" in selected:
            marks.append("filtered")
        if teacher := selected.get("teacher"):
            marks.append(f"soft labels {teacher['weight']:g} at temperature {teacher['temperature']:g}")
        if exemplars := selected.get("exemplars"):
            count = exemplars["num_real_images"]
            real = f"{count:,} real images" if count else "none real"
            marks.append(f"guided by {exemplars['per_class']} exemplars a class, {real}")
        return tuple(marks)

    def fields(self, of_images: bool = False) -> dict[str, str]:
        """Return the fields that set it apart besides the images per class, in words; `of_images` leaves out those that
        do not shape images."""
        known: dict[str, Any] = {VARIANT: self.variant, GUIDANCE: self.guidance_scale}
        known |= {
            "generation.model": self.model,
            "generation.num_inference_steps": self.num_inference_steps,
            "training.backbone": self.backbone,
        }
        known |= {"training.images": ", ".join([*([self.name] if self.is_mixture else []), *self.marks]) or "all"}
        known |= {name: json.loads(value) for name, value in self.factors}
        kept = {
            name: value
            for name, value in known.items()
            if value is not None and not (of_images and name.startswith("training."))
        }
        return {factor_words(name): value_words(value) for name, value in kept.items()}

    @property
    def label(self) -> str:
        """The setting in a few words."""
        if self.kind == "clone":
            text = self.words or (
                self.name if self.is_mixture else f"{self.variant}, {guidance_words(self.guidance_scale)}"
            )
            return ", ".join([text, *(() if self.words else self.marks)])
        return (
            "random initialization" if self.kind == "random" else f"{self.kind} ({', '.join([self.name, *self.marks])})"
        )


def telling(fields: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the fields in which settings differ."""
    names = dict.fromkeys(name for own in fields for name in own)
    return [name for name in names if len({own[name] for own in fields if name in own}) > 1]


@dataclass(frozen=True)
class MeasuredSet:
    """A set of real images that classifiers were measured on."""

    role: str
    """`validation`, `test`, `shift` (a further test set) or `transfer`."""
    dataset: str
    probe: str
    """What sets its probe apart from the usual one."""
    shots: int | None
    """Training images per class of a probe; None is all of them."""
    fingerprint: str
    num_images: int
    metric: str
    version: int
    """Of the rows."""


@dataclass(frozen=True)
class Cell:
    """One setting and its scores."""

    setting: Setting
    scores: Mapping[MeasuredSet, Score]
    transfer: Score | None
    """Mean over all transfer sets; None when one of them is missing."""
    rows: tuple[AccuracyRow, ...]

    @property
    def num_seeds(self) -> int:
        """The most seeds that any set of this cell was measured with."""
        return max((score.num_seeds for score in self.scores.values()), default=0)

    @property
    def num_clones(self) -> int:
        """How many clones its classifiers learned from; 0 where it is no clone."""
        return len({_clone(row) for row in self.rows}) if self.setting.kind == "clone" else 0

    @property
    def shares_a_clone(self) -> bool:
        """Whether several classifiers learned from one clone, so that the spread over seeds knows nothing of others."""
        return self.num_clones == 1 and len({row["classifier"] for row in self.rows}) > 1

    def rows_on(self, measured: MeasuredSet) -> list[AccuracyRow]:
        """Return the rows of one set, a row per classifier in the order of their seeds."""
        return [row for row in self.rows if set_of(row) == measured]


@dataclass(frozen=True)
class Cells:
    """All cells of one experiment: clones by variant and guidance, then real, pretrained and random."""

    cells: tuple[Cell, ...]
    sets: tuple[MeasuredSet, ...]
    notes: tuple[str, ...]
    """What was missing or mixed, one sentence each."""

    def of_role(self, role: str) -> list[MeasuredSet]:
        """Return the sets of one role; the one measured most often comes first."""
        return [s for s in self.sets if s.role == role]

    def of_kind(self, kind: str) -> list[Cell]:
        """Return the cells of one kind, in order."""
        return [cell for cell in self.cells if cell.setting.kind == kind]

    @cached_property
    def names(self) -> dict[MeasuredSet, str]:
        """A short name of each set, unlike that of the others."""
        short = {}
        for s in self.sets:
            name = (
                s.role
                if len(self.of_role(s.role)) == 1 and s.role != "transfer"
                else ", ".join([s.dataset, *([s.probe] if s.probe else [])])
            )
            short[s] = name if s.shots is None else f"{name}, {s.shots} shots"
        found = {}
        for s, name in short.items():
            alike = [other for other in self.sets if short[other] == name]
            texts = {
                "role": s.role,
                "fingerprint": s.fingerprint[:6],
                "num_images": f"{s.num_images:,}",
                "metric": s.metric,
                "version": f"row {s.version}",
            }
            telling = [text for part, text in texts.items() if len({getattr(other, part) for other in alike}) > 1]
            found[s] = f"{name} ({', '.join(telling)})" if telling else name
        return found


def role_score(cells: Cells, cell: Cell, role: str) -> float | None:
    """Return a cell's score on the sets of a role, in percent; None when it is missing."""
    if role == "transfer":
        return cell.transfer.mean if cell.transfer else None
    sets = cells.of_role(role)
    if role == "generated":
        means = [cell.scores[each].mean for each in sets if each in cell.scores]
        return sum(means) / len(means) if means and len(means) == len(sets) else None
    score = cell.scores.get(sets[0]) if sets else None
    return score.mean if score else None


def factors_of(setting: Mapping[str, Any]) -> Factors:
    """Return the searched fields of a sweep's setting."""
    return tuple(sorted((name, json.dumps(value, sort_keys=True)) for name, value in setting.items()))


def setting_of(row: AccuracyRow, result: RungResult | None = None, sources: "Sources | None" = None) -> Setting:
    """Return the setting of an accuracy row.

    Args:
        row: of a classifier.
        result: the rung result of the sweep that trained it.
        sources: the clones of all rows, which may differ in their seed alone.
    """
    data = row["trained_on"]
    selected = {name: data[name] for name in SELECTED if data.get(name)}
    source, has_others = sources.find(data) if sources is not None else (data.get("fingerprint"), False)
    if has_others and "left_out" in selected:
        selected["left_out"] = data.get("filters")  # which images these are differs from clone to clone
    clone: TrainedOn = data if data["kind"] == "clone" else {"kind": "", "name": ""}
    return Setting(
        kind=data["kind"],
        variant=clone.get("variant"),
        guidance_scale=clone.get("guidance_scale"),
        images_per_class=result["images_per_class"] if result else data.get("images_per_class"),
        backbone=row["backbone"],
        model=clone.get("model"),
        num_inference_steps=clone.get("num_inference_steps"),
        name=data.get("name") or "",
        source=source,
        is_mixture="parts" in data,
        selection=json.dumps(selected) if selected else "",
        factors=factors_of(result["setting"]) if result else (),
        words=result["label"] if result else "",
    )


class Sources:
    """Which clones of some rows differ in their seed alone.

    Args:
        rows: accuracy rows.
    """

    def __init__(self, rows: Iterable[AccuracyRow]) -> None:
        data = [row["trained_on"] for row in sorted(rows, key=lambda row: (row["seed"], row["date"]))]
        self.at_seed_0 = {each.get("fingerprint"): each["at_seed_0"] for each in data if "at_seed_0" in each}
        self.groups: dict[str | None, list[str | None]] = {}
        for name in dict.fromkeys(each.get("fingerprint") for each in data):
            self.groups.setdefault(self.at_seed_0.get(name, name), []).append(name)

    def find(self, data: TrainedOn) -> tuple[str | None, bool]:
        """Return the fingerprint that stands for a clone of any seed, the one that the first classifier seed learned
        from, and whether there are clones of other seeds."""
        name = data.get("fingerprint")
        group = self.groups[self.at_seed_0.get(name, name)]
        return group[0], len(group) > 1


def set_of(row: AccuracyRow) -> MeasuredSet:
    """Return the set of an accuracy row."""
    named = (row["role"], row["dataset"], row["probe_label"], row["shots"])
    return MeasuredSet(*named, row["dataset_fingerprint"], row["num_images"], row["metric"], row["version"])


def collect_cells(
    rows: Sequence[AccuracyRow], variants: Sequence[str] = (), results: Sequence[RungResult] = ()
) -> Cells:
    """Group rows into cells. Of a classifier's rows on one set only the newest version counts.

    Args:
        rows: accuracy rows.
        variants: the order of the prompt variants; others follow by name.
        results: the rung results of sweeps, which know their classifiers.
    """
    by_classifier = {name: result for result in results for name in result["classifiers"]}
    newest: dict[tuple[str, MeasuredSet], AccuracyRow] = {}
    for row in sorted(rows, key=lambda row: (row["version"], row["date"])):
        newest[row["classifier"], replace(set_of(row), version=0)] = row
    sizes: dict[MeasuredSet, int] = {}
    groups: dict[Setting, list[AccuracyRow]] = {}
    sources = Sources(newest.values())
    for row in newest.values():
        sizes[set_of(row)] = sizes.get(set_of(row), 0) + 1
        groups.setdefault(setting_of(row, by_classifier.get(row["classifier"]), sources), []).append(row)
    sets = sorted(
        sizes,
        key=lambda s: (
            ROLES.index(s.role),
            -sizes[s] if s.role != "transfer" else 0,
            s.dataset,
            s.probe,
            s.shots or 0,
            s.version,
        ),
    )
    ranks = {name: rank for rank, name in enumerate(variants)}
    notes: list[str] = []
    cells = [_cell(setting, groups[setting], sets, notes) for setting in sorted(groups, key=lambda s: _order(s, ranks))]
    return Cells(tuple(cells), tuple(sets), tuple(notes))


def _order(setting: Setting, ranks: Mapping[str, int]) -> tuple[object, ...]:
    variant = setting.variant or ""
    guidance = -1.0 if setting.guidance_scale is None else setting.guidance_scale
    rest = (
        setting.factors,
        setting.images_per_class or 0,
        setting.backbone,
        setting.model or "",
        setting.num_inference_steps or 0,
        setting.name,
    )
    kind = KINDS.index(setting.kind) if setting.kind in KINDS else len(KINDS)
    return (kind, ranks.get(variant, len(ranks)), variant, guidance, *rest, setting.source or "", setting.selection)


def _cell(setting: Setting, rows: list[AccuracyRow], sets: Sequence[MeasuredSet], notes: list[str]) -> Cell:
    rows = sorted(rows, key=lambda row: (row["seed"], row["classifier"]))
    seeds = {row["classifier"]: row["seed"] for row in rows}
    num_told = len({(_clone(row), row["seed"]) for row in rows})
    if num_told < len(seeds):
        notes.append(
            f"{setting.label}: {len(seeds)} classifiers share {num_told} seeds, so they "
            "differ in something that rows do not tell."
        )
    by_set: dict[MeasuredSet, dict[str, AccuracyRow]] = {}
    for row in rows:
        by_set.setdefault(set_of(row), {})[row["classifier"]] = row
    scores = {}
    for measured in (s for s in sets if s in by_set):
        found = list(by_set[measured].values())
        if len(found) < len(seeds):
            notes.append(
                f"{setting.label}: {measured.dataset} ({measured.role}) has {len(found)} of {len(seeds)} seeds."
            )
        scores[measured] = _score(found, [row["value"] for row in found], [_margins(row) for row in found])
    transfer = [by_set.get(measured, {}) for measured in sets if measured.role == "transfer"]
    whole = [
        [own[classifier] for own in transfer]
        for classifier in seeds
        if transfer and all(classifier in own for own in transfer)
    ]
    if 0 < len(whole) < len(seeds):
        notes.append(
            f"{setting.label}: mean transfer leaves out {len(seeds) - len(whole)} of {len(seeds)} seeds that "
            "lack a transfer set."
        )
    return Cell(setting, scores, _mean_transfer(whole) if whole else None, tuple(rows))


def _mean_transfer(rows: Sequence[Sequence[AccuracyRow]]) -> Score:
    """Return the mean over sets, then over seeds; rows [num_seeds][num_sets]."""
    margins = [margins_over_sets([_margins(row) for row in own]) for own in rows]
    return _score([own[0] for own in rows], [statistics.fmean(row["value"] for row in own) for own in rows], margins)


def _score(rows: Sequence[AccuracyRow], values: list[float], margins: list[tuple[float, float]]) -> Score:
    """Return the mean of values of some classifiers; those of one clone count as one where there are several.

    Args:
        rows: of each classifier.
        values: in percent.
        margins: of each value, as of `_margins`.
    """
    groups = independent_groups([_clone(row) for row in rows])
    means = [statistics.fmean(values[place] for place in group) for group in groups]
    below, above = ([statistics.fmean(margins[place][side] for place in group) for group in groups] for side in (0, 1))
    return score_over_seeds(means, list(zip(below, above, strict=True)))


def _clone(row: AccuracyRow) -> str | None:
    return row["trained_on"].get("fingerprint")


def _margins(row: AccuracyRow) -> tuple[float, float]:
    """Return how far a row's 95 % interval reaches below and above its value."""
    return max(0.0, row["value"] - row["low"]), max(0.0, row["high"] - row["value"])
