"""What rows of measurements hold: accuracies, failures, comparisons and analyses."""

from typing import Any, Literal, NotRequired, Required

from typing_extensions import TypedDict

from raysd.statistics.verdict import Verdict
from raysd.storage.row_types.sweep import Values


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
