"""Learning rates over a run."""

import math


def cosine_factor(step: int, num_steps: int, warmup_steps: int, floor: float = 0.01) -> float:
    """Factor on the learning rate at `step` of `num_steps`: linear from 0 to 1 in the warm-up, then half a cosine down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
