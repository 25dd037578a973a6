"""What rows of adaptive clones hold."""

from typing import NotRequired

from typing_extensions import TypedDict

from raysd.storage.row_types.sweep import Values


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
