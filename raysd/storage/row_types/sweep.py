"""What rows of sweeps hold."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from raysd.statistics.verdict import Verdict

Values = dict[str, Any]
"""Searched fields by their dotted names, as `generation.guidance_scale`."""


class PartSeconds(TypedDict):
    """Device seconds of each part of the work."""

    generate: float
    train: float
    measure: float


class _RungResult(TypedDict):
    fingerprint: str
    sweep: str
    number: int
    """When the setting was first tried."""
    setting: Values
    label: str
    clone: str
    """With several clone seeds, that of the first."""
    clones: NotRequired[list[str]]
    """Of each clone seed, where there are several; numbers of images that are there are those of all."""
    rung: int
    images_per_class: int
    seeds: list[int]
    num_planned: int
    """Images of the plan of each clone."""
    proxies: dict[str, float | None]
    command: str
    versions: dict[str, str]
    date: str
    seed_scores: list[float]
    classifiers: list[str]
    rows: list[str]
    num_images: int
    """Images of the clone that are there."""
    num_flagged: int
    short_classes: dict[str, int]
    num_generated: int
    """Images that were generated for it, which other rung results may share."""
    seconds: PartSeconds
    error: NotRequired[str]
    is_unexplained: NotRequired[bool]
    """True where no setting explains the error: an exception that was raised twice, or a process that died again and
    again. The next start of the sweep tries it again."""
    confirmed: NotRequired[bool]
    """True of a finalist's fresh measurement, which is no part of the search."""


class RungResult(_RungResult):
    """What a sweep measured of a setting at one budget."""

    score: float | None
    """By the objective, in percent; None when something failed."""


class ScoredResult(_RungResult):
    """A rung result with a score."""

    score: float


class RungBudget(TypedDict):
    """One budget of a sweep."""

    images_per_class: int
    num_seeds: int


class BestSetting(TypedDict):
    """The setting that a sweep chose."""

    variant: str | None
    guidance_scale: float | None
    clone: str
    setting: Values
    label: str
    score: float
    images_per_class: int
    low: float | None
    high: float | None
    expected: NotRequired[float]
    """Of the score, when the setting is measured again: without the luck of the highest of many."""
    search_score: NotRequired[float]
    """What the search scored, where fresh seeds confirmed the setting; `score`, `low` and `high` are theirs then."""


class RungScore(TypedDict):
    """What a setting scored at one budget, in percent."""

    images_per_class: int
    score: float | None
    seed_scores: list[float]


class SweptClone(TypedDict):
    """A setting of a sweep with its clone, as far as it went."""

    fingerprint: str
    """With several clone seeds, that of the first."""
    clones: NotRequired[list[str]]
    """As of its rung result."""
    folder: str
    setting: Values
    label: str
    variant: str | None
    guidance_scale: float | None
    model: str
    num_inference_steps: int
    images_per_class: int
    num_images: int
    num_flagged: int
    short_classes: dict[str, int]
    score: float | None
    rungs: list[RungScore]
    proxies: dict[str, float | None]


class RankedSetting(TypedDict):
    """A setting's place among the others; scores are in percent, differences to the best one in points."""

    rank: int
    label: str
    setting: Values
    clone: str
    images_per_class: int
    num_seeds: int
    num_clone_seeds: NotRequired[int]
    """With several, intervals are over clones; with 1, they are for this one clone seed."""
    score: float
    low: float | None
    high: float | None
    compared_at: int
    """Images per class."""
    difference: float
    difference_low: float | None
    difference_high: float | None
    verdict: Literal["best", "worse", "within noise", "unknown"]


class ConfirmedSetting(RankedSetting):
    """A finalist's place by its confirmed scores alone."""

    search_score: float
    """Which chose it among all settings."""
    search_images_per_class: int


class Confirmation(TypedDict):
    """The finalists of a sweep, measured again with fresh seeds."""

    images_per_class: int
    seeds: list[int]
    clone_seeds: list[int]
    ranking: list[ConfirmedSetting]
    rung_results: list[str]
    """Fingerprints."""


class EffectValue(TypedDict):
    """What one value of a factor does, in percent and points."""

    value: Any
    mean: float
    difference: float | None
    low: float | None
    high: float | None
    verdict: Verdict | None
    """None where nothing is known of the noise."""
    num_settings: int


class Effect(TypedDict):
    """What a searched field does to the score."""

    factor: str
    images_per_class: int
    spread: float
    values: list[EffectValue]


class ProxyRegret(TypedDict):
    """What choosing by a proxy alone would have lost."""

    proxy: str
    better: str
    images_per_class: int
    pick: str
    pick_score: float
    best_score: float
    regret: float
    spearman: float | None
    num_settings: int


class GridCost(TypedDict):
    """What all settings at the last rung would cost."""

    settings: int
    num_images: int
    trainings: int
    generate_seconds: float | None
    train_seconds: float | None
    measure_seconds: float | None


class WorkCost(TypedDict):
    """Images, trainings and device seconds of some rungs."""

    num_images: int
    num_generated: int
    trainings: int
    generate_seconds: float
    train_seconds: float
    measure_seconds: float


class SweepCost(WorkCost):
    """What a sweep cost."""

    grid: GridCost
    confirm: NotRequired[WorkCost]
    """What of it the finalists' fresh measurements took."""


class SweepSeconds(PartSeconds):
    """Device seconds of each part of a sweep."""

    total: NotRequired[float]
    """Wall time of the last run."""


class FailedMeasurement(TypedDict):
    """What failed in a sweep, and why; of a setting that failed as a whole, `seed` is None."""

    dataset: str
    error: str
    seed: int | None
    trained_on: str
    is_unexplained: NotRequired[bool]
    """As of the rung result."""


_Rival = TypedDict("_Rival", {"with": str})  # the key is a keyword of Python


class SweptComparison(_Rival):
    """The best setting of a sweep against another one, or against a baseline, on one set, in points."""

    label: str
    setting: Values | None
    role: str
    dataset: str
    shots: int | None
    probe_label: str
    difference: float
    low: float
    high: float
    p_value: float
    verdict: Verdict


class SweepRow(TypedDict):
    """What a sweep found."""

    fingerprint: str
    name: str
    objective: str | dict[Any, float]
    search: str
    scheduler: str
    rungs: list[RungBudget]
    factors: dict[str, list[Any]]
    best: BestSetting
    images_per_class: int
    clones: list[SweptClone]
    ranking: list[RankedSetting]
    """By the search."""
    confirmed: NotRequired[Confirmation]
    effects: list[Effect]
    proxies: list[ProxyRegret]
    cost: SweepCost
    num_generated: int
    seconds: SweepSeconds
    rung_results: list[str]
    """Fingerprints, as in `rows` and `classifiers`."""
    rows: list[str]
    classifiers: list[str]
    comparisons: list[SweptComparison]
    failed: list[FailedMeasurement]
    skipped_sets: dict[str, str]
    attempt: NotRequired[int]
    """How often the search was begun, this time included."""
    command: str
    versions: dict[str, str]
    date: str
