"""The course of a run: the order of the pictures and the learning rate."""

import math

import numpy as np


def epoch_order(num_items: int, epoch: int, seed: int) -> np.ndarray:
    """A permutation of the items that depends on the seed and the epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(num_items)


def cosine_factor(step: int, num_steps: int, warmup_steps: int, floor: float = 0.01) -> float:
    """Factor on the learning rate at `step` of `num_steps`: linear from 0 to 1 in the warm-up, then half a cosine down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
