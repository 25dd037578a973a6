"""Random crops and flips of uint8 images [B, 3, S, S].

Crops are resized one image at a time, with antialiasing: on CPUs torch's resizing of uint8 images is several times
faster than one call that samples a whole batch. On GPUs it is the other way round, see `batched_crops.py`.
"""

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from raysd.training.augmentation.batched_crops import random_resized_batched
from raysd.training.augmentation.boxes import boxes_of
from raysd.training.recipe import AreaShares, Recipe

SHIFT_SHARE = 16  # a shift is at most 1/16 of the side


def global_crop(
    images: torch.Tensor, recipe: Recipe, generator: torch.Generator, size: int, batched: bool = False
) -> torch.Tensor:
    """Return one view of each image, uint8 [B, 3, size, size]; `batched` resizes the whole batch at once."""
    if recipe.crop == "random_resized":
        resized = random_resized_batched if batched else _random_resized
        return resized(images, recipe, recipe.crop_area, generator, size)
    if recipe.crop == "shift":
        images = _shift(images, generator)
    return images if images.shape[-1] == size else _resize(images, size, recipe)


def local_crops(
    images: torch.Tensor, recipe: Recipe, generator: torch.Generator, size: int, batched: bool = False
) -> torch.Tensor:
    """Return small crops uint8 [L * B, 3, l, l]; crop j of image i is at j * B + i."""
    side = recipe.local_size(size)
    if batched:
        return random_resized_batched(images, recipe, recipe.local_crop_area, generator, side, recipe.local_crops)
    return torch.cat(
        [_random_resized(images, recipe, recipe.local_crop_area, generator, side) for _ in range(recipe.local_crops)]
    )


def flip(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image with a probability."""
    if not probability:
        return images
    chosen = torch.nonzero(torch.rand(len(images), generator=generator) < probability).flatten().to(images.device)
    return images.index_copy(0, chosen, images.index_select(0, chosen).flip(3))


def _resize(images: torch.Tensor, size: int, recipe: Recipe) -> torch.Tensor:
    return transforms.resize(images, [size, size], InterpolationMode(recipe.interpolation), antialias=True)


def _shift(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move each image by up to 1/16 of its side; edge pixels are repeated."""
    size = images.shape[-1]
    reach = max(1, size // SHIFT_SHARE)
    padded = torch.nn.functional.pad(images.float(), (reach,) * 4, mode="replicate").to(images.dtype)
    offsets = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator).to(images.device)
    steps = torch.arange(size, device=images.device)
    rows, columns = offsets[0][:, None] + steps, offsets[1][:, None] + steps
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _random_resized(
    images: torch.Tensor, recipe: Recipe, area: AreaShares, generator: torch.Generator, size: int
) -> torch.Tensor:
    """Crop a random part of each image, and resize it to `size` pixels."""
    side, count = images.shape[-1], len(images)
    draws = torch.rand((4, count), generator=generator)
    boxes = boxes_of(draws, side, area, recipe.crop_aspect).tolist()
    crops = torch.empty(
        (count, 3, size, size), dtype=images.dtype, device=images.device, memory_format=torch.channels_last
    )
    for i, (top, left, height, width) in enumerate(boxes):
        part = images[i : i + 1, :, top : top + height, left : left + width].contiguous(
            memory_format=torch.channels_last
        )
        crops[i : i + 1] = part if height == width == size else _resize(part, size, recipe)
    return crops
