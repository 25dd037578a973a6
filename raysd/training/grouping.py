"""Images of one group beside each other in the order of a training, so that a batch holds several of each."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from raysd.training.recipe import Groups

PROMPT = "prompt"  # column of a clone's shards


@dataclass(frozen=True)
class Grouping:
    """How images form groups."""

    by: Groups
    """A group is the images of one class, or those of one class and prompt."""
    block: int
    """Images of a group that follow each other; 1 keeps the plain order."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the files, beside the labels, that say to which group an image belongs."""
        return (PROMPT,) if self.by == "prompt" else ()

    def groups(self, rows: pa.Table, labels: np.ndarray) -> np.ndarray:
        """Return the group of each image, int64 [N].

        Args:
            rows: of the images, with `columns`.
            labels: of the images in the class table, int64 [N].
        """
        if self.by == "class":
            return labels
        return np.array([_number(*pair) for pair in zip(labels.tolist(), rows[PROMPT].to_pylist(), strict=True)], int)

    def arrange(self, order: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return an order of the same items in which those of a group stand in blocks.

        Each group is cut into equal blocks of at least `block` items, in the order of its items; a smaller group is one
        block. A block stands where the item with its smallest number stood, so blocks are as random as the order.

        Args:
            order: the items' numbers, a permutation of 0..N-1.
            groups: group of each item by its number, int64 [N].
        """
        if self.block == 1 or not len(order):
            return order
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        sorted_items = order[np.argsort(groups[order], kind="stable")]
        _, starts, counts = np.unique(groups[sorted_items], return_index=True, return_counts=True)
        blocks = np.maximum(1, counts // self.block)
        inside = np.arange(len(order)) - np.repeat(starts, counts)
        number = np.repeat(np.cumsum(blocks) - blocks, counts) + inside * np.repeat(blocks, counts) // np.repeat(
            counts, counts
        )
        first = np.minimum.reduceat(sorted_items, np.unique(number, return_index=True)[1])
        arranged: np.ndarray = sorted_items[np.argsort(place[first][number], kind="stable")]
        return arranged


@lru_cache(maxsize=2**16)
def _number(label: int, prompt: str) -> int:
    """Return the number of the group of a class and a prompt; two classes may have the same prompt."""
    return int.from_bytes(blake2b(f"{label} {prompt}".encode(), digest_size=8).digest(), "big", signed=True)
