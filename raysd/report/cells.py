"""From accuracy rows to cells: one cell per setting, with the mean over its seeds on each set of pictures.

A cell never mixes settings: rows whose training data, number of images, generator, steps, backbone or searched fields differ are different
cells. A set is one set only when its role, name, shots, fingerprint and size agree.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import stdtrit

from raysd.report.words import Objective
from raysd.storage.results import Row

KINDS = ("clone", "real", "pretrained", "random")
ROLES = ("validation", "test", "shift", "transfer")
Factors = tuple[tuple[str, str], ...]
"""The searched fields of a setting and their values as JSON, in order of the fields."""


@dataclass(frozen=True)
class Searched:
    """What a sweep calls a setting, and the fields that it searched."""

    label: str
    factors: Factors
    images_per_class: int | None = None
    """Of the clone, by the sweep; None is what the row says."""


@dataclass(frozen=True)
class Setting:
    """What a classifier was trained on, and its backbone."""

    kind: str
    """`clone`, `real`, `pretrained` or `random` (an untrained network)."""
    variant: str | None
    guidance_scale: float | None
    images_per_class: int | None
    backbone: str
    model: str | None
    num_inference_steps: int | None
    dataset: str
    """Name of the real set or of the pretrained classifier; empty for a clone."""
    source: str | None = None
    """Fingerprint of what was trained on."""
    factors: Factors = ()
    """The searched fields; empty outside a sweep."""
    words: str = field(default="", compare=False)
    """The sweep's own label."""

    @property
    def label(self) -> str:
        """The setting in a few words."""
        if self.kind == "clone":
            guidance = "its own" if self.guidance_scale is None else f"{self.guidance_scale:g}"
            return self.words or f"{self.variant}, guidance {guidance}"
        return "random initialisation" if self.kind == "random" else f"{self.kind} ({self.dataset})"


@dataclass(frozen=True)
class MeasuredSet:
    """A set of real pictures that classifiers were measured on."""

    role: str
    """`validation`, `test`, `shift` (a further test set) or `transfer`."""
    dataset: str
    shots: int | None
    """Training pictures per class of a linear probe; None is all of them."""
    fingerprint: str
    num_images: int


@dataclass(frozen=True)
class Score:
    """A top-1 accuracy in percent, over seeds."""

    mean: float
    sd: float | None
    """Standard deviation over seeds in points; None with one seed."""
    num_seeds: int
    low: float | None
    """Lower end of the 95 % interval of the mean: Student's t over seeds, or Wilson over pictures with one seed."""
    high: float | None


@dataclass(frozen=True)
class Cell:
    """One setting and what it scored."""

    setting: Setting
    scores: Mapping[MeasuredSet, Score]
    transfer: Score | None
    """Mean over all transfer sets; None when one of them is missing."""
    rows: tuple[Row, ...]

    @property
    def num_seeds(self) -> int:
        """The most seeds that any set of this cell was measured with."""
        return max((score.num_seeds for score in self.scores.values()), default=0)


@dataclass(frozen=True)
class Cells:
    """All cells of one experiment: clones by variant and guidance, then real, pretrained and random."""

    cells: tuple[Cell, ...]
    sets: tuple[MeasuredSet, ...]
    notes: tuple[str, ...]
    """What was missing or mixed, one sentence each."""

    def of_role(self, role: str) -> list[MeasuredSet]:
        """The sets of one role; the one measured most often comes first."""
        return [s for s in self.sets if s.role == role]

    def of_kind(self, kind: str) -> list[Cell]:
        """The cells of one kind, in order."""
        return [cell for cell in self.cells if cell.setting.kind == kind]

    @property
    def variants(self) -> list[str]:
        """Prompt variants, in order."""
        return list(dict.fromkeys(str(cell.setting.variant) for cell in self.of_kind("clone")))


def score_over_seeds(values: Sequence[float], single: tuple[float | None, float | None] = (None, None)) -> Score:
    """The mean of percentages [num_seeds], with its 95 % interval; `single` is the interval to use with one seed."""
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Score(mean, None, 1, *single)
    sd = statistics.stdev(values)
    half = float(stdtrit(count - 1, 0.975)) * sd / math.sqrt(count)
    return Score(mean, sd, count, max(0.0, mean - half), min(100.0, mean + half))


def role_score(cells: Cells, cell: Cell, objective: Objective) -> float | None:
    """A cell's score by an objective, in percent; None when a set of it is missing."""
    if not isinstance(objective, str):
        parts = [(weight, role_score(cells, cell, role)) for role, weight in objective.items()]
        whole = sum(weight for weight, _ in parts)
        return None if whole == 0 or any(score is None for _, score in parts) else sum(weight * (score or 0.0) for weight, score in parts) / whole
    if objective == "transfer":
        return cell.transfer.mean if cell.transfer else None
    sets = cells.of_role(objective)
    score = cell.scores.get(sets[0]) if sets else None
    return score.mean if score else None


