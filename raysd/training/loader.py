"""The way of the images into the train loop, through Ray Data.

Files are read and decoded in Ray Data tasks, which each worker starts for itself. Arithmetic decides which image is in
which batch (see `raysd.training.order`), so batches repeat, and a run resumes at any step.

- Pools that fit into memory are decoded once; the workers of a node share one copy, where they can.
- Larger ones are streamed: a task reads one window of one pool, and yields its images in their order. The worker takes
  from each pool what a batch needs. So each image is read once an epoch, whatever the shares.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raysd.data.images import ImageArrays, ImageSet, decode_from, encoded_rows, soft_rows
from raysd.errors import UserError
from raysd.training.order import (
    WINDOW,
    Slice,
    WindowPart,
    WorkerSequence,
    items_before,
    mixed_order,
    shuffled_items,
)

if TYPE_CHECKING:  # tasks that read images need no torch, which takes seconds to import
    import torch

MEMORY_BYTES = 2 * 2**30
BLOCK_BYTES = 32 * 2**20  # of a task's output, so that a few fit into a laptop's object store
STAGE_TASKS = 1024  # handed to Ray Data at once
DECODED_AT_ONCE = 32  # images that a task hands on together
TASK_CPUS = 0.5
NUMBER_BYTES = 8  # of a label, and of an image's place in the order
SOFT_BYTES = 4  # of a value of a soft label

Batch = tuple["torch.Tensor", ...]
"""Images and labels; behind them the soft labels, where the training has some."""
COLUMNS = ("image", "label", "soft")
Row = tuple[ImageSet, str, bytes, int, "np.ndarray | None"]
"""Set, file, bytes, label and soft label of an image."""


@dataclass(frozen=True)
class Pool:
    """Images that are shuffled together, and their share of each batch."""

    sets: tuple[ImageSet, ...]
    share: float = 1.0

    @cached_property
    def files(self) -> list[tuple[ImageSet, str]]:
        """All files of all sets."""
        return [(images, file) for images in self.sets for file in images.files()]

    @cached_property
    def pieces(self) -> np.ndarray:
        """The row groups, int64 [P, 3]: number of the file, number in the file, images that count."""
        counts = [groups for images in self.sets for groups in images.row_group_counts().values()]
        rows = [(number, group, count) for number, groups in enumerate(counts) for group, count in enumerate(groups)]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return int(self.pieces[:, 2].sum())


def fits_in_memory(pools: tuple[Pool, ...], size: int) -> bool:
    """Return whether every worker can hold all images, decoded to `size` pixels."""
    return sum(len(pool) * (3 * size**2 + 4 * soft_values(pool)) for pool in pools) <= MEMORY_BYTES


def soft_values(pool: Pool) -> int:
    """Return the values of the soft label of each image of a pool; 0 where there is none."""
    return max((2 * images.soft_labels.num_kept for images in pool.sets if images.soft_labels), default=0)


@dataclass(frozen=True)
class Ingest:
    """The batches of a training, for one of its workers.

    Args:
        pools: the pools that the batches are taken from.
        size: side of the decoded images in pixels.
        batch_size: images per step over all workers; where it is no multiple of their number, some take one more.
        in_memory: whether to hold all images.
    """

    pools: tuple[Pool, ...]
    size: int
    batch_size: int
    in_memory: bool

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each pool in a batch."""
        return tuple(pool.share for pool in self.pools)

    @property
    def num_bytes(self) -> int:
        """Of all images, decoded, with their labels, order and soft labels."""
        count = sum(map(len, self.pools))
        return count * (2 * NUMBER_BYTES + 3 * self.size**2) + SOFT_BYTES * self._num_soft

    @property
    def _num_soft(self) -> int:
        return sum(len(pool) * soft_values(pool) for pool in self.pools)

    def arrays_in(self, memory: np.ndarray) -> list[ImageArrays]:
        """Return the images of each pool in memory of `num_bytes`, uint8 [N]: the numbers of all lie before the soft
        labels of all, and these before the images, so that they are aligned."""
        arrays, count = list[ImageArrays](), sum(map(len, self.pools))
        after = 2 * NUMBER_BYTES * count
        numbers, floats, pixels = np.split(memory, [after, after + SOFT_BYTES * self._num_soft])
        labels, order = numbers.view(np.int64).reshape(2, count)
        soft, images = floats.view(np.float32), pixels.reshape(count, 3, self.size, self.size)
        first = first_soft = 0
        for pool in self.pools:
            part, values = slice(first, first := first + len(pool)), soft_values(pool)
            own = soft[first_soft : (first_soft := first_soft + len(pool) * values)]
            shaped = own.reshape(len(pool), 2, values // 2) if values else None
            arrays.append(ImageArrays(images[part], labels[part], order[part], shaped))
        return arrays

    def read_into_memory(self, by_tasks: bool = True, memory: np.ndarray | None = None) -> list[ImageArrays]:
        """Return all images of each pool, in a fixed order, decoded by Ray Data tasks or in this process; into memory
        of `num_bytes`, or new one."""
        arrays = self.arrays_in(np.empty(self.num_bytes, np.uint8) if memory is None else memory)
        for pool, into in zip(self.pools, arrays, strict=True):
            _read_pool(pool, self.size, by_tasks, into)
        return arrays

    def memory_batches(
        self, arrays: list[ImageArrays], steps: range, rank: int, world_size: int, seed: int
    ) -> Iterator[Batch]:
        """Yield this worker's share of each batch: uint8 [B / world size, 3, S, S], labels int64, and any soft labels
        float32 [B / world size, 2, k]."""
        import torch

        for step in steps:
            before, after = (items_before(at, self.batch_size, self.shares) for at in (step, step + 1))
            parts, place = [], 0
            for number, (pool, first, last) in enumerate(zip(arrays, before, after, strict=True)):
                mine = shuffled_items(first, last, len(pool.labels), seed, number)[
                    (rank - place) % world_size :: world_size
                ]
                soft = [] if pool.soft is None else [pool.soft[mine]]
                parts.append((pool.images[mine], pool.labels[mine], *soft))
                place += last - first
            order = mixed_order(sum(len(part[1]) for part in parts), len(parts), seed, step, rank)
            yield tuple(torch.from_numpy(np.concatenate(arrays)[order]) for arrays in zip(*parts, strict=True))

    def stream_batches(self, steps: range, rank: int, world_size: int, seed: int) -> Iterator[Batch]:
        """Yield this worker's share of each batch, as `memory_batches` does, read and decoded by Ray Data tasks."""
        import torch

        share = self.batch_size // world_size + (rank < self.batch_size % world_size)
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
        encoded = _encoded_window(self.pools[pool], part)
        for start in range(0, len(part.chosen), DECODED_AT_ONCE):
            chosen = [encoded[place] for place in part.chosen[start : start + DECODED_AT_ONCE]]
            decoded = [
                decode_from(images, name, data, self.size).transpose(1, 2, 0) for images, name, data, *_ in chosen
            ]
            soft = [each for *_, each in chosen if each is not None]
            yield {
                "pool": np.full(len(chosen), pool, dtype=np.int64),
                "image": np.stack(decoded),
                "label": np.array([label for *_, label, _ in chosen], dtype=np.int64),
                **({"soft": np.stack(soft)} if soft else {}),
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


def _encoded_window(pool: Pool, part: WindowPart) -> list[Row]:
    """Return the rows of a window; a file is opened once."""
    rows: dict[int, list[Row]] = {}
    by_file: dict[int, list[Slice]] = {}
    for piece in part.slices:
        by_file.setdefault(int(pool.pieces[piece.piece, 0]), []).append(piece)
    for file, pieces in by_file.items():
        images, name = pool.files[file]
        groups = images.read_row_groups(name, [int(pool.pieces[piece.piece, 1]) for piece in pieces])
        tables = [
            table.slice(piece.start, piece.stop - piece.start) for piece, table in zip(pieces, groups, strict=True)
        ]
        soft, first = soft_rows(images, name, pa.concat_tables(tables)), 0
        for piece, table in zip(pieces, tables, strict=True):
            data, labels = encoded_rows(images, table)
            softened = [None] * len(data) if soft is None else soft[first : first + len(data)]
            first += len(data)
            rows[piece.piece] = [(images, name, *row) for row in zip(data, labels.tolist(), softened, strict=True)]
    return [row for piece in part.slices for row in rows[piece.piece]]


def _read_pool(pool: Pool, size: int, by_tasks: bool, into: ImageArrays) -> None:
    """Read all images of a pool, in the order of the files; each is decoded into its place, so that one copy is held.

    Raises:
        UserError: an image cannot be decoded, or files were changed since they were counted.
    """
    counts = np.bincount(pool.pieces[:, 0], pool.pieces[:, 2], len(pool.files)).astype(np.int64)
    starts = np.cumsum(counts) - counts
    files = zip(range(len(pool.files)), starts.tolist(), counts.tolist(), strict=True)
    tasks = [{"file": file, "start": start, "count": count} for file, start, count in files if count]
    rows = (
        _decoded_by_tasks(pool, tasks, size)
        if by_tasks
        else (row for task in tasks for row in _decoded(pool, task, size))
    )
    for row in rows:
        into.images[row["place"]], into.labels[row["place"]] = row["image"], row["label"]
        if into.soft is not None:
            into.soft[row["place"]] = row["soft"]
    into.order[:] = np.repeat(np.arange(len(counts)) * 2**32 - starts, counts) + np.arange(len(pool))


def _decoded(pool: Pool, task: dict[str, int], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the images of a file, some at a time, with their places in the pool."""
    images, name = pool.files[task["file"]]
    rows = images.read_rows(name)
    encoded, labels = encoded_rows(images, rows)
    if len(labels) != task["count"]:
        raise UserError("training", f"{images.folder.uri}/{name}", "was changed meanwhile; start the training again")
    soft = soft_rows(images, name, rows)
    for start in range(0, len(labels), DECODED_AT_ONCE):
        part = slice(start, start + DECODED_AT_ONCE)
        decoded = np.stack([decode_from(images, name, data, size) for data in encoded[part]])
        softened = {} if soft is None else {"soft": soft[part]}
        place = task["start"] + start + np.arange(len(decoded))
        yield {"image": decoded, "label": labels[part], "place": place, **softened}


def _decoded_by_tasks(pool: Pool, tasks: list[dict[str, int]], size: int) -> Iterator[dict[str, np.ndarray]]:
    import ray.data

    def decode(rows: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for values in zip(rows["file"], rows["start"], rows["count"], strict=True):
            yield from _decoded(pool, dict(zip(("file", "start", "count"), map(int, values), strict=True)), size)

    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    with ray.data.DataContext.current(context):
        source = ray.data.from_items(tasks, override_num_blocks=len(tasks))
        dataset = source.map_batches(decode, batch_size=1, num_cpus=TASK_CPUS)
    yield from dataset.iter_batches(batch_size=None)
