"""RandAugment (Cubuk et al. 2020): a few operations per image, all of the same strength."""

import torch

from raysd.training.augmentation.batched_operations import apply_batched
from raysd.training.augmentation.operations import apply_in_groups

BINS = 30
SIGNED = {  # the largest strength; its sign is random
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
    "rotate": 30.0,
    "brightness": 0.9,
    "color": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
}
PLAIN = ("identity", "autocontrast", "equalize")


def strengths(magnitude: int) -> list[tuple[str, float]]:
    """Return the 14 operations at a magnitude of 0 to 30, each twice: with either sign where it has one."""
    share = magnitude / BINS
    unsigned = {"posterize": 8.0 - round(4 * share), "solarize": 255 * (1 - share), **dict.fromkeys(PLAIN, 0.0)}
    pairs = [((name, most * share), (name, -most * share)) for name, most in SIGNED.items()]
    pairs += [((name, strength), (name, strength)) for name, strength in unsigned.items()]
    return [operation for pair in pairs for operation in pair]


def rand_augment(
    images: torch.Tensor, num_operations: int, magnitude: int, generator: torch.Generator, batched: bool = False
) -> torch.Tensor:
    """Apply `num_operations` to each of the uint8 images [B, 3, S, S], each sampled uniformly."""
    operations = strengths(magnitude)
    for _ in range(num_operations):
        choices = torch.randint(len(operations), (len(images),), generator=generator)
        if batched:
            images = apply_batched(images, choices.numpy(), operations)
        else:
            images = apply_in_groups(images, choices, operations)
    return images
