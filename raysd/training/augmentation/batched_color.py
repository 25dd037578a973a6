"""Color jitter, gray and blur in few calls, for GPUs: what `color.py` does, with its random numbers.

What depends on the random numbers alone is computed by numpy, and sent to the device at once.
"""

import math

import numpy as np
import torch

from raysd.training.augmentation.color import GRAY, YIQ

TO_YIQ = np.array(YIQ, dtype=np.float32)
FROM_YIQ = np.linalg.inv(TO_YIQ)


def jitter_and_gray_batched(
    images: torch.Tensor,
    strengths: tuple[float, float, float, float],
    probability: float,
    grey_probability: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue of a share of the images, and turn a share gray."""
    draws = torch.rand((6, len(images)), generator=generator).numpy()
    is_jittered, is_gray = draws[4] < probability, draws[5] < grey_probability
    chosen = np.flatnonzero(is_jittered | is_gray)
    if not len(chosen):
        return images
    maps = _color_maps(draws[:4, chosen], strengths, is_jittered[chosen], is_gray[chosen])
    given, places = torch.from_numpy(maps).to(images.device), torch.from_numpy(chosen).to(images.device)
    pixels = images.index_select(0, places).flatten(2).float()
    means = torch.cat([pixels.mean(2, keepdim=True), pixels.new_zeros(len(chosen), 1, 1)], dim=1)
    shifts = torch.bmm(given[:, 3:], means)
    changed = torch.baddbmm(shifts, given[:, :3, :3], pixels).clamp_(0, 255).round_().to(images.dtype)
    return images.index_copy(0, places, changed.view(-1, *images.shape[1:]))


def _color_maps(
    draws: np.ndarray, strengths: tuple[float, float, float, float], is_jittered: np.ndarray, is_gray: np.ndarray
) -> np.ndarray:
    """Return a map of RGB for each image, and below it the weights of its mean colors in the shift: [N, 4, 4]."""
    low, high = np.maximum(0, 1 - np.array(strengths[:3])), 1 + np.array(strengths[:3])
    brightness, contrast, saturation = low[:, None] + (high - low)[:, None] * draws[:3]
    angle = 2 * math.pi * strengths[3] * (2 * draws[3] - 1)
    identity, gray = np.eye(3), np.tile(GRAY, (3, 1))
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
    mix = saturation[:, None, None]
    colors = (brightness * contrast)[:, None, None] * (FROM_YIQ @ turn @ TO_YIQ @ (mix * identity + (1 - mix) * gray))
    colors = np.where(is_jittered[:, None, None], colors, identity)
    maps = np.zeros((len(angle), 4, 4), dtype=np.float32)
    maps[:, :3, :3] = np.where(is_gray[:, None, None], gray @ colors, colors)
    maps[:, 3, :3] = np.where(is_jittered, brightness * (1 - contrast), 0)[:, None] * np.array(GRAY)
    return maps


def blur_batched(
    images: torch.Tensor, probability: float, sigma: tuple[float, float], generator: torch.Generator
) -> torch.Tensor:
    """Blur a share of the images with a Gaussian; its width is uniform in the range `sigma`, in pixels."""
    size = images.shape[-1]
    draws = torch.rand((2, len(images)), generator=generator).numpy()
    chosen = np.flatnonzero(draws[0] < probability)
    if not len(chosen):
        return images
    sigmas = sigma[0] + (sigma[1] - sigma[0]) * draws[1, chosen]
    factors = (-1 / np.maximum(2 * sigmas**2, 1e-6)).astype(np.float32).reshape(-1, 1, 1)
    squares = np.square(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float32)
    given, distances, places = (torch.from_numpy(each).to(images.device) for each in (factors, squares, chosen))
    weights = (distances * given).exp_()
    kernels = weights.div_(weights.sum(2, keepdim=True)).unsqueeze_(1)
    blurred = kernels @ images.index_select(0, places).float() @ kernels.transpose(2, 3)
    return images.index_copy(0, places, blurred.round_().clamp_(0, 255).to(images.dtype))
