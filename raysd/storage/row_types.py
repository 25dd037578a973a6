"""What each kind of result row holds."""

from typing import Any, Literal, NotRequired, Required

from typing_extensions import TypedDict

from raysd.statistics.verdict import Verdict

Values = dict[str, Any]
"""Searched fields by their dotted names, as `generation.guidance_scale`."""


class TrainedOn(TypedDict, total=False):
    """What a classifier learned from; of a clone more is known than of real images, of a mixture its parts, too."""

    kind: Required[str]
    """`clone`, `real`, `pretrained` or `random` (an untrained network)."""
    name: Required[str]
    fingerprint: str | None
    at_seed_0: str
    """Of the same training data with clone seed 0, where that is another: equal for clones that differ in their seed
    alone."""
    images_per_class: int | None
    variant: str | None
    guidance_scale: float | None
    model: str | None
    num_inference_steps: int | None
    from_end: bool
    label_map: Any
    groups: Any
    left_out: Any
    filters: Any
    soft_labels: str
    """Fingerprint of the scores that hold the soft labels."""
    teacher: dict[str, Any]
    """Of soft labels: `names`, `saw_real` (whether a teacher ever learned from a real image: `no`, `yes` or `unknown`),
    the `weight` in the loss and the `temperature`."""
    num_real_images: int
    """Real images among the exemplars that guided a clone; 0 where these are generated images."""
    exemplars: dict[str, Any]
    """Of a clone that they guided: `source`, `digest`, `per_class`, `num_real_images`, `weight`, the `model` in whose
    features they are compared, and `model_saw_real` (whether that ever learned from a real image: `no`, `yes` or
    `unknown`)."""
    adaptive: Values
    """The way of an adaptive clone with its options, where the images are not those of a plain one."""
    parts: list[dict[str, Any]]


class _Measured(TypedDict):
    """What a row says of a classifier and the set that it was measured on."""

    fingerprint: str
    version: int
    role: str
    """`validation`, `test`, `shift` (a further test set) or `transfer`."""
    dataset: str
    dataset_fingerprint: str
    shots: int | None
    probe_label: str
    """What sets its probe apart from the usual one."""
    metric: str
    classifier: str
    seed: int
    backbone: str
    trained_on: TrainedOn
    num_left_out: int
    class_names: list[str] | None
    command: str
    versions: dict[str, str]
    date: str


class BegunRow(_Measured, closed=True):
    """A row before its measurement."""


class Counted(TypedDict, closed=True):
    """Accuracies of predictions over some classes, in percent."""

    value: float
    top5: float | None
    mean_per_class: float
    calibration_error: float


class MaskedAccuracy(TypedDict):
    """Accuracies over the classes of a set alone."""

    value: float
    top5: float | None
    mean_per_class: float
    calibration_error: float
    low: float
    high: float
    num_classes: int


class Confusion(TypedDict):
    """How often images of a class are taken for another one."""

    label: str
    prediction: str
    count: int


class AccuracyRow(_Measured):
    """A classifier's accuracy on a set of real images, in percent."""

    value: float
    low: float
    """Lower end of the 95 % interval over images."""
    high: float
    num_images: int
    per_class: list[float | None] | None
    predictions: str
    seconds: NotRequired[float]
    mean_per_class: NotRequired[float]
    top5: NotRequired[float | None]
    calibration_error: NotRequired[float]
    confusions: NotRequired[list[Confusion] | None]
    masked: NotRequired[MaskedAccuracy]
    top1: NotRequired[float]
    num_features: NotRequired[int]
    probe: NotRequired[dict[str, Any]]
    probe_seeds: NotRequired[list[dict[str, Any]]]


class FailedRow(_Measured):
    """A measurement that failed, and why."""

    value: None
    low: None
    high: None
    num_images: None
    per_class: None
    error: str


MeasuredRow = AccuracyRow | FailedRow


class GenerationCost(TypedDict):
    """What it took to generate the images of one setting; None where nobody measured it."""

    num_images: int
    device: str | None
    seconds_per_image: float | None
    """Seconds of one device: of a GPU, or of a CPU core."""
    seconds: float | None
    """For all images."""
    source: Literal["clone", "rate"] | None
    """The records of the clones, or a measured rate."""


class ComparedSide(TypedDict):
    """One setting of a comparison."""

    top1: float
    """Mean over its classifiers, in percent."""
    low: NotRequired[float]
    """Lower end of the 95 % interval over images; where the settings learn from different clones, as what follows."""
    high: NotRequired[float]
    rows: list[str]
    generation: NotRequired[GenerationCost]


