"""The operations of RandAugment and AugMix on uint8 images [B, 3, S, S], by name and strength."""

import math
from collections.abc import Callable

import torch
from torchvision.transforms.v2 import functional as transforms


def _shear_x(images: torch.Tensor, amount: float) -> torch.Tensor:
    return transforms.affine(images, 0.0, [0, 0], 1.0, [math.degrees(math.atan(amount)), 0.0], center=[0, 0])


def _shear_y(images: torch.Tensor, amount: float) -> torch.Tensor:
    return transforms.affine(images, 0.0, [0, 0], 1.0, [0.0, math.degrees(math.atan(amount))], center=[0, 0])


def _translate_x(images: torch.Tensor, share: float) -> torch.Tensor:
    return transforms.affine(images, 0.0, [round(share * images.shape[-1]), 0], 1.0, [0.0, 0.0])


def _translate_y(images: torch.Tensor, share: float) -> torch.Tensor:
    return transforms.affine(images, 0.0, [0, round(share * images.shape[-1])], 1.0, [0.0, 0.0])


OPERATIONS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "identity": lambda images, _: images,
    "autocontrast": lambda images, _: transforms.autocontrast(images),
    "equalize": lambda images, _: transforms.equalize(images),
    "rotate": lambda images, degrees: transforms.rotate(images, degrees),
    "solarize": lambda images, threshold: transforms.solarize(images, threshold),
    "posterize": lambda images, bits: transforms.posterize(images, round(bits)),
    "color": lambda images, change: transforms.adjust_saturation(images, 1 + change),
    "contrast": lambda images, change: transforms.adjust_contrast(images, 1 + change),
    "brightness": lambda images, change: transforms.adjust_brightness(images, 1 + change),
    "sharpness": lambda images, change: transforms.adjust_sharpness(images, 1 + change),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""Strengths: degrees; a threshold of 0 to 255; bits; a change of the factor 1; tangents; shares of the side."""


def apply_in_groups(images: torch.Tensor, choices: torch.Tensor, operations: list[tuple[str, float]]) -> torch.Tensor:
    """Apply the operation `operations[choices[i]]` to image i, to all images of the same choice at once.

    Args:
        images: uint8 [B, 3, S, S].
        choices: int64 [B], on the CPU.
        operations: names and strengths.
    """
    result = images.clone()
    for number in choices.unique().tolist():
        name, strength = operations[number]
        if name != "identity":
            chosen = torch.nonzero(choices == number).flatten().to(images.device)
            result.index_copy_(0, chosen, OPERATIONS[name](images.index_select(0, chosen), strength))
    return result
