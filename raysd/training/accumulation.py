"""A batch that is worked off in parts, whose gradients are added up."""

from itertools import pairwise

import torch


def equal_parts(count: int, most: int) -> list[slice]:
    """The fewest stretches of 0..count-1 that have at most `most` each; their sizes differ by at most one."""
    num_parts = -(-count // most)
    ends = [count * part // num_parts for part in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def part_of(view: torch.Tensor, count: int, part: slice) -> torch.Tensor:
    """The crops of some of the pictures of a view [L * count, 3, S, S] that holds L crops of each."""
    if part.start == 0 and part.stop == count:
        return view
    return view.unflatten(0, (-1, count))[:, part].flatten(0, 1)
