"""Random parts of images."""

import math

import torch

from raysd.training.recipe import AreaShares


def boxes_of(draws: torch.Tensor, side: int, area: AreaShares, aspect: float) -> torch.Tensor:
    """Return top, left, height and width of random parts, int64 [N, 4], from numbers in [0, 1), float32 [4, N].

    The area is uniform in `area`, the ratio of the sides log-uniform in [1 / aspect, aspect] (Szegedy et al. 2015); a
    side that would be longer than the image is cut.
    """
    areas = area[0] + (area[1] - area[0]) * draws[0]
    ratios = torch.exp((2 * draws[1] - 1) * math.log(aspect))
    heights = (side * torch.sqrt(areas / ratios)).round().clamp(1, side)
    widths = (side * torch.sqrt(areas * ratios)).round().clamp(1, side)
    tops, lefts = ((side - heights + 1) * draws[2]).floor(), ((side - widths + 1) * draws[3]).floor()
    return torch.stack([tops, lefts, heights, widths], dim=1).long()