class ComparisonRow(TypedDict):
    """The difference of two settings on a set of real images, in points."""

    fingerprint: str
    role: str
    dataset: str
    shots: int | None
    probe_label: str
    metric: str
    a: ComparedSide
    b: ComparedSide
    num_images: int
    num_settings: NotRequired[int]
    """Among which the two were picked; the interval, the p-value and the verdict allow for it. Two when absent."""
    difference: float
    low: float
    high: float
    p_value: float
    verdict: Verdict
    counts_seeds: bool
    num_clone_seeds: NotRequired[int]
    """The fewest clones of a side that learned from clones; with 1, the interval holds for this one clone alone."""
    mcnemar_p_value: float | None
    cost_share: NotRequired[float | None]
    """Device seconds of `a` over those of `b`; None where they are not known, or of other devices."""
    refused: NotRequired[str | None]
    """Why the cost and the verdict together say nothing; None when they do."""
    command: str
    versions: dict[str, str]


class AnalysisRow(TypedDict):
    """An analysis of a classifier's features, or of a clone against real images."""

    fingerprint: str
    kind: str
    """`features` or `clone`."""
    datasets: list[str]
    classifier: str
    seed: int
    backbone: str
    trained_on: TrainedOn
    neighbours: NotRequired[int]
    values: dict[str, float | None]
    seconds: float
    command: str
    versions: dict[str, str]


class RateKey(TypedDict):
    """What a rate depends on; its row is named by it."""

    device: str
    pipeline_key: str
    image_size: int
    num_inference_steps: int
    guided_steps: float
    scheduler: str | None
    batch_size: int
    cpus_per_actor: float
    gpus_per_actor: float
    num_actors: int


class RateRow(RateKey):
    """How fast a device generates."""

    fingerprint: str
    model: str
    model_digest: str | None
    guidance_scale: float
    dtype: str
    num_images: int
    images_per_second: float
    device_seconds_per_image: float
    start_seconds: float
    versions: dict[str, str]
    date: str


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


class ConfirmCost(TypedDict):
    """What of a sweep's cost the finalists' fresh measurements took."""

    num_images: int
    num_generated: int
    trainings: int
    generate_seconds: float
    train_seconds: float
    measure_seconds: float


class SweepCost(TypedDict):
    """What a sweep cost."""

    num_images: int
    num_generated: int
    trainings: int
    generate_seconds: float
    train_seconds: float
    measure_seconds: float
    grid: GridCost
    confirm: NotRequired[ConfirmCost]


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


class StoredPart(TypedDict):
    """Some images of one clone in an adaptive one."""

    changes: Values
    """Settings of `generation` that differ from the experiment's."""
    counts: list[int]
    """Images of each label in the clone."""
    left_out: NotRequired[str]
    """A bit for each position of the clone's plan, in hexadecimal: 1 for images that were not chosen."""


class PhaseSeconds(TypedDict):
    """Seconds of the phases of a round, by the clock."""

    generate: float
    train: float
    measure: float


class LoopSeconds(PhaseSeconds):
    """Seconds of the phases of one round or of all, and of everything."""

    total: float


class RoundRow(TypedDict):
    """One round of an adaptive clone."""

    fingerprint: str
    loop: str
    """Hash of everything that shapes the rounds of this clone seed."""
    way: str
    number: int
    """From 0."""
    is_last: bool
    clone_seed: int
    grew: NotRequired[bool]
    """Whether it had more images than the round before; rows of older versions, whose rounds all had, lack it."""
    stalls: NotRequired[int]
    """With `patience`: the rounds in a row up to this one that were no better than the best."""
    step: NotRequired[int]
    """With `patience`: growth steps before its images were there; without, it is the number of the round."""
    num_images: int
    class_names: list[str]
    counts: list[int]
    """Images of each label after the round."""
    parts: list[StoredPart]
    clones: list[str]
    classifiers: list[str]
    decided_on: str
    """Name of the set that decided, and its role in `decided_by`: `validation` or `generated`."""
    decided_by: str
    accuracy: float
    """Of the round's first classifier on that set, in percent."""
    per_class: list[float | None]
    next: list[StoredPart]
    """What there is to be after the next round; nothing after the last."""
    device_seconds: float | None
    """Of one device, that generating all images so far took; None where nobody measured it."""
    seconds: LoopSeconds
    """Of the attempt that ended the round."""
    training: str
    """Hash of the settings of training."""
    versions: dict[str, str]
    date: str


class AdaptiveRow(TypedDict):
    """An adaptive clone, over all clone seeds."""

    fingerprint: str
    name: str
    way: str
    settings: Values
    images_per_class: int
    num_images: int
    """Of all clone seeds."""
    rounds: list[str]
    classifiers: list[str]
    """Of the last rounds."""
    rows: list[str]
    """Their accuracies."""
    seconds: LoopSeconds
    """Of all rounds, and of the last measurements."""
    command: str
    versions: dict[str, str]
    date: str
