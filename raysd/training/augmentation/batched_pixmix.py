"""PixMix of a whole batch in a fixed number of calls, for GPUs: what `pixmix.py` does, with its random numbers.

All augmented copies are of the images as they came. So the copies of all rounds are made at once, and then each round
mixes the whole batch; an image that has had its rounds is mixed with the weights 1 and 0.
"""

from dataclasses import dataclass

import numpy as np
import torch

from raysd.training.augmentation.batched_operations import apply_batched
from raysd.training.augmentation.pixmix import HALF, LEAST, aug_mix


@dataclass(frozen=True)
class Copies:
    """Augmented copies of some images."""

    sources: np.ndarray
    """The images, int64 [N]."""
    choices: np.ndarray
    """Number of the operation of each, int64 [N]."""
    operations: list[tuple[str, float]]


@dataclass(frozen=True)
class Round:
    """The partners of all images in one round, and how each is mixed with its own."""

    copies: Copies
    top: int
    left: int
    fractals: np.ndarray
    """The partners from the mixing set, where there is no copy, int64 [B]."""
    values: np.ndarray
    """Whether to add, the weight of the image, and that of its partner: float32 [3, B, 1, 1, 1]."""


def pixmix_batched(
    images: torch.Tensor, mixing: torch.Tensor, rounds: int, beta: float, severity: int, generator: torch.Generator
) -> torch.Tensor:
    """Mix each of the images up to `rounds` times; the arguments are those of `pixmix`."""
    count, size = len(images), images.shape[-1]
    draws = torch.rand(count + 9, generator=generator).numpy()
    is_copy, levels = draws[:count] < HALF, draws[count:]
    first = _copies(np.arange(count), is_copy, levels, severity, generator)
    number = torch.randint(rounds + 1, (count,), generator=generator).numpy()
    plan = [
        _round(np.flatnonzero(number > done), count, (len(mixing), mixing.shape[-1] - size), beta, severity, generator)
        for done in range(int(number.max()))
    ]
    augmented, places = _make(images, [first, *(each.copies for each in plan)])
    doubled = images.index_copy(0, places[0], augmented[0]).float().mul_(2 / 255)
    chosen, values = _sent(plan, images.device)
    for done, each in enumerate(plan):
        cut = mixing[:, :, each.top : each.top + size, each.left : each.left + size]
        partners = cut.index_select(0, chosen[done]).index_copy_(0, places[done + 1], augmented[done + 1])
        doubled = _mixed(doubled, partners.float().mul_(2 / 255), *values[done].unbind(0))
    return doubled.mul_(255 / 2).round_().to(images.dtype)


def _sent(plan: list[Round], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the partners and the values of all rounds on a device, int64 [R, B] and float32 [R, 3, B, 1, 1, 1]."""
    if not plan:
        return torch.empty(0), torch.empty(0)
    fractals, values = np.stack([each.fractals for each in plan]), np.stack([each.values for each in plan])
    return torch.from_numpy(fractals).to(device), torch.from_numpy(values).to(device)


def _mixed(
    image: torch.Tensor, partner: torch.Tensor, is_sum: torch.Tensor, one: torch.Tensor, other: torch.Tensor
) -> torch.Tensor:
    """Return the weighted sum about gray, or the product of powers about gray; all values are doubled."""
    product = (image**one).mul_(partner.clamp(min=LEAST).pow_(other))
    added = image.sub_(1).mul_(one).add_(partner.sub_(1).mul_(other)).add_(1)
    return torch.where(is_sum > 0, added, product).clamp_(0, 2)


def _copies(
    sources: np.ndarray, is_copied: np.ndarray, levels: np.ndarray, severity: int, generator: torch.Generator
) -> Copies:
    """Return copies of some of the images `sources`, by numbers in [0, 1) for the strengths, float32 [9]."""
    operations = aug_mix(levels, severity)
    choices = torch.randint(len(operations), (len(sources),), generator=generator).numpy()
    return Copies(sources[is_copied], choices[is_copied], operations)


def _round(
    active: np.ndarray, count: int, room: tuple[int, int], beta: float, severity: int, generator: torch.Generator
) -> Round:
    """Return a round of the active images of `count`; `room` is the number of fractals, and how far a part may move."""
    num = len(active)
    draws = torch.rand(2 * num + 9, generator=generator).numpy()
    is_own, is_sum = draws[:num] < HALF, draws[num : 2 * num] < HALF
    copies = _copies(active, is_own, draws[2 * num :], severity, generator)
    top, left = torch.randint(room[1] + 1, (2,), generator=generator).tolist()
    fractals = np.zeros(count, dtype=np.int64)
    fractals[active] = torch.randint(room[0], (num,), generator=generator).numpy()
    draws = torch.rand((3, num), generator=generator).numpy()
    high, low = draws[0] ** np.float32(1 / beta), 1 - draws[1] ** np.float32(1 / beta)
    is_plain = draws[2] < HALF
    values = np.array([[1], [1], [0]], dtype=np.float32).repeat(count, axis=1)
    values[:, active] = is_sum, np.where(is_plain, high, 2 - high), np.where(is_plain, low, -low)
    return Round(copies, top, left, fractals, values.reshape(3, count, 1, 1, 1))


def _make(images: torch.Tensor, parts: list[Copies]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the copies of each part, uint8 [N, 3, S, S], and the images that they are copies of, int64 [N]."""
    sizes = [len(part.sources) for part in parts]
    sources = torch.from_numpy(np.concatenate([part.sources for part in parts])).to(images.device)
    offsets = np.cumsum([0, *(len(part.operations) for part in parts)])
    choices = np.concatenate([part.choices + offset for part, offset in zip(parts, offsets, strict=False)])
    operations = [operation for part in parts for operation in part.operations]
    made = apply_batched(images.index_select(0, sources), choices, operations)
    return list(made.split(sizes)), list(sources.split(sizes))
