"""The plan of a clone, which gives each image by arithmetic alone.

Position p of a clone of K classes is image p // K of class p % K. So every prefix has the same number of images of each
class, and a clone grows by appending. Shard s holds the planned images among the positions s * S to (s + 1) * S - 1. A
position does not depend on how many images a class has: where a class has ended, its later positions stay empty, until
the clone grows into them.

Worked example: K = 10 classes, 25 images per class, S = 100. Position 137 is image 13 of class 7, in shard 1. The
shards hold 100, 100 and 50 images; grown to 40 images per class, they hold 100 each, and the first 50 images of shard 2
stay. With 28 images of class 3 alone, shard 2 has 53 images: also positions 253, 263 and 273.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from typing_extensions import TypedDict

from raysd.clone.spec import CloneSpec
from raysd.errors import UserError
from raysd.prompts.table import ClassTable


class StoredCounts(TypedDict):
    """Counts as JSON, for the record of a clone."""

    default: int
    own: list[list[int]]
    """[label, count] of the classes with a count of their own."""


@dataclass(frozen=True)
class ImageCounts:
    """Images of each label 0..K-1; make one with `resolve_counts`."""

    num_classes: int
    default: int
    """Images of each class without a count of its own."""
    own: tuple[tuple[int, int], ...] = ()
    """(label, count) of each class with a count of its own, sorted."""

    @cached_property
    def array(self) -> np.ndarray:
        """Count of each label, int64 [K]."""
        counts = np.full(self.num_classes, self.default, dtype=np.int64)
        for label, count in self.own:
            counts[label] = count
        return counts

    @property
    def total(self) -> int:
        """Images of all classes."""
        return int(self.array.sum())

    def covers(self, other: "ImageCounts") -> bool:
        """Return whether no class has fewer images than in `other`."""
        return bool((self.array >= other.array).all())

    def united(self, other: "ImageCounts") -> "ImageCounts":
        """Return the larger count of each class."""
        return counts_from_array(np.maximum(self.array, other.array))

    def grown(self, to: int, labels: list[int]) -> "ImageCounts":
        """Return the counts with at least `to` images of each of the labels."""
        counts = self.array.copy()
        counts[labels] = np.maximum(counts[labels], to)
        return counts_from_array(counts)

    def to_json(self) -> "StoredCounts":
        """Return the counts as JSON, for the record of a clone."""
        return {"default": self.default, "own": [[label, count] for label, count in self.own]}

    @staticmethod
    def from_json(num_classes: int, value: "StoredCounts") -> "ImageCounts":
        """Return the counts that `to_json` gave."""
        return ImageCounts(num_classes, value["default"], tuple((label, count) for label, count in value["own"]))


def counts_from_array(counts: np.ndarray) -> ImageCounts:
    """Return the counts of int [K]; the most frequent one becomes the default."""
    values, times = np.unique(counts, return_counts=True)
    default = int(values[times.argmax()])
    own = tuple((int(label), int(counts[label])) for label in np.flatnonzero(counts != default))
    return ImageCounts(len(counts), default, own)


def resolve_counts(images_per_class: int, class_counts: Mapping[str, int], table: ClassTable) -> ImageCounts:
    """Return the counts by label for counts by class key.

    Raises:
        UserError: a key that the class table does not have, or no image at all.
    """
    labels = {key: label for label, key in enumerate(table.keys)}
    if unknown := [key for key in class_counts if key not in labels]:
        shown = ", ".join(table.keys[:5])
        raise UserError("generation.class_counts", unknown[0], f"is no key of the class table; use one of {shown}, ...")
    counts = np.full(len(table), images_per_class, dtype=np.int64)
    for key, count in class_counts.items():
        counts[labels[key]] = count
    if not counts.any():
        raise UserError("generation.class_counts", dict(class_counts), "leaves no image; give a class one or more")
    return counts_from_array(counts)


SEED_BITS = 63  # fits a signed 64-bit column
CHUNK_POSITIONS = 2**18  # counted at once


def image_seed(clone_seed: int, key: str, index: int, redraw: int = 0) -> int:
    """Return the seed of one image, 0 to 2^63 - 1: blake2b of the clone's seed, the class's key and the image index.

    A redrawn image has another seed for each redraw from 1 on.
    """
    name = f"{clone_seed}/{key}/{index}" + (f"/{redraw}" if redraw else "")
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


@dataclass(frozen=True)
class PlannedImage:
    """One image to be generated."""

    position: int
    label: int
    key: str
    index: int
    """Image index within the class, from 0."""
    seed: int
    prompt: str
    negative_prompt: str
    redraw: int = 0
    """Number of times that the image was generated before."""


@dataclass(frozen=True)
class Plan:
    """All images of a clone of a given size, in round-major order; nothing is held in memory."""

    spec: CloneSpec
    counts: ImageCounts
    images_per_shard: int

    def __len__(self) -> int:
        return self.counts.total

    @cached_property
    def num_shards(self) -> int:
        """Shards of the clone; some may be empty where classes have unequal counts."""
        counts = self.counts.array
        last = int(((counts - 1) * len(counts) + np.arange(len(counts))).max(where=counts > 0, initial=-1))
        return last // self.images_per_shard + 1

    def positions(self, shard: int) -> np.ndarray:
        """Return the planned positions of shard 0..num_shards-1, int64, rising."""
        if not 0 <= shard < self.num_shards:
            raise IndexError(f"shard {shard} of {self.num_shards}")
        first = shard * self.images_per_shard
        return first + np.flatnonzero(self._is_planned(first, first + self.images_per_shard))

    def is_planned(self, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Return which images are planned, bool [N], by their labels and image indices, int64 [N]."""
        return index < self.counts.array[labels]

    def belong(self, positions: np.ndarray, shard: int) -> bool:
        """Return whether rising positions all belong to one shard, each once; they may be beyond this plan."""
        first = shard * self.images_per_shard
        inside = len(positions) == 0 or first <= positions[0] <= positions[-1] < first + self.images_per_shard
        return bool(inside and (np.diff(positions) > 0).all())

    def shard_sizes(self) -> np.ndarray:
        """Return the number of planned images of each shard, int64 [num_shards]."""
        per_shard = self.images_per_shard
        sizes = np.full(self.num_shards, per_shard, dtype=np.int64)
        counts = self.counts.array
        first = int(counts.min()) * len(counts) // per_shard  # the shards before are full
        step = max(1, CHUNK_POSITIONS // per_shard)
        for start in range(first, self.num_shards, step):
            stop = min(start + step, self.num_shards)
            sizes[start:stop] = self._is_planned(start * per_shard, stop * per_shard).reshape(-1, per_shard).sum(axis=1)
        return sizes

    def _is_planned(self, start: int, stop: int) -> np.ndarray:
        """Return which positions are planned, bool [stop - start]."""
        index, label = np.divmod(np.arange(start, stop), self.counts.num_classes)
        return index < self.counts.array[label]

    def image(self, position: int, redraw: int = 0) -> PlannedImage:
        """Return the image at a position; its prompt is the same in each redraw."""
        index, label = divmod(int(position), len(self.spec.table))
        row = self.spec.table.rows[label]
        number = self.spec.first_image + index
        prompt = self.spec.variant.prompt(row, image_seed(self.spec.seed, row["key"], number))
        seed = image_seed(self.spec.seed, row["key"], number, redraw)
        return PlannedImage(position, label, row["key"], index, seed, prompt, self.spec.variant.negative_prompt, redraw)
