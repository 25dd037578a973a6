"""The images of each batch, by arithmetic: a function of the seed, the step and the worker, and of nothing else.

The images of a training are in one or several pools. Each pool is an endless sequence: its images in a random order,
then again in another one, and so on. A step takes the next few items of each pool, as many as the pool's share of the
batch. So a run may start at any step, and proportions are exact.

A large pool is not shuffled as a whole, because that would read a file for each image. Its pieces (row groups) are
shuffled, each worker takes an equal stretch of them, and images are shuffled again within windows. A window is some
whole pieces, so that each is read once: as many as hold the pool's share of 2,048 images.

Worked example: 1,000 images, 2 workers, batches of 100. In each epoch worker 0 has the first 500 of the shuffled
pieces' images, worker 1 the others, also where that cuts a piece in two. Step 7 takes the items 350 to 399 of each
worker's sequence: all of epoch 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

WINDOW = 2048  # images


@lru_cache(maxsize=16)  # each step needs the order of its epoch
def epoch_order(num_items: int, epoch: int, seed: int, pool: int = 0) -> np.ndarray:
    """Return a permutation of the items, int64 [num_items], that depends on the seed, the epoch and the pool alone."""
    order = np.random.default_rng([seed, epoch, pool] if pool else [seed, epoch]).permutation(num_items)
    order.setflags(write=False)
    return order


def mixed_order(count: int, num_pools: int, seed: int, step: int, rank: int) -> np.ndarray | slice:
    """Return the order of a worker's batch that mixes the images of several pools, also for the pairs of Mixup."""
    return slice(None) if num_pools == 1 else np.random.default_rng([seed, step, rank, num_pools]).permutation(count)


def items_before(step: int, batch_size: int, shares: tuple[float, ...]) -> list[int]:
    """Return how many items of each pool the steps before `step` take; they add up to `step * batch_size`.

    Args:
        step: the step, from 0.
        batch_size: images per step.
        shares: the share of each pool in a batch; they add up to 1.
    """
    ends = [round(end * step * batch_size) for end in np.cumsum(shares)[:-1]] + [step * batch_size]
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def shuffled_items(
    first: int, last: int, num_items: int, seed: int, pool: int, order: Callable[[int], np.ndarray] | None = None
) -> np.ndarray:
    """Return the images at the items `first` to `last - 1` of a pool's endless sequence, int64.

    `order` returns the order of an epoch, where it is another one than `epoch_order`.
    """
    parts = []
    for epoch in range(first // num_items, -(-last // num_items)):
        begin = epoch * num_items
        items = epoch_order(num_items, epoch, seed, pool) if order is None else order(epoch)
        parts.append(items[max(0, first - begin) : last - begin])
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Slice:
    """A stretch of the images of one piece."""

    piece: int
    start: int
    stop: int


@dataclass(frozen=True)
class WindowPart:
    """Some items of one window: its slices, the order of all their images, and which stretch of it is wanted."""

    first: int
    """The first of the items."""
    slices: tuple[Slice, ...]
    order: np.ndarray
    wanted: slice

    @property
    def chosen(self) -> np.ndarray:
        """The wanted images, in order."""
        return self.order[self.wanted]

    @property
    def last(self) -> int:
        """The item after the last one."""
        return self.first + len(self.chosen)


@dataclass(frozen=True)
class WorkerSequence:
    """One worker's endless sequence of a large pool.

    Args:
        sizes: images of each piece, int64.
        pool: the pool's number.
        rank: the worker's rank.
        world_size: number of workers.
        seed: the training's seed.
        window: images of a window; a window ends with the piece that reaches them.
    """

    sizes: np.ndarray
    pool: int
    rank: int
    world_size: int
    seed: int
    window: int = WINDOW

    @property
    def per_epoch(self) -> int:
        """Images that the worker takes in an epoch; fewer than `world_size` stay out, each epoch others."""
        return int(self.sizes.sum()) // self.world_size

    def parts(self, first: int, last: int) -> Iterator[WindowPart]:
        """Yield the items `first` to `last - 1`, window by window."""
        while first < last:
            epoch, begin = divmod(first, self.per_epoch)
            end = min(last - epoch * self.per_epoch, self.per_epoch)
            yield from self._epoch_parts(epoch, begin, end)
            first = epoch * self.per_epoch + end

    def _epoch_parts(self, epoch: int, begin: int, end: int) -> Iterator[WindowPart]:
        pieces = epoch_order(len(self.sizes), epoch, self.seed, self.pool)
        ends = np.cumsum(self.sizes[pieces])
        bounds = self._bounds(ends)
        for number in range(int(np.searchsorted(bounds, begin, side="right")) - 1, len(bounds) - 1):
            start, stop = int(bounds[number]), int(bounds[number + 1])
            if start >= end:
                return
            order = np.random.default_rng([self.seed, epoch, self.pool, self.rank, start]).permutation(stop - start)
            first = max(start, begin)
            slices, wanted = self._slices(pieces, ends, start, stop), slice(first - start, min(stop, end) - start)
            yield WindowPart(epoch * self.per_epoch + first, tuple(slices), order, wanted)

    def _bounds(self, ends: np.ndarray) -> np.ndarray:
        """Return where the windows of an epoch begin, and its end: each is the end of a piece.

        Args:
            ends: the end of each piece in the epoch of all workers, int64 [P].
        """
        offset = self.rank * self.per_epoch
        wanted = offset + np.arange(self.window, self.per_epoch, self.window)
        inner = np.minimum(ends[np.searchsorted(ends, wanted)] - offset, self.per_epoch)
        return np.unique(np.concatenate([[0], inner, [self.per_epoch]]))

    def _slices(self, pieces: np.ndarray, ends: np.ndarray, start: int, stop: int) -> Iterator[Slice]:
        """Yield the slices of the pieces between two places in this worker's stretch of an epoch."""
        start, stop = start + self.rank * self.per_epoch, stop + self.rank * self.per_epoch
        for place in range(int(np.searchsorted(ends, start, side="right")), len(pieces)):
            size = int(self.sizes[pieces[place]])
            begin = int(ends[place]) - size
            if begin >= stop:
                return
            if size:
                yield Slice(int(pieces[place]), max(0, start - begin), min(size, stop - begin))
