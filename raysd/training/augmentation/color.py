"""Color jitter, grey, blur and solarize of uint8 pictures [B, 3, S, S]."""

import math

import torch

BLUR_SIGMA = (0.1, 2.0)  # pixels of a view of 224 px; less in proportion for smaller ones
BLUR_SIDE = 224
SOLARIZE_FROM = 128
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))  # of RGB, FCC 1953


def jitter_and_grey(
    images: torch.Tensor, strengths: tuple[float, float, float, float], probability: float, grey_probability: float, generator: torch.Generator
) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue of a share of the pictures, and turn a share grey.

    Factors are uniform in [1 - strength, 1 + strength], the hue's turn in [-strength, strength] of a circle, as in torchvision's
    ColorJitter. Here they are one affine map of the colors of each picture, in the order brightness, contrast, saturation, hue: nothing is
    clamped between them, and the hue turns in the YIQ space, where that is a rotation. Contrast is about the picture's mean grey.
    """
    count = len(images)
    draws = torch.rand((6, count), generator=generator)
    brightness, contrast, saturation = (1 + (2 * draw - 1) * min(strength, 1) for draw, strength in zip(draws[:3], strengths[:3], strict=True))
    angle = 2 * math.pi * strengths[3] * (2 * draws[3] - 1)
    is_jittered, is_grey = draws[4] < probability, draws[5] < grey_probability
    chosen = torch.nonzero(is_jittered | is_grey).flatten()
    if not len(chosen):
        return images
    identity, grey = torch.eye(3).expand(count, 3, 3), torch.tensor(GREY).expand(3, 3)
    saturate = saturation[:, None, None] * identity + (1 - saturation[:, None, None]) * grey
    colors = (brightness * contrast)[:, None, None] * (_hue_rotation(angle) @ saturate)
    colors = torch.where(is_jittered[:, None, None], colors, identity)
    colors = torch.where(is_grey[:, None, None], grey @ colors, colors)[chosen].to(images.device)
    pixels = images[chosen.to(images.device)].flatten(2).float()
    mean_grey = (torch.tensor(GREY, device=images.device)[None, :, None] * pixels).sum(1).mean(1)
    shift = torch.where(is_jittered, brightness * (1 - contrast), 0.0)[chosen].to(images.device) * mean_grey
    changed = torch.baddbmm(shift[:, None, None], colors, pixels)
    result = images.clone()
    result[chosen.to(images.device)] = changed.clamp_(0, 255).round_().to(images.dtype).view(len(chosen), *images.shape[1:])
    return result


def _hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    """Rotations of the color plane in the YIQ space by angles [B], as maps of RGB [B, 3, 3]."""
    to_yiq = torch.tensor(YIQ)
    turn = torch.zeros(len(angle), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq


def blur(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Blur a share of the pictures with a Gaussian; its width is uniform in 0.1 to 2 px of a view of 224 px."""
    size = images.shape[-1]
    draws = torch.rand((2, len(images)), generator=generator)
    chosen = torch.nonzero(draws[0] < probability).flatten()
    if not len(chosen):
        return images
    sigmas = (BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * draws[1, chosen]) * min(1.0, size / BLUR_SIDE)
    places = torch.arange(size, dtype=torch.float32)
    kernels = torch.exp(-((places[:, None] - places) ** 2) / (2 * sigmas[:, None, None] ** 2).clamp(min=1e-6))
    kernels = (kernels / kernels.sum(2, keepdim=True)).to(images.device)[:, None]  # row i: the weights of pixel i's neighbours
    chosen = chosen.to(images.device)
    result = images.clone()
    result[chosen] = (kernels @ images[chosen].float() @ kernels.transpose(2, 3)).round_().clamp_(0, 255).to(images.dtype)
    return result


def solarize(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Invert all values from 128 on, in a share of the pictures."""
    chosen = (torch.rand(len(images), generator=generator) < probability).to(images.device)
    return torch.where(chosen[:, None, None, None] & (images >= SOLARIZE_FROM), 255 - images, images)
