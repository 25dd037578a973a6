"""The way of the images into the train loop, through Ray Data.

Files are read and decoded in Ray Data tasks, which each worker starts for itself. Arithmetic decides which image is in
which batch (see `raysd.training.order`), so batches repeat, and a run resumes at any step.

- Pools that fit into a worker's memory are decoded once; every worker holds all of them.
- Larger ones are streamed: a task reads the windows of a few steps, and yields whole batches in their order.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raysd.data.images import ImageArrays, ImageSet, count_row_groups, decode_file, decode_from, encoded_rows
from raysd.training.order import WINDOW, WorkerSequence, items_before, mixed_order, shuffled_items

if TYPE_CHECKING:  # tasks that read images need no torch, which takes seconds to import
    import torch

MEMORY_BYTES = 2 * 2**30
BLOCK_BYTES = 32 * 2**20  # of a task's output, so that a few fit into a laptop's object store
STAGE_TASKS = 1024  # handed to Ray Data at once
READERS = 16
TASK_CPUS = 0.5

Batch = tuple["torch.Tensor", "torch.Tensor"]


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
        with ThreadPoolExecutor(READERS) as readers:
            counts = list(readers.map(lambda entry: count_row_groups(*entry), self.files))
        rows = [(number, group, count) for number, groups in enumerate(counts) for group, count in enumerate(groups)]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return int(self.pieces[:, 2].sum())


def fits_in_memory(pools: tuple[Pool, ...], size: int) -> bool:
    """Return whether every worker can hold all images, decoded to `size` pixels."""
    return sum(map(len, pools)) * 3 * size**2 <= MEMORY_BYTES


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

    def read_into_memory(self, by_tasks: bool = True) -> list[ImageArrays]:
        """Return all images of each pool, in a fixed order, decoded by Ray Data tasks or in this process."""
        return [_read_pool(pool, self.size) if by_tasks else _read_pool_here(pool, self.size) for pool in self.pools]

    def memory_batches(
        self, arrays: list[ImageArrays], steps: range, rank: int, world_size: int, seed: int
    ) -> Iterator[Batch]:
        """Yield this worker's share of each batch: uint8 [B / world size, 3, S, S] and labels int64."""
        import torch

        for step in steps:
            before, after = (items_before(at, self.batch_size, self.shares) for at in (step, step + 1))
            images, labels, place = [], [], 0
            for number, (pool, first, last) in enumerate(zip(arrays, before, after, strict=True)):
                mine = shuffled_items(first, last, len(pool.labels), seed, number)[
                    (rank - place) % world_size :: world_size
                ]
                images.append(pool.images[mine])
                labels.append(pool.labels[mine])
                place += last - first
            order = mixed_order(sum(map(len, labels)), len(labels), seed, step, rank)
            yield torch.from_numpy(np.concatenate(images)[order]), torch.from_numpy(np.concatenate(labels)[order])

    def stream_batches(self, steps: range, rank: int, world_size: int, seed: int) -> Iterator[Batch]:
        """Yield this worker's share of each batch, as `memory_batches` does, read and decoded by Ray Data tasks."""
        import torch

        share = self.batch_size // world_size + (rank < self.batch_size % world_size)
        sequences = [
            WorkerSequence(pool.pieces[:, 2], number, rank, world_size, seed) for number, pool in enumerate(self.pools)
        ]
        per_task = max(1, WINDOW // share)
        for start in range(steps.start, steps.stop, per_task * STAGE_TASKS):
            stage = range(start, min(start + per_task * STAGE_TASKS, steps.stop), per_task)
            tasks = [{"first": first, "last": min(first + per_task, steps.stop)} for first in stage]
            dataset = self._stage(tasks, sequences, share)
            for step, batch in enumerate(dataset.iter_batches(batch_size=share, prefetch_batches=2), start):
                order = mixed_order(share, len(self.pools), seed, step, rank)
                images, labels = (batch[name].copy()[order] for name in ("image", "label"))  # Ray's memory is read-only
                yield torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def _stage(self, tasks: list[dict[str, int]], sequences: list[WorkerSequence], share: int) -> Any:
        import ray.data

        def read(rows: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
            for first, last in zip(rows["first"], rows["last"], strict=True):
                yield from self._read_steps(range(int(first), int(last)), sequences, share)

        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.target_max_block_size = BLOCK_BYTES
        with ray.data.DataContext.current(context):
            source = ray.data.from_items(tasks, override_num_blocks=len(tasks))
            return source.map_batches(read, batch_size=1, num_cpus=TASK_CPUS)

    def _read_steps(self, steps: range, sequences: list[WorkerSequence], share: int) -> Iterator[dict[str, np.ndarray]]:
        """Decode one worker's batches of a few steps, one by one; images uint8 [B, S, S, 3], as in memory."""
        firsts, lasts = (items_before(step, share, self.shares) for step in (steps.start, steps.stop))
        ranges = zip(self.pools, sequences, firsts, lasts, strict=True)
        readers = [_read_items(pool, sequence, first, last, self.size) for pool, sequence, first, last in ranges]
        for step in steps:
            before, after = (items_before(at, share, self.shares) for at in (step, step + 1))
            parts = [
                next(reader)
                for reader, first, last in zip(readers, before, after, strict=True)
                for _ in range(last - first)
            ]
            yield {
                "image": np.stack([image.transpose(1, 2, 0) for image, _ in parts]),
                "label": np.array([label for _, label in parts], dtype=np.int64),
            }


def _read_items(
    pool: Pool, sequence: WorkerSequence, first: int, last: int, size: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the images uint8 [3, S, S] and labels of some items of a worker's sequence; one window's bytes are held."""
    for part in sequence.parts(first, last):
        sources: list[tuple[ImageSet, str]] = []
        encoded: list[bytes] = []
        labels: list[int] = []
        for piece in part.slices:
            file, group, _ = pool.pieces[piece.piece]
            images, name = pool.files[file]
            data, numbers = encoded_rows(
                images, images.read_rows(name, int(group)).slice(piece.start, piece.stop - piece.start)
            )
            sources += [(images, name)] * len(data)
            encoded += data
            labels += numbers.tolist()
        for place in part.chosen:
            images, name = sources[place]
            yield decode_from(images, name, encoded[place], size), labels[place]


def _read_pool_here(pool: Pool, size: int) -> ImageArrays:
    parts = [decode_file(images, file, number, size) for number, (images, file) in enumerate(pool.files)]
    return ImageArrays.concatenate([part for part in parts if len(part.labels)])


def _read_pool(pool: Pool, size: int) -> ImageArrays:
    """Return all images of a pool, decoded by Ray Data tasks, in the order of the files."""
    import ray.data

    def decode(batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for number in batch["file"]:
            images, file = pool.files[int(number)]
            part = decode_file(images, file, int(number), size)
            if len(part.labels):
                yield {"image": part.images, "label": part.labels, "order": part.order}

    files = [{"file": number} for number in range(len(pool.files))]
    dataset = ray.data.from_items(files, override_num_blocks=len(files)).map_batches(
        decode, batch_size=1, num_cpus=TASK_CPUS
    )
    parts = [
        ImageArrays(batch["image"], batch["label"], batch["order"]) for batch in dataset.iter_batches(batch_size=None)
    ]
    return ImageArrays.concatenate(parts)
