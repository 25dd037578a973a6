"""Random crops of a whole batch in a few calls, for GPUs: each call has its price there, and images have none.

A resized crop is two products of matrices, whose rows weight the pixels of the crop: first across, then down, rounded
in between, with the antialiased filters of torch's resizing of uint8 images on CPUs. Values differ from those by the
rounding of its weights, one level of 256 at most, and rarely two.
"""

import numpy as np
import torch

from raysd.training.augmentation.boxes import boxes_of
from raysd.training.recipe import AreaShares, Recipe


def random_resized_batched(
    images: torch.Tensor, recipe: Recipe, area: AreaShares, generator: torch.Generator, size: int, count: int = 1
) -> torch.Tensor:
    """Return `count` random parts of each image, uint8 [count * B, 3, size, size]; crop j of image i is at j * B + i.

    The parts are those of `raysd.training.augmentation.crops` for the same random numbers.
    """
    num, side = len(images), images.shape[-1]
    draws = torch.rand((count, 4, num), generator=generator).transpose(0, 1).flatten(1)
    boxes = boxes_of(draws, side, area, recipe.crop_aspect).numpy()
    down, across = _weights(boxes, side, size, recipe.interpolation, images.device).unflatten(1, (count, num)).unbind(0)
    rows = images.float().reshape(num, 3 * side, side)
    crops = torch.empty((count, num, size, size * 3), device=images.device)
    for crop, left, right in zip(crops, down, across, strict=True):
        narrow = torch.bmm(rows, right.transpose(1, 2)).round_().clamp_(0, 255)
        columns = narrow.view(num, 3, side, size).permute(0, 2, 3, 1).reshape(num, side, size * 3)
        torch.bmm(left, columns, out=crop)
    whole = crops.round_().clamp_(0, 255).to(images.dtype)
    return whole.view(count * num, size, size, 3).permute(0, 3, 1, 2)


def _weights(boxes: np.ndarray, side: int, size: int, interpolation: str, device: torch.device) -> torch.Tensor:
    """Return the weights of rows and columns for those of the resized crops, float32 [2, N, size, side].

    Args:
        boxes: top, left, height and width of the crops, int64 [N, 4].
        side: of the images.
        size: side of the resized crops.
        interpolation: `bicubic` or `bilinear`.
        device: of the weights.
    """
    starts, lengths = boxes[:, :2].T[..., None, None], boxes[:, 2:].T[..., None, None]
    scale = lengths / size
    centers = (scale * (np.arange(size)[:, None] + 0.5) + starts - 0.5).astype(np.float32)
    limits = np.stack([starts, starts + lengths - 1, 1 / np.maximum(scale, 1)]).astype(np.float32)
    center, limit = (torch.from_numpy(array).to(device) for array in (centers, limits))
    first, last, sharpness = limit.unbind(0)
    pixels = torch.arange(side, dtype=torch.float32, device=device)
    distances = (pixels - center).mul_(sharpness).abs_()
    weights = _cubic(distances) if interpolation == "bicubic" else (1 - distances).clamp_(min=0)
    weights *= (pixels >= first) & (pixels <= last)
    return weights.div_(weights.sum(3, keepdim=True))


def _cubic(distances: torch.Tensor) -> torch.Tensor:
    """Return Keys' cubic weights, a = -1/2."""
    far = distances.clamp_(max=2)
    near = (1 - far).clamp_(min=0)
    weights = (far - 2).square_().mul_((1 - far).mul_(0.5))
    return weights.addcmul_(near.square(), near.mul_(-2).add_(1))
