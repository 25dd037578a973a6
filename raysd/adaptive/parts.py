"""What an adaptive clone holds after a round: some clones, and how many images of each class.

A part is written into the row of a round as plain JSON: how its settings differ from the experiment's `generation`, and
its counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysd.clone.clone import Clone
from raysd.clone.plan import ImageCounts, counts_from_array
from raysd.clone.settings import GenerationSettings
from raysd.config import Experiment
from raysd.data.images import ImageSet
from raysd.resolve import clone_images, clone_of
from raysd.storage.row_types import StoredPart


@dataclass(frozen=True)
class Part:
    """Some images of one clone: the first of each class."""

    changes: dict[str, Any]
    """Settings of `generation` that differ from the experiment's."""
    counts: ImageCounts

    def clone(self, experiment: Experiment) -> Clone:
        """Return the clone with these images.

        Raises:
            UserError: a guiding classifier that is gone.
        """
        values = {**experiment.generation.model_dump(), "class_counts": {}, **self.changes}
        clone = clone_of(experiment, GenerationSettings(**values))
        return clone.with_counts(self.counts)

    def images(self, experiment: Experiment) -> ImageSet:
        """Return the images to train on."""
        return clone_images(self.clone(experiment))

    def to_json(self) -> StoredPart:
        """Return the part as a row holds it."""
        return {"changes": self.changes, "counts": self.counts.array.tolist()}

    @staticmethod
    def from_json(stored: StoredPart) -> "Part":
        """Return the part that `to_json` gave."""
        return Part(dict(stored["changes"]), counts_from_array(np.array(stored["counts"], dtype=np.int64)))


def total(parts: Sequence[Part]) -> int:
    """Return the images of some parts."""
    return sum(part.counts.total for part in parts)
