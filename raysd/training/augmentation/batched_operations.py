"""The operations of RandAugment and AugMix for images that get different ones, in a fixed number of calls, for GPUs.

`operations.py` calls torchvision for each operation and strength. Here the images of a kind of operation are changed
together, whatever their strengths: by a table of values, by a grid of places, by a mixture with gray, or by a filter.
The arithmetic is torchvision's, so values are the same, except where rounding moves a place between two pixels.
"""

import math

import numpy as np
import torch
from torch.nn.functional import conv2d, grid_sample

TABLES = ("autocontrast", "equalize", "solarize", "posterize", "brightness")
PLACES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
GRAYS = ("color", "contrast")
LUMA = (0.2989, 0.587, 0.114)
LEVELS = 256


def apply_batched(images: torch.Tensor, choices: np.ndarray, operations: list[tuple[str, float]]) -> torch.Tensor:
    """Apply the operation `operations[choices[i]]` to image i.

    Args:
        images: uint8 [B, 3, S, S].
        choices: int64 [B].
        operations: names and strengths.
    """
    names, strengths = np.array([name for name, _ in operations]), np.array([strength for _, strength in operations])
    result = images.clone()
    for kind, change in ((TABLES, _by_table), (PLACES, _by_place), (GRAYS, _by_gray), (("sharpness",), _by_filter)):
        chosen = np.flatnonzero(np.isin(names, kind)[choices])
        if len(chosen):
            place = torch.from_numpy(chosen).to(images.device)
            changed = change(images.index_select(0, place), choices[chosen], names, strengths)
            result.index_copy_(0, place, changed)
    return result


def _given(values: np.ndarray, images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(images.device)


def _wide(values: np.ndarray) -> np.ndarray:
    """Return values [B] as [B, 1, 1, 1], numbers as float32."""
    return (values if values.dtype == bool else values.astype(np.float32)).reshape(-1, 1, 1, 1)


def _by_table(images: torch.Tensor, numbers: np.ndarray, names: np.ndarray, strengths: np.ndarray) -> torch.Tensor:
    values = images.flatten(2).long()
    tables = _given(_fixed_tables(names, strengths)[numbers, None], images).expand(-1, 3, -1)
    if np.isin(names[numbers], ("autocontrast", "equalize")).any():
        counts = torch.zeros((len(images), 3, LEVELS), dtype=torch.int32, device=images.device)
        counts.scatter_add_(2, values, counts.new_ones(1).expand_as(values))
        for name, table in (("autocontrast", _contrast_table), ("equalize", _equal_table)):
            is_meant = _given((names == name)[numbers].reshape(-1, 1, 1), images)
            tables = torch.where(is_meant, table(counts, tables), tables)
    return tables.gather(2, values).view_as(images)


def _fixed_tables(names: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Return the new value of each value for the operations that need not look at the image, uint8 [N, 256]."""
    levels = np.arange(LEVELS)
    tables = np.tile(levels, (len(names), 1))
    strength = strengths[:, None]
    tables = np.where((names == "solarize")[:, None] & (levels >= strength), 255 - levels, tables)
    step = 2.0 ** (8 - np.round(strength))
    tables = np.where((names == "posterize")[:, None], levels // step * step, tables)
    brighter = np.clip(levels.astype(np.float32) * (1 + strength).astype(np.float32), 0, 255)
    return np.where((names == "brightness")[:, None], brighter, tables).astype(np.uint8)


def _contrast_table(counts: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """Return the table that spreads the values of each channel over all levels."""
    is_there = (counts > 0).byte()
    lowest = is_there.argmax(2, keepdim=True)
    highest = 255 - is_there.flip(2).argmax(2, keepdim=True)
    levels = torch.arange(LEVELS, device=counts.device)
    spread = (levels - lowest).float().div_((highest - lowest).float().mul_(1 / 255)).clamp_(0, 255).byte()
    return torch.where(highest > lowest, spread, plain)


def _equal_table(counts: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """Return the table after which each level is about as frequent, as Pillow computes it."""
    sums = counts.cumsum(2)
    last = counts.gather(2, sums.argmax(2, keepdim=True))
    step = (sums[..., -1:] - last).div_(255, rounding_mode="floor")
    before = (sums - counts).add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    return torch.where(step > 0, before.byte(), plain)


def _by_place(images: torch.Tensor, numbers: np.ndarray, names: np.ndarray, strengths: np.ndarray) -> torch.Tensor:
    """Return the images rotated, sheared or moved: each pixel is the nearest one at its place, or black."""
    size = images.shape[-1]
    maps = np.stack([_inverse_map(name, strength, size) for name, strength in zip(names, strengths, strict=True)])
    maps = (maps / (0.5 * size)).transpose(0, 2, 1).astype(np.float32)[numbers]
    line = (np.arange(size) - (size - 1) / 2).astype(np.float32)
    places = np.stack([*np.meshgrid(line, line), np.ones((size, size))], axis=2).reshape(1, -1, 3).astype(np.float32)
    grid = torch.bmm(_given(places, images).expand(len(images), -1, -1), _given(maps, images)).view(-1, size, size, 2)
    moved = grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.round_().to(images.dtype)


def _inverse_map(name: str, strength: float, size: int) -> np.ndarray:
    """Return where a pixel comes from, in pixels from the center: float32 [2, 3]. Shears keep the upper left corner."""
    turn: list[list[float]]
    if name == "rotate":
        angle = math.radians(strength)
        turn = [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]
    else:
        step = round(strength * size)
        moves: dict[str, list[list[float]]] = {
            "translate_x": [[1, 0, -step], [0, 1, 0]],
            "translate_y": [[1, 0, 0], [0, 1, -step]],
            "shear_x": [[1, strength, strength * size / 2], [0, 1, 0]],
            "shear_y": [[1, 0, 0], [strength, 1, strength * size / 2]],
        }
        turn = moves.get(name, [[1, 0, 0], [0, 1, 0]])
    return np.array(turn, dtype=np.float32)


def _by_gray(images: torch.Tensor, numbers: np.ndarray, names: np.ndarray, strengths: np.ndarray) -> torch.Tensor:
    """Return the images mixed with their gray ones (color), or with the mean of these (contrast)."""
    red, green, blue = images.unbind(1)
    gray = red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).floor_().unsqueeze_(1)
    is_contrast = _given(_wide((names == "contrast")[numbers]), images)
    gray = torch.where(is_contrast, gray.mean((1, 2, 3), keepdim=True), gray)
    own, other = _given(_wide(1 + strengths[numbers]), images), _given(_wide(-strengths[numbers]), images)
    return images.mul(own).add_(gray.mul(other)).clamp_(0, 255).to(images.dtype)


def _by_filter(images: torch.Tensor, numbers: np.ndarray, names: np.ndarray, strengths: np.ndarray) -> torch.Tensor:
    """Return the images sharpened or smoothed; the pixels at the edges stay."""
    if images.shape[-1] <= 2:
        return images
    kernel = np.full((3, 1, 3, 3), 1 / 13, dtype=np.float32)
    kernel[..., 1, 1] = 5 / 13
    changed = images.float()
    inner = changed[..., 1:-1, 1:-1]
    smooth = conv2d(changed, _given(kernel, images), groups=3).round_()
    inner.add_(smooth.sub_(inner).mul_(_given(_wide(-strengths[numbers]), images)))
    return changed.clamp_(0, 255).to(images.dtype)
