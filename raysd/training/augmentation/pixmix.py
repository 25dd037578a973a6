"""PixMix (Hendrycks et al., CVPR 2022), from its description: images are mixed with augmented copies and with a
mixing set."""

import numpy as np
import torch

from raysd.training.augmentation.operations import apply_in_groups

HALF = 0.5
LEAST = 1e-37  # keeps a power of zero finite
LEVELS = 10


def pixmix(
    images: torch.Tensor, mixing: torch.Tensor, rounds: int, beta: float, severity: int, generator: torch.Generator
) -> torch.Tensor:
    """Mix each of the images up to `rounds` times.

    An image or, as often, an augmented copy of it is mixed 0 to `rounds` times, each time with another augmented copy
    or with an image of the mixing set, by a weighted sum or by a product of powers. Images of a batch that get the same
    operation share its strength.

    Args:
        images: uint8 [B, 3, S, S].
        mixing: uint8 [M, 3, R, R], R at least S; a random part of S pixels is used.
        rounds: most rounds, k.
        beta: of the weights' distribution; a larger one keeps more of the image.
        severity: of the augmented copies, 1 to 10.
        generator: on the CPU.
    """

    def coin(count: int) -> torch.Tensor:
        return torch.rand(count, generator=generator) < HALF

    mixed = _scaled(_augmented(images, coin(len(images)), severity, generator))
    number = torch.randint(rounds + 1, (len(images),), generator=generator)
    for done in range(int(number.max())):
        active = torch.nonzero(number > done).flatten()
        originals = images.index_select(0, active.to(images.device))
        is_own, is_sum = coin(len(active)), coin(len(active))
        partners = _scaled(
            torch.where(
                _wide(is_own, images),
                _augmented(originals, is_own, severity, generator),
                _sampled(originals, mixing, generator),
            )
        )
        one, other = _weights(len(active), beta, generator)
        for mix, part in ((_sum, is_sum), (_product, ~is_sum)):
            chosen = torch.nonzero(part).flatten()
            place, partner = active[chosen].to(images.device), partners.index_select(0, chosen.to(images.device))
            result = mix(
                mixed.index_select(0, place), partner, _wide(one[chosen], images), _wide(other[chosen], images)
            )
            mixed.index_copy_(0, place, result.clamp_(0, 1))
    return (mixed * 255).round_().to(images.dtype)


def _sum(mixed: torch.Tensor, partners: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum about gray."""
    return (one * (2 * mixed - 1) + other * (2 * partners - 1) + 1) / 2


def _product(mixed: torch.Tensor, partners: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the product of powers about gray."""
    return (2 * mixed) ** one * (2 * partners).clamp(min=LEAST) ** other / 2


def _weights(count: int, beta: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights [B] of the image and of its partner: (Beta(b, 1), Beta(1, b)), or as often (1 + Beta(1, b),
    -Beta(1, b))."""
    draws = torch.rand((3, count), generator=generator)
    high, low = draws[0] ** (1 / beta), 1 - draws[1] ** (1 / beta)  # inverse distribution functions
    is_plain = draws[2] < HALF
    return torch.where(is_plain, high, 2 - high), torch.where(is_plain, low, -low)


def _augmented(images: torch.Tensor, chosen: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Return the images, the chosen ones each changed by one operation of AugMix (Hendrycks et al. 2020)."""
    operations = aug_mix(torch.rand(9, generator=generator).numpy(), severity)
    choices = torch.randint(len(operations), (len(images),), generator=generator)
    return apply_in_groups(images, torch.where(chosen, choices, len(operations)), [*operations, ("identity", 0.0)])


def aug_mix(draws: np.ndarray, severity: int) -> list[tuple[str, float]]:
    """Return the 9 operations of AugMix, each with either sign, their strengths from numbers in [0, 1), float32 [9]."""
    levels = 0.1 + (severity - 0.1) * draws
    share = (levels / LEVELS).tolist()
    operations = [
        ("autocontrast", 0.0),
        ("equalize", 0.0),
        ("posterize", 4.0 - int(4 * share[2])),
        ("rotate", 30 * share[3]),
        ("solarize", 256.0 - int(256 * share[4])),
        ("shear_x", 0.3 * share[5]),
        ("shear_y", 0.3 * share[6]),
        ("translate_x", share[7] / 3),
        ("translate_y", share[8] / 3),
    ]
    signed = [(name, sign * strength) for sign in (1, -1) for name, strength in operations]
    signed[len(operations) + 2], signed[len(operations) + 4] = (
        operations[2],
        operations[4],
    )  # bits and thresholds have no sign
    return signed


def _sampled(images: torch.Tensor, mixing: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a random image of the mixing set for each image, cut to its size."""
    size, room = images.shape[-1], mixing.shape[-1] - images.shape[-1]
    top, left = torch.randint(room + 1, (2,), generator=generator).tolist()
    chosen = torch.randint(len(mixing), (len(images),), generator=generator).to(mixing.device)
    return mixing[:, :, top : top + size, left : left + size].index_select(0, chosen)


def _scaled(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def _wide(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return values [B] as [B, 1, 1, 1], on the device of the images."""
    return values.to(images.device)[:, None, None, None]
