"""What a classifier is, and what its folder says of it. Needs no torch, so that a driver that only names classifiers
starts at once."""

import json
from dataclasses import dataclass
from typing import Any

from raysd.storage.location import Location
from raysd.training.recipe import SMALL_IMAGE

WEIGHTS, HEAD, CONFIG, RECORD = "model.safetensors", "head.safetensors", "config.json", "record.json"
SMALL = "small_"
SMALL_RESNETS = (
    "resnet18",
    "resnet18d",
    "resnet26",
    "resnet26d",
    "resnet34",
    "resnet34d",
    "resnet50",
    "resnet50d",
    "resnet101",
    "wide_resnet50_2",
)
"""Backbones of timm that have a form for small images, under their name behind `small_`; see
`raysd.training.small_stem`."""


@dataclass(frozen=True)
class Architecture:
    """What is needed to build a classifier."""

    backbone: str
    backbone_options: dict[str, Any]
    num_classes: int
    image_size: int
    stem_stride: int
    """Of a ResNet's first convolution on small images."""
    projector: dict[str, Any] | None = None
    """Arguments of `Projector`; None for a linear head."""

    @property
    def timm_name(self) -> str:
        """The backbone's name; a ResNet for small images has a stem of its own."""
        is_small = self.image_size <= SMALL_IMAGE and self.backbone in SMALL_RESNETS
        return SMALL + self.backbone if is_small else self.backbone

    @property
    def timm_options(self) -> dict[str, Any]:
        """Arguments of `timm.create_model`, without the number of classes."""
        return {
            **self.backbone_options,
            **({"stem_stride": self.stem_stride} if self.timm_name != self.backbone else {}),
        }


def load_record(folder: Location) -> dict[str, Any] | None:
    """The record of a finished classifier, or None."""
    return json.loads(folder.read(RECORD)) if folder.exists(RECORD) else None
