"""What the workers of a training need to know."""

from dataclasses import dataclass
from typing import Any

from raysd.training.architecture import Architecture
from raysd.training.ingest import Ingest
from raysd.training.pictures import PictureSet
from raysd.training.recipe import Recipe


@dataclass(frozen=True)
class LoopConfig:
    """All that the workers need."""

    root: str
    run: str
    seeds: list[int]
    """Those that are to be trained, in this order."""
    fingerprints: dict[int, str]
    architecture: Architecture
    recipe: Recipe
    ingest: Ingest
    record: dict[str, Any]
    num_steps: int
    steps_per_epoch: int
    precision: str
    forward_size: int | None
    compile: bool
    checkpoint_steps: int
    validation: PictureSet | None
    validate_epochs: int | None
    logger: str
    num_threads: int
