"""Pools of images that a training takes its batches from, and how their files are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from raysd.data.images import ImageArrays, ImageSet, decode_from, encoded_rows, soft_rows
from raysd.errors import UserError
from raysd.training.grouping import Grouping
from raysd.training.order import Slice, WindowPart

BLOCK_BYTES = 32 * 2**20  # of a task's output, so that a few fit into a laptop's object store
DECODED_AT_ONCE = 32  # images that a task hands on together
TASK_CPUS = 0.5
Row = tuple[ImageSet, str, bytes, int, "np.ndarray | None", "np.int64 | None"]
"""Set, file, bytes, label, soft label and group of an image."""


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


def soft_values(pool: Pool) -> int:
    """Return the values of the soft label of each image of a pool; 0 where there is none."""
    return max((2 * images.soft_labels.num_kept for images in pool.sets if images.soft_labels), default=0)


def encoded_window(pool: Pool, part: WindowPart, grouping: Grouping | None) -> list[Row]:
    """Return the rows of a window; a file is opened once."""
    rows: dict[int, list[Row]] = {}
    by_file: dict[int, list[Slice]] = {}
    for piece in part.slices:
        by_file.setdefault(int(pool.pieces[piece.piece, 0]), []).append(piece)
    for file, pieces in by_file.items():
        images, name = pool.files[file]
        numbers, more = [int(pool.pieces[piece.piece, 1]) for piece in pieces], grouping.columns if grouping else ()
        tables = [
            table.slice(piece.start, piece.stop - piece.start)
            for piece, table in zip(pieces, images.read_row_groups(name, numbers, more), strict=True)
        ]
        soft, first = soft_rows(images, name, pa.concat_tables(tables)), 0
        for piece, table in zip(pieces, tables, strict=True):
            data, labels = encoded_rows(images, table)
            softened = [None] * len(data) if soft is None else soft[first : first + len(data)]
            first += len(data)
            groups = [None] * len(data) if grouping is None else grouping.groups(table, labels)
            rows[piece.piece] = [
                (images, name, *row) for row in zip(data, labels.tolist(), softened, groups, strict=True)
            ]
    return [row for piece in part.slices for row in rows[piece.piece]]


def read_pool(pool: Pool, size: int, grouping: Grouping | None, by_tasks: bool, into: ImageArrays) -> None:
    """Read all images of a pool, in the order of the files; each is decoded into its place, so that one copy is held.

    Raises:
        UserError: an image cannot be decoded, or files were changed since they were counted.
    """
    counts = np.bincount(pool.pieces[:, 0], pool.pieces[:, 2], len(pool.files)).astype(np.int64)
    starts = np.cumsum(counts) - counts
    files = zip(range(len(pool.files)), starts.tolist(), counts.tolist(), strict=True)
    tasks = [{"file": file, "start": start, "count": count} for file, start, count in files if count]
    rows = (
        _decoded_by_tasks(pool, tasks, size, grouping)
        if by_tasks
        else (row for task in tasks for row in _decoded(pool, task, size, grouping))
    )
    for row in rows:
        into.images[row["place"]], into.labels[row["place"]] = row["image"], row["label"]
        if into.soft is not None:
            into.soft[row["place"]] = row["soft"]
        if into.groups is not None:
            into.groups[row["place"]] = row["group"]
    into.order[:] = np.repeat(np.arange(len(counts)) * 2**32 - starts, counts) + np.arange(len(pool))


def _decoded(pool: Pool, task: dict[str, int], size: int, grouping: Grouping | None) -> Iterator[dict[str, np.ndarray]]:
    """Yield the images of a file, some at a time, with their places in the pool."""
    images, name = pool.files[task["file"]]
    rows = images.read_rows(name, more=grouping.columns if grouping else ())
    encoded, labels = encoded_rows(images, rows)
    if len(labels) != task["count"]:
        raise UserError("training", f"{images.folder.uri}/{name}", "was changed meanwhile; start the training again")
    soft = soft_rows(images, name, rows)
    groups = None if grouping is None else grouping.groups(rows, labels)
    for start in range(0, len(labels), DECODED_AT_ONCE):
        part = slice(start, start + DECODED_AT_ONCE)
        decoded = np.stack([decode_from(images, name, data, size) for data in encoded[part]])
        others = {name: values[part] for name, values in (("soft", soft), ("group", groups)) if values is not None}
        place = task["start"] + start + np.arange(len(decoded))
        yield {"image": decoded, "label": labels[part], "place": place, **others}


def _decoded_by_tasks(
    pool: Pool, tasks: list[dict[str, int]], size: int, grouping: Grouping | None
) -> Iterator[dict[str, np.ndarray]]:
    import ray.data

    def decode(rows: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for values in zip(rows["file"], rows["start"], rows["count"], strict=True):
            task = dict(zip(("file", "start", "count"), map(int, values), strict=True))
            yield from _decoded(pool, task, size, grouping)

    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    with ray.data.DataContext.current(context):
        source = ray.data.from_items(tasks, override_num_blocks=len(tasks))
        dataset = source.map_batches(decode, batch_size=1, num_cpus=TASK_CPUS)
    yield from dataset.iter_batches(batch_size=None)