def setting_of(row: Row, searched: Searched | None = None) -> Setting:
    """The setting of an accuracy row; `searched` is what a sweep knows of its classifier."""
    data = row["trained_on"]
    kind = data["kind"]
    return Setting(
        kind=kind,
        variant=data.get("variant") if kind == "clone" else None,
        guidance_scale=data.get("guidance_scale") if kind == "clone" else None,
        images_per_class=(searched and searched.images_per_class) or data.get("images_per_class") if kind != "random" else None,
        backbone=row["backbone"],
        model=data.get("model") if kind == "clone" else None,
        num_inference_steps=data.get("num_inference_steps") if kind == "clone" else None,
        dataset=data.get("name") or "" if kind in ("real", "pretrained") else "",
        source=data.get("fingerprint"),
        factors=searched.factors if searched else (),
        words=searched.label if searched else "",
    )


def set_of(row: Row) -> MeasuredSet:
    """The set of an accuracy row."""
    label = row.get("probe_label", "")
    return MeasuredSet(row["role"], f"{row['dataset']}, {label}" if label else row["dataset"], row["shots"], row["dataset_fingerprint"], row["num_images"])


def collect_cells(rows: Sequence[Row], variants: Sequence[str] = (), searched: Mapping[str, Searched] | None = None, complete: bool = True) -> Cells:
    """Group rows into cells.

    Args:
        rows: accuracy rows; one whose value is None (a failed measurement) is left out with a note.
        variants: the order of the prompt variants; others follow by name.
        searched: classifier fingerprint -> what a sweep knows of it.
        complete: whether each setting should have been measured on each set; if so, what is missing is noted.
    """
    settings = {row["classifier"]: setting_of(row, (searched or {}).get(row["classifier"])) for row in rows}
    notes = [f"{settings[row['classifier']].label}: no value on {row['dataset']} (row {row['fingerprint']}); left out." for row in rows if row["value"] is None]
    rows = [row for row in rows if row["value"] is not None]
    counts: dict[MeasuredSet, int] = {}
    groups: dict[Setting, list[Row]] = {}
    for row in rows:
        counts[set_of(row)] = counts.get(set_of(row), 0) + 1
        groups.setdefault(settings[row["classifier"]], []).append(row)
    sets = sorted(counts, key=lambda s: (ROLES.index(s.role), -counts[s] if s.role != "transfer" else 0, s.dataset, s.shots or 0))
    ranks = {name: rank for rank, name in enumerate(variants)}
    ordered = sorted(groups, key=lambda s: _order(s, ranks))
    missing: list[str] = []
    cells = [_cell(setting, groups[setting], sets, notes, missing) for setting in ordered]
    return Cells(tuple(cells), tuple(sets), (*notes, *(missing if complete else ())))


def _order(setting: Setting, ranks: Mapping[str, int]) -> tuple[object, ...]:
    variant = setting.variant or ""
    guidance = -1.0 if setting.guidance_scale is None else setting.guidance_scale
    rest = (setting.factors, setting.images_per_class or 0, setting.backbone, setting.model or "", setting.num_inference_steps or 0, setting.dataset)
    kind = KINDS.index(setting.kind) if setting.kind in KINDS else len(KINDS)
    return (kind, ranks.get(variant, len(ranks)), variant, guidance, *rest, setting.source or "")


def _cell(setting: Setting, rows: list[Row], sets: list[MeasuredSet], notes: list[str], missing: list[str]) -> Cell:
    rows = sorted(rows, key=lambda row: (row["seed"], row["classifier"]))
    _note_mixtures(setting, rows, notes)
    num_classifiers = len({row["classifier"] for row in rows})
    scores = {}
    for measured in sets:
        found = [row for row in rows if set_of(row) == measured]
        if not found:
            missing.append(f"{setting.label}: not measured on {measured.dataset} ({measured.role}).")
            continue
        if len(found) < num_classifiers:
            notes.append(f"{setting.label}: {measured.dataset} ({measured.role}) has {len(found)} of {num_classifiers} seeds.")
        scores[measured] = score_over_seeds([row["value"] for row in found], (found[0]["low"], found[0]["high"]))
    return Cell(setting, scores, _mean_transfer(setting, rows, sets, notes, missing), tuple(rows))


def _mean_transfer(setting: Setting, rows: list[Row], sets: list[MeasuredSet], notes: list[str], missing: list[str]) -> Score | None:
    """The mean over all transfer sets of each seed, then over the seeds that have all of them."""
    wanted = {measured for measured in sets if measured.role == "transfer"}
    if not wanted:
        return None
    by_classifier: dict[str, dict[MeasuredSet, float]] = {}
    for row in rows:
        values = by_classifier.setdefault(row["classifier"], {})
        if row["role"] == "transfer":
            values[set_of(row)] = row["value"]
    whole = [statistics.fmean(values.values()) for values in by_classifier.values() if values.keys() == wanted]
    if not whole:
        missing.append(f"{setting.label}: no mean transfer, because a transfer set is missing.")
    elif len(whole) < len(by_classifier):
        notes.append(f"{setting.label}: mean transfer leaves out {len(by_classifier) - len(whole)} of {len(by_classifier)} seeds that lack a transfer set.")
    return score_over_seeds(whole) if whole else None


def _note_mixtures(setting: Setting, rows: list[Row], notes: list[str]) -> None:
    """Say so when classifiers of one cell differ in something that the rows do not name."""
    seeds = {row["classifier"]: row["seed"] for row in rows}
    if len(set(seeds.values())) < len(seeds):
        notes.append(f"{setting.label}: {len(seeds)} classifiers share {len(set(seeds.values()))} seeds, so they differ in another setting.")
