"""The plan: what each picture of a clone is, by arithmetic alone.

Position p of a clone of K classes is image p // K of class p % K. So every prefix that ends at a multiple of K has the same number of
pictures of each class, and a clone grows by appending. Shard s is the positions s * S to (s + 1) * S - 1, cut at the clone's end.

Worked example: K = 10 classes, 25 images per class, S = 100. Position 137 is image 13 of class 7, and it stands in shard 1. The shards
hold 100, 100 and 50 pictures; grown to 40 images per class, they hold 100 each, and the first 50 of shard 2 are those drawn before.
"""

import hashlib
from dataclasses import dataclass

from raysd.clone.spec import CloneSpec

SEED_BITS = 63  # fits a signed 64-bit column


def image_seed(clone_seed: int, key: str, index: int) -> int:
    """The seed of one picture, 0 to 2^63 - 1: blake2b of the clone's seed, the class's key and the image index."""
    digest = hashlib.blake2b(f"{clone_seed}/{key}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


@dataclass(frozen=True)
class PlannedImage:
    """One picture to be drawn."""

    position: int
    label: int
    key: str
    index: int
    """Image index within the class, from 0."""
    seed: int
    prompt: str
    negative_prompt: str


@dataclass(frozen=True)
class Plan:
    """All pictures of a clone of a given size, in round-major order; nothing is held in memory."""

    spec: CloneSpec
    images_per_class: int
    images_per_shard: int

    def __len__(self) -> int:
        return self.images_per_class * len(self.spec.table)

    @property
    def num_shards(self) -> int:
        """How many shards the clone has."""
        return -(-len(self) // self.images_per_shard)

    def shard_range(self, shard: int) -> range:
        """The positions of shard 0..num_shards-1."""
        if not 0 <= shard < self.num_shards:
            raise IndexError(f"shard {shard} of {self.num_shards}")
        start = shard * self.images_per_shard
        return range(start, min(start + self.images_per_shard, len(self)))

    def image(self, position: int) -> PlannedImage:
        """The picture at a position; any position from 0, also beyond the end of this plan."""
        index, label = divmod(position, len(self.spec.table))
        row = self.spec.table.rows[label]
        seed = image_seed(self.spec.seed, row["key"], index)
        prompt = self.spec.variant.prompt(row, seed)
        return PlannedImage(position, label, row["key"], index, seed, prompt, self.spec.variant.negative_prompt)
