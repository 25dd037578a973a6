"""The way of the images into the train loop, through Ray Data.

Files are read and decoded in Ray Data tasks, which each worker starts for itself. Arithmetic decides which image is in
which batch (see `raysd.training.order`), so batches repeat, and a run resumes at any step.

- Pools that fit into memory are decoded once; the workers of a node share one copy, where they can.
- Larger ones are streamed: a task reads one window of one pool, and yields its images in their order. The worker takes
  from each pool what a batch needs. So each image is read once an epoch, whatever the shares.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from raysd.data.images import ImageArrays, decode_from
from raysd.training.grouping import Grouping
from raysd.training.order import (
    WINDOW,
    WorkerSequence,
    epoch_order,
    items_before,
    mixed_order,
    shuffled_items,
)
from raysd.training.pool import BLOCK_BYTES, DECODED_AT_ONCE, TASK_CPUS, encoded_window, read_pool, soft_values
from raysd.training.pool import Pool as Pool

if TYPE_CHECKING:  # tasks that read images need no torch, which takes seconds to import
    import torch

MEMORY_BYTES = 2 * 2**30
STAGE_TASKS = 1024  # handed to Ray Data at once
NUMBER_BYTES = 8  # of a label, of an image's place in the order, and of its group
SOFT_BYTES = 4  # of a value of a soft label

Batch = tuple["torch.Tensor", ...]
"""Images and labels; behind them the soft labels and the groups, where the training has some."""
COLUMNS = ("image", "label", "soft", "group")


def fits_in_memory(pools: tuple[Pool, ...], size: int) -> bool:
    """Return whether every worker can hold all images, decoded to `size` pixels."""
    return sum(len(pool) * (3 * size**2 + 4 * soft_values(pool)) for pool in pools) <= MEMORY_BYTES


@dataclass(frozen=True)
class Ingest:
    """The batches of a training, for one of its workers.

    Args:
        pools: the pools that the batches are taken from.
        size: side of the decoded images in pixels.
        batch_size: images per step over all workers; where it is no multiple of their number, some take one more.
        in_memory: whether to hold all images.
        grouping: how images form groups, of which a batch then holds several images; none when None.
    """

    pools: tuple[Pool, ...]
    size: int
    batch_size: int
    in_memory: bool
    grouping: Grouping | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each pool in a batch."""
        return tuple(pool.share for pool in self.pools)

    def shares_of_batch(self, world_size: int) -> list[int]:
        """Return how many images of each batch each worker has."""
        return [self.batch_size // world_size + (rank < self.batch_size % world_size) for rank in range(world_size)]

    @property
    def num_bytes(self) -> int:
        """Of all images, decoded, with their labels, order, groups and soft labels."""
        count = sum(map(len, self.pools))
        return count * (self._num_numbers * NUMBER_BYTES + 3 * self.size**2) + SOFT_BYTES * self._num_soft

    @property
    def _num_numbers(self) -> int:
        return 2 + bool(self._more)

    @property
    def _more(self) -> tuple[str, ...]:
        return () if self.grouping is None else self.grouping.columns

    @property
    def _num_soft(self) -> int:
        return sum(len(pool) * soft_values(pool) for pool in self.pools)

    def arrays_in(self, memory: np.ndarray) -> list[ImageArrays]:
        """Return the images of each pool in memory of `num_bytes`, uint8 [N]: the numbers of all lie before the soft
        labels of all, and these before the images, so that they are aligned."""
        arrays, count = list[ImageArrays](), sum(map(len, self.pools))
        after = self._num_numbers * NUMBER_BYTES * count
        numbers, floats, pixels = np.split(memory, [after, after + SOFT_BYTES * self._num_soft])
        labels, order, *more = numbers.view(np.int64).reshape(self._num_numbers, count)
        groups = None if self.grouping is None else more[0] if more else labels
        soft, images = floats.view(np.float32), pixels.reshape(count, 3, self.size, self.size)
        first = first_soft = 0
        for pool in self.pools:
            part, values = slice(first, first := first + len(pool)), soft_values(pool)
            own = soft[first_soft : (first_soft := first_soft + len(pool) * values)]
            shaped = own.reshape(len(pool), 2, values // 2) if values else None
            own_groups = None if groups is None else groups[part]
            arrays.append(ImageArrays(images[part], labels[part], order[part], shaped, own_groups))
        return arrays

    def read_into_memory(self, by_tasks: bool = True, memory: np.ndarray | None = None) -> list[ImageArrays]:
        """Return all images of each pool, in a fixed order, decoded by Ray Data tasks or in this process; into memory
        of `num_bytes`, or new one."""
        arrays = self.arrays_in(np.empty(self.num_bytes, np.uint8) if memory is None else memory)
        for pool, into in zip(self.pools, arrays, strict=True):
            read_pool(pool, self.size, self.grouping, by_tasks, into)
        return arrays

    def memory_batches(
        self, arrays: list[ImageArrays], steps: range, rank: int, world_size: int, seed: int
    ) -> Iterator[Batch]:
        """Yield this worker's share of each batch: uint8 [B / world size, 3, S, S], labels int64, any soft labels
        float32 [B / world size, 2, k] and any groups int64."""
        import torch

        orders = [self._order(pool, seed, number) for number, pool in enumerate(arrays)]
        for step in steps:
            before, after = (items_before(at, self.batch_size, self.shares) for at in (step, step + 1))
            parts, place = [], 0
            for number, (pool, first, last) in enumerate(zip(arrays, before, after, strict=True)):
                mine = shuffled_items(first, last, len(pool.labels), seed, number, orders[number])[
                    (rank - place) % world_size :: world_size
                ]
                others = [values[mine] for values in (pool.soft, pool.groups) if values is not None]
                parts.append((pool.images[mine], pool.labels[mine], *others))
                place += last - first
            order = mixed_order(sum(len(part[1]) for part in parts), len(parts), seed, step, rank)
            yield tuple(torch.from_numpy(np.concatenate(arrays)[order]) for arrays in zip(*parts, strict=True))

    def _order(self, pool: ImageArrays, seed: int, number: int) -> Callable[[int], np.ndarray] | None:
        """Return what gives the order of an epoch of a pool with groups; None for the plain one."""
        grouping, groups = self.grouping, pool.groups
        if grouping is None or groups is None:
            return None

        @lru_cache(maxsize=2)  # each step needs the order of its epoch
        def arranged(epoch: int) -> np.ndarray:
            return grouping.arrange(epoch_order(len(groups), epoch, seed, number), groups)

        return arranged

    def stream_batches(self, steps: range, rank: int, world_size: int, seed: int) -> Iterator[Batch]:
        """Yield this worker's share of each batch, as `memory_batches` does, read and decoded by Ray Data tasks."""
        import torch

        share = self.shares_of_batch(world_size)[rank]
        arriving = self._read_windows(steps, share, self.sequences(rank, world_size, seed))
        waiting = [_Waiting() for _ in self.pools]
        for step in steps:
            before, after = (items_before(at, share, self.shares) for at in (step, step + 1))
            parts = []
            for queue, first, last in zip(waiting, before, after, strict=True):
                while len(queue) < last - first:
                    rows = next(arriving)
                    for pool in np.unique(rows["pool"]):  # one, unless Ray Data puts blocks together
                        mine = (
                            slice(None) if len(waiting) == 1 else rows["pool"] == pool
                        )  # a copy: it may wait for long
                        waiting[pool].add(*(rows[name][mine] for name in COLUMNS if name in rows))
                parts += queue.take(last - first)
            order = mixed_order(share, len(self.pools), seed, step, rank)
            images, *others = (torch.from_numpy(np.concatenate(each)[order]) for each in zip(*parts, strict=True))
            yield images.permute(0, 3, 1, 2), *others

    def sequences(self, rank: int, world_size: int, seed: int) -> list[WorkerSequence]:
        """Return a worker's sequence of each pool."""
        return [
            WorkerSequence(pool.pieces[:, 2], number, rank, world_size, seed, max(1, round(WINDOW * pool.share)))
            for number, pool in enumerate(self.pools)
        ]

    def window_tasks(self, steps: range, share: int, sequences: list[WorkerSequence]) -> Iterator[dict[str, int]]:
        """Yield the windows that some steps of a worker need, in the order in which they are needed."""
        firsts, lasts = (items_before(step, share, self.shares) for step in (steps.start, steps.stop))

        def of_pool(number: int) -> Iterator[dict[str, int]]:
            for part in sequences[number].parts(firsts[number], lasts[number]):
                yield {"pool": number, "first": part.first, "last": part.last}

        return heapq.merge(
            *(of_pool(number) for number in range(len(self.pools))),
            key=lambda task: task["first"] / self.shares[task["pool"]],
        )

    def _read_windows(
        self, steps: range, share: int, sequences: list[WorkerSequence]
    ) -> Iterator[dict[str, np.ndarray]]:
        import ray.data

        def read(rows: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
            for pool, first, last in zip(rows["pool"], rows["first"], rows["last"], strict=True):
                yield from self.read_window(int(pool), sequences[pool], int(first), int(last))

        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.target_max_block_size = BLOCK_BYTES
        waiting = self.window_tasks(steps, share, sequences)
        while tasks := list(islice(waiting, STAGE_TASKS)):
            with ray.data.DataContext.current(context):
                source = ray.data.from_items(tasks, override_num_blocks=len(tasks))
                dataset = source.map_batches(read, batch_size=1, num_cpus=TASK_CPUS)
            yield from dataset.iter_batches(batch_size=None, prefetch_batches=2)

    def read_window(
        self, pool: int, sequence: WorkerSequence, first: int, last: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield some items of one window, decoded, in order; images uint8 [B, S, S, 3], as in memory."""
        (part,) = sequence.parts(first, last)
        encoded, places = encoded_window(self.pools[pool], part, self.grouping), part.chosen
        if self.grouping is not None:
            places = self.grouping.arrange(part.order, np.array([group for *_, group in encoded], int))[part.wanted]
        for start in range(0, len(places), DECODED_AT_ONCE):
            chosen = [encoded[place] for place in places[start : start + DECODED_AT_ONCE]]
            decoded = [
                decode_from(images, name, data, self.size).transpose(1, 2, 0) for images, name, data, *_ in chosen
            ]
            soft = [each for *_, each, _ in chosen if each is not None]
            group = {} if self.grouping is None else {"group": np.array([each for *_, each in chosen], dtype=np.int64)}
            yield {
                "pool": np.full(len(chosen), pool, dtype=np.int64),
                "image": np.stack(decoded),
                "label": np.array([label for *_, label, _, _ in chosen], dtype=np.int64),
                **({"soft": np.stack(soft)} if soft else {}),
                **group,
            }


class _Waiting:
    """Decoded images of a pool that no batch has taken yet."""

    def __init__(self) -> None:
        self.parts: deque[tuple[np.ndarray, ...]] = deque()
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, *arrays: np.ndarray) -> None:
        """Add images and their labels at the end."""
        self.parts.append(arrays)
        self.count += len(arrays[0])

    def take(self, count: int) -> list[tuple[np.ndarray, ...]]:
        """Return the first `count` images with their labels, in parts."""
        taken, self.count = [], self.count - count
        while count > 0:
            arrays = self.parts.popleft()
            taken.append(tuple(each[:count] for each in arrays))
            if len(arrays[0]) > count:
                self.parts.appendleft(tuple(each[count:] for each in arrays))
            count -= len(arrays[0])
        return taken
