"""Random crops and flips on whole batches of uint8 pictures, drawn from a generator that is handed in."""

import torch
from torchvision.transforms.v2 import functional as transforms

from raysd.training.recipe import Recipe

SHIFT_SHARE = 16  # a shift is at most 1/16 of the side
MIN_AREA = 0.25


def augment(images: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Augment uint8 [B, 3, S, S]; the same generator state gives the same result."""
    if recipe.crop == "shift":
        images = _shift(images, generator)
    elif recipe.crop == "random_resized":
        images = _random_resized(images, generator)
    if recipe.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None].to(images.device), images.flip(3), images)
    return images


def _shift(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move each picture by up to 1/16 of its side; edge pixels are repeated."""
    size = images.shape[-1]
    reach = max(1, size // SHIFT_SHARE)
    padded = torch.nn.functional.pad(images.float(), (reach,) * 4, mode="replicate").to(images.dtype)
    offsets = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator)
    steps = torch.arange(size)
    rows, columns = offsets[0][:, None] + steps, offsets[1][:, None] + steps
    batch = torch.arange(len(images))[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _random_resized(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A square crop of 25 to 100 % of the area, resized back."""
    size = images.shape[-1]
    scales = (MIN_AREA + (1 - MIN_AREA) * torch.rand(len(images), generator=generator)).sqrt()
    places = torch.rand((2, len(images)), generator=generator)
    cropped = []
    for image, scale, top, left in zip(images, scales.tolist(), places[0].tolist(), places[1].tolist(), strict=True):
        side = max(1, round(scale * size))
        cropped.append(transforms.resized_crop(image, int(top * (size - side + 1)), int(left * (size - side + 1)), side, side, [size, size]))
    return torch.stack(cropped)
