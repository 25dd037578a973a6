"""A classifier: a timm backbone with a linear head, and its folder on disk (safetensors and JSON)."""

import json
from dataclasses import dataclass
from typing import Any

import timm
import torch
from safetensors.torch import load, save

from raysd.errors import UserError
from raysd.storage.location import Location

WEIGHTS, RECORD = "model.safetensors", "config.json"
SMALL_IMAGE = 64  # pixels; up to this size a ResNet begins with a 3x3 convolution, without pooling
MEAN = STD = 127.5


@dataclass(frozen=True)
class Architecture:
    """What is needed to build a classifier."""

    backbone: str
    backbone_options: dict[str, Any]
    num_classes: int
    image_size: int
    stem_stride: int
    """Of a ResNet's first convolution on small pictures."""


def check_architecture(architecture: Architecture) -> None:
    """Say early that a classifier cannot be built or run, by building it and showing it one empty picture.

    Raises:
        UserError: timm does not know the backbone, or the backbone does not take the options or the image size.
    """
    _check_name(architecture.backbone)
    model, size = build_classifier(architecture).eval(), architecture.image_size
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, size, size))
    except Exception as error:
        shown = {"image_size": size, **architecture.backbone_options}
        raise UserError("training.backbone_options", shown, f"{architecture.backbone} does not run with them ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _check_name(backbone: str) -> None:
    if not timm.is_model(backbone):
        close = timm.list_models(f"*{backbone[:6]}*")[:3]
        hint = f"; close to it: {', '.join(close)}" if close else "; see timm.list_models()"
        raise UserError("training.backbone", backbone, f"timm has no such model{hint}")


def build_classifier(architecture: Architecture) -> torch.nn.Module:
    """A model with random weights: float [B, 3, S, S] to logits [B, K].

    Raises:
        UserError: options that the backbone does not take.
    """
    options = architecture.backbone_options
    try:
        model = timm.create_model(architecture.backbone, num_classes=architecture.num_classes, **options)
    except Exception as error:  # backbones fail in many ways on options that do not fit
        raise UserError("training.backbone_options", options, f"{architecture.backbone} does not take them ({_reason(error)})") from None
    if architecture.image_size <= SMALL_IMAGE and isinstance(model, timm.models.ResNet) and isinstance(model.conv1, torch.nn.Conv2d):
        model.conv1 = torch.nn.Conv2d(3, model.conv1.out_channels, kernel_size=3, stride=architecture.stem_stride, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    return model


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, S, S] to float in [-1, 1], channels last."""
    return ((images.float() - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def save_classifier(folder: Location, model: torch.nn.Module, architecture: Architecture, record: dict[str, Any]) -> None:
    """Write weights, then the record; the record's presence says that the classifier is whole."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    folder.write(WEIGHTS, save(state))
    folder.write(RECORD, json.dumps({"architecture": vars(architecture), **record}, indent=2, sort_keys=True).encode() + b"\n")


def load_record(folder: Location) -> dict[str, Any] | None:
    """The record of a finished classifier, or None."""
    return json.loads(folder.read(RECORD)) if folder.exists(RECORD) else None


def load_classifier(folder: Location) -> tuple[torch.nn.Module, Architecture]:
    """A finished classifier in evaluation mode."""
    architecture = Architecture(**json.loads(folder.read(RECORD))["architecture"])
    model = build_classifier(architecture)
    model.load_state_dict(load(folder.read(WEIGHTS)))
    return model.eval().to(memory_format=torch.channels_last), architecture
