"""Color jitter, gray, blur and solarize of uint8 images [B, 3, S, S]."""

import math

import torch

SOLARIZE_FROM = 128
GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601
YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))  # of RGB, FCC 1953


def jitter_and_gray(
    images: torch.Tensor,
    strengths: tuple[float, float, float, float],
    probability: float,
    grey_probability: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue of a share of the images, and turn a share gray.

    Factors are uniform in [max(0, 1 - strength), 1 + strength], the hue's turn in [-strength, strength] of a circle, as
    in torchvision's ColorJitter. Here they are one affine map of the colors of each image, in the order brightness,
    contrast, saturation, hue: nothing is clamped between them, and the hue turns in the YIQ space, where that is a
    rotation. Contrast is about the image's mean gray.
    """
    count = len(images)
    draws = torch.rand((6, count), generator=generator)
    brightness, contrast, saturation = (
        _factor(draw, strength) for draw, strength in zip(draws[:3], strengths[:3], strict=True)
    )
    angle = 2 * math.pi * strengths[3] * (2 * draws[3] - 1)
    is_jittered, is_gray = draws[4] < probability, draws[5] < grey_probability
    chosen = torch.nonzero(is_jittered | is_gray).flatten()
    if not len(chosen):
        return images
    identity, grey = torch.eye(3).expand(count, 3, 3), torch.tensor(GRAY).expand(3, 3)
    saturate = saturation[:, None, None] * identity + (1 - saturation[:, None, None]) * grey
    colors = (brightness * contrast)[:, None, None] * (_hue_rotation(angle) @ saturate)
    colors = torch.where(is_jittered[:, None, None], colors, identity)
    colors = torch.where(is_gray[:, None, None], grey @ colors, colors)[chosen].to(images.device)
    places = chosen.to(images.device)
    pixels = images.index_select(0, places).flatten(2).float()
    mean_gray = pixels.mean(2) @ torch.tensor(GRAY, device=images.device)
    shift = torch.where(is_jittered, brightness * (1 - contrast), 0.0)[chosen].to(images.device) * mean_gray
    changed = torch.baddbmm(shift[:, None, None], colors, pixels)
    return images.index_copy(
        0, places, changed.clamp_(0, 255).round_().to(images.dtype).view(len(chosen), *images.shape[1:])
    )


def _factor(draw: torch.Tensor, strength: float) -> torch.Tensor:
    low, high = max(0.0, 1 - strength), 1 + strength
    return low + (high - low) * draw


def _hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    """Return rotations of the color plane in the YIQ space by angles [B], as maps of RGB [B, 3, 3]."""
    to_yiq = torch.tensor(YIQ)
    turn = torch.zeros(len(angle), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq


def blur(
    images: torch.Tensor, probability: float, sigma: tuple[float, float], generator: torch.Generator
) -> torch.Tensor:
    """Blur a share of the images with a Gaussian; its width is uniform in the range `sigma`, in pixels."""
    size = images.shape[-1]
    draws = torch.rand((2, len(images)), generator=generator)
    chosen = torch.nonzero(draws[0] < probability).flatten()
    if not len(chosen):
        return images
    sigmas = sigma[0] + (sigma[1] - sigma[0]) * draws[1, chosen]
    distances = torch.arange(1 - size, size, dtype=torch.float32)
    weights = torch.exp(-(distances**2) / (2 * sigmas[:, None] ** 2).clamp(min=1e-6))
    kernels = weights.unfold(1, size, 1).flip(1)  # row i: the weights of pixel i's neighbors
    kernels = (kernels / kernels.sum(2, keepdim=True)).to(images.device)[:, None]
    places = chosen.to(images.device)
    blurred = kernels @ images.index_select(0, places).float() @ kernels.transpose(2, 3)
    return images.index_copy(0, places, blurred.round_().clamp_(0, 255).to(images.dtype))


def solarize(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Invert all values from 128 on, in a share of the images."""
    chosen = torch.nonzero(torch.rand(len(images), generator=generator) < probability).flatten().to(images.device)
    solarized = images.index_select(0, chosen)
    return images.index_copy(0, chosen, torch.where(solarized >= SOLARIZE_FROM, 255 - solarized, solarized))
