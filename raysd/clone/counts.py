"""How many pictures each class of a clone has: one number, or one per class."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raysd.errors import UserError
from raysd.prompts.table import ClassTable


@dataclass(frozen=True)
class ImageCounts:
    """Pictures of each label 0..K-1; make one with `resolve_counts`."""

    num_classes: int
    default: int
    """Of the classes that have no count of their own."""
    own: tuple[tuple[int, int], ...] = ()
    """(label, count) of the others, sorted."""

    @cached_property
    def array(self) -> np.ndarray:
        """int64 [K]."""
        counts = np.full(self.num_classes, self.default, dtype=np.int64)
        for label, count in self.own:
            counts[label] = count
        return counts

    @property
    def total(self) -> int:
        """Pictures of all classes."""
        return int(self.array.sum())

    def covers(self, other: "ImageCounts") -> bool:
        """True when no class has fewer pictures than in `other`."""
        return bool((self.array >= other.array).all())

    def united(self, other: "ImageCounts") -> "ImageCounts":
        """The larger count of each class."""
        return counts_from_array(np.maximum(self.array, other.array))

    def grown(self, to: int, labels: list[int]) -> "ImageCounts":
        """`to` images of each of the labels that has fewer."""
        counts = self.array.copy()
        counts[labels] = np.maximum(counts[labels], to)
        return counts_from_array(counts)

    def to_json(self) -> dict[str, object]:
        """As it stands in a clone's record."""
        return {"default": self.default, "own": [list(pair) for pair in self.own]}

    @staticmethod
    def from_json(num_classes: int, value: Mapping[str, object]) -> "ImageCounts":
        """What `to_json` gave."""
        own = value["own"]
        assert isinstance(own, list)
        return ImageCounts(num_classes, int(str(value["default"])), tuple((int(label), int(count)) for label, count in own))


def counts_from_array(counts: np.ndarray) -> ImageCounts:
    """The counts of int [K]; the most frequent one becomes the default."""
    values, times = np.unique(counts, return_counts=True)
    default = int(values[times.argmax()])
    own = tuple((int(label), int(counts[label])) for label in np.flatnonzero(counts != default))
    return ImageCounts(len(counts), default, own)


def resolve_counts(images_per_class: int, class_counts: Mapping[str, int], table: ClassTable) -> ImageCounts:
    """Counts by class key as counts by label.

    Raises:
        UserError: a key that the class table does not have.
    """
    labels = {key: label for label, key in enumerate(table.keys)}
    if unknown := [key for key in class_counts if key not in labels]:
        shown = ", ".join(table.keys[:5])
        raise UserError("generation.class_counts", unknown[0], f"is no key of the class table; use one of {shown}, ...")
    counts = np.full(len(table), images_per_class, dtype=np.int64)
    for key, count in class_counts.items():
        counts[labels[key]] = count
    return counts_from_array(counts)
