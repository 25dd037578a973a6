"""The shape of a classifier, and the record in its folder; without torch, which takes seconds to import."""

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
"""Backbones of timm that have a form for small images, `small_<name>`; see `raysd.classifier.small_stem`."""


@dataclass(frozen=True)
class Architecture:
    """Values that are needed to build a classifier."""

    backbone: str
    backbone_options: dict[str, Any]
    num_classes: int
    image_size: int
    stem_stride: int
    """Stride of a ResNet's first convolution on small images."""
    projector: dict[str, Any] | None = None
    """Arguments of `Projector`; None for a linear head."""

    @property
    def timm_name(self) -> str:
        """The backbone's name in timm; that of its small form on small images."""
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
    """Return the record of a finished classifier, or None."""
    return json.loads(folder.read(RECORD)) if folder.exists(RECORD) else None
