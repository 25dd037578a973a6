"""What an adaptive clone holds after a round: some clones, and how many images of each class.

A part is written into the row of a round as plain JSON: how its settings differ from the experiment's `generation`, and
its counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysd.clone.clone import Clone
from raysd.clone.plan import ImageCounts, counts_from_array
from raysd.clone.settings import GenerationSettings
from raysd.config import Experiment
from raysd.data.images import ImageSet, LeftOut
from raysd.resolve import clone_images, clone_of
from raysd.storage.row_types.adaptive import StoredPart


@dataclass(frozen=True)
class Part:
    """Some images of one clone: the first of each class."""

    changes: dict[str, Any]
    """Settings of `generation` that differ from the experiment's."""
    counts: ImageCounts
    """Images of the clone."""
    left_out: LeftOut | None = None
    """Those of them that were not chosen."""

    @property
    def chosen(self) -> np.ndarray:
        """Images of each label that are trained on, int64 [K]."""
        counts = self.counts.array
        if self.left_out is None:
            return counts
        labels, index = self._places()
        kept = ~self.left_out.contains(labels, index)
        return np.bincount(labels[kept], minlength=len(counts))

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return label and number of each image of the clone."""
        counts = self.counts.array
        index, labels = np.divmod(np.arange(int(counts.max()) * len(counts)), len(counts))
        planned = index < counts[labels]
        return labels[planned], index[planned]

    def full_changes(self, experiment: Experiment) -> dict[str, Any]:
        """Return the changes with the folder of the guiding classifier, which the stored ones only name, so that a
        storage root may be moved."""
        guidance = self.changes.get("entropy_guidance")
        if guidance is None:
            return self.changes
        folder = experiment.root.child("classifiers", guidance["classifier"]).uri
        return {**self.changes, "entropy_guidance": {**guidance, "classifier": folder}}

    def clone(self, experiment: Experiment) -> Clone:
        """Return the clone with these images.

        Raises:
            UserError: a guiding classifier that is gone.
        """
        values = {**experiment.generation.model_dump(), "class_counts": {}, **self.full_changes(experiment)}
        clone = clone_of(experiment, GenerationSettings(**values))
        return clone.with_counts(self.counts)

    def images(self, experiment: Experiment) -> ImageSet:
        """Return the images to train on."""
        clone = self.clone(experiment)
        images, spec, guide = clone_images(clone), clone.spec, clone.spec.entropy_guide
        is_plain = not self.counts.own and self.left_out is None and guide is None
        if is_plain and experiment.adaptive.training == "anew":
            return images
        settings = experiment.adaptive
        if is_plain:  # the images of a first round are those of all ways
            settings = settings.model_copy(update={"way": "uniform"})
        about = {**images.about, "adaptive": settings.identity()}
        if guide is not None:  # each clone seed has a guide of its own
            about["at_seed_0"] = replace(spec, seed=0, entropy_guide=replace(guide, digest="")).fingerprint
        if self.left_out is not None:
            about |= {"num_left_out": len(self.left_out), "images_per_class": round(float(self.chosen.mean()))}
        return replace(images, name=f"{images.name}, {settings.way}", left_out=self.left_out, about=about)

    def to_json(self) -> StoredPart:
        """Return the part as a row holds it."""
        stored: StoredPart = {"changes": self.changes, "counts": self.counts.array.tolist()}
        if self.left_out is not None:
            stored["left_out"] = self.left_out.bits.hex()
        return stored

    @staticmethod
    def from_json(stored: StoredPart) -> "Part":
        """Return the part that `to_json` gave."""
        counts = counts_from_array(np.array(stored["counts"], dtype=np.int64))
        bits = stored.get("left_out")
        left_out = None if bits is None else LeftOut(counts.num_classes, bytes.fromhex(bits))
        return Part(dict(stored["changes"]), counts, left_out)


def total(parts: Sequence[Part]) -> int:
    """Return the images of some parts that are trained on."""
    return sum(int(part.chosen.sum()) for part in parts)
