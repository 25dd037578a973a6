"""The course of a run: the learning rate and the size of the pictures."""

import math

GROWTH = (0.35, 0.85)  # shares of the steps between which pictures grow (Leclerc et al. 2023)
SIZE_MULTIPLES = ((128, 32), (0, 4))  # pixels: from this size on, sizes are multiples of that


def cosine_factor(step: int, num_steps: int, warmup_steps: int, floor: float) -> float:
    """Factor on the learning rate at `step` of `num_steps`: linear from 0 to 1 in the warm-up, then half a cosine down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def size_at(step: int, num_steps: int, image_size: int, smallest_share: float) -> int:
    """Side of the pictures in pixels at a step: from `smallest_share` of `image_size` at first to all of it at last (progressive resizing)."""
    begin, end = GROWTH
    progress = min(1.0, max(0.0, (step / num_steps - begin) / (end - begin)))
    size = image_size * (smallest_share + (1 - smallest_share) * progress)
    multiple = next(multiple for least, multiple in SIZE_MULTIPLES if image_size >= least)
    return min(image_size, max(multiple, round(size / multiple) * multiple))
