"""Pictures into the train loop through Ray Data.

Files are read and decoded in Ray Data tasks. A set that fits into a worker's memory is decoded once: every worker holds all of it, and
batch `step` is a pure function of the seed, so a resumed run sees the same batches. A larger set is streamed anew in each epoch, split
between the workers and shuffled in a buffer.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import ray.data
import torch

from raysd.training.pictures import PictureArrays, PictureSet, count_pictures, decode_file, iterate_files
from raysd.training.schedule import epoch_order

MEMORY_BYTES = 2 * 2**30
SHUFFLE_BATCHES = 8  # the buffer holds so many batches; fewer than two give short batches in mid-stream


def picture_dataset(sets: list[PictureSet], image_size: int) -> ray.data.Dataset:
    """Decoded pictures of all sets: columns `image` uint8 [3, S, S], `label`, `order`."""

    def decode(batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for number, file, position in zip(batch["set"], batch["file"], batch["position"], strict=True):
            part = decode_file(sets[int(number)], str(file), int(position), image_size)
            if len(part.labels):
                yield {"image": part.images, "label": part.labels, "order": part.order}

    rows = list(iterate_files(sets))
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(decode, batch_size=1, num_cpus=0.5)


def fits_in_memory(sets: list[PictureSet], image_size: int) -> bool:
    """True when every worker can hold all decoded pictures."""
    return sum(count_pictures(pictures) for pictures in sets) * 3 * image_size**2 <= MEMORY_BYTES


def read_into_memory(shard: ray.data.DataIterator) -> PictureArrays:
    """All pictures of an unsplit data set, in their fixed order."""
    parts = [PictureArrays(batch["image"], batch["label"], batch["order"]) for batch in shard.iter_batches(batch_size=None)]
    return PictureArrays.concatenate(parts)


def memory_batches(
    arrays: PictureArrays, first_step: int, num_steps: int, per_epoch: int, batch_size: int, rank: int, world_size: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This worker's share of each batch from `first_step` on: uint8 [B / world size, 3, S, S] and labels."""
    epoch, order = -1, np.empty(0, dtype=np.int64)
    for step in range(first_step, num_steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(len(arrays.labels), epoch, seed)
        start = step % per_epoch * batch_size
        chosen = order[start + rank : start + batch_size : world_size]
        yield torch.from_numpy(arrays.images[chosen]), torch.from_numpy(arrays.labels[chosen])


def stream_batches(shard: ray.data.DataIterator, num_steps: int, batch_size: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of this worker's part, epoch after epoch, until `num_steps` were given."""
    step, epoch = 0, 0
    while step < num_steps:
        options: dict[str, Any] = {"local_shuffle_buffer_size": SHUFFLE_BATCHES * batch_size, "local_shuffle_seed": seed + epoch}
        for batch in shard.iter_batches(batch_size=batch_size, drop_last=True, prefetch_batches=2, **options):
            if step == num_steps:
                return
            yield torch.from_numpy(batch["image"].copy()), torch.from_numpy(batch["label"].copy())
            step += 1
        epoch += 1
