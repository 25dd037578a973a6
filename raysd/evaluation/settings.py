"""Evaluation settings, as they stand in an experiment file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class TransferSet(BaseModel):
    """A set of other classes, on which a linear probe is trained on frozen features."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """A built-in set, a Parquet file, or a folder with one folder per class."""
    shots: Annotated[int, Field(ge=2)] | None = None
    """Training pictures per class; all when empty."""


class EvaluationSettings(BaseModel):
    """What a classifier is measured on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    test_set: str | None = None
    """Real pictures of the same classes: a built-in set, a Parquet file, or a folder with one folder per class key."""
    validation_set: str | None = None
    """Real pictures on which a sweep chooses; the training split of a built-in set. The test set is only reported."""
    validation_images_per_class: Annotated[int, Field(ge=1)] | None = 100
    """The last so many of each class, away from the first ones that a comparison with real pictures trains on; all when empty."""
    transfer_sets: list[TransferSet] = []
