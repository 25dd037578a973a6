"""The missing shards of a clone, found by one listing of its folder and little more.

A shard that is there was written by some run, and covers at least what that run had planned of it. The counts of all
runs so far are in `clone.json`, written before a run generates. So the name of a shard is enough to know that it is
whole, unless an earlier and smaller plan covers it in part; only such shards are opened. On a local disk the end of
each file is read as well, because a disk may cut a file off; an object store does not.

After the generation, `check_shards` reads what each shard covers. Nothing counts as done before that.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysd.clone.clone import Clone, CloneRecord
from raysd.clone.plan import counts_from_array
from raysd.clone.shard import DATA, MAGIC, Shard, read_shard, shard_name
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.storage.row_index import LEAST_FILES, IndexWriter

NUM_THREADS = 32  # they wait for an object store
FOOTER_BYTES = 8
LIGHT_COLUMNS = ["label", "index", "flag"]


def missing_shards(clone: Clone) -> np.ndarray:
    """Return the numbers of the shards to be generated or extended, int64, rising.

    Raises:
        UserError: Parquet files in the clone's data folder that are not its shards.
    """
    data, sizes = clone.folder.child(DATA), clone.shard_sizes()
    present = _present_shards(data, clone.images_per_shard, len(sizes))
    is_there = np.zeros(len(sizes), dtype=bool)
    is_there[present] = True
    missing = (sizes > 0) & ~is_there
    doubtful = np.flatnonzero((sizes > 0) & is_there & _may_be_short(clone, clone.read_record(), sizes))
    for number, found in zip(doubtful, _each(lambda number: _covers(clone, number), doubtful), strict=True):
        missing[number] = not found
    return np.flatnonzero(missing)


def _present_shards(data: Location, images_per_shard: int, num_shards: int) -> np.ndarray:
    """Return the numbers of the shards whose file is there and, on a local disk, not cut off."""
    found, foreign = [], []
    for name, size in data.list_sizes(".parquet").items():
        digits = name.removeprefix("train-").removesuffix(".parquet")
        number = int(digits) if digits.isdecimal() else -1
        if number < 0 or name != shard_name(number):
            foreign.append(name)
        elif number < num_shards and size > 2 * len(MAGIC):
            found.append(number)
    if foreign:
        raise UserError(
            "storage",
            data.file(foreign[0]),
            "is no shard of this clone, yet data sets are read from there; move it away",
        )
    numbers = np.array(sorted(found), dtype=np.int64)
    if not data.is_local:
        return numbers
    return (
        numbers[[_has_end(data.file(shard_name(number))) for number in numbers.tolist()]] if len(numbers) else numbers
    )


def _has_end(path: str) -> bool:
    """Return whether a Parquet file ends as one, with a footer that fits into it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        end = os.pread(handle, FOOTER_BYTES, size - FOOTER_BYTES)
    finally:
        os.close(handle)
    return end[4:] == MAGIC and int.from_bytes(end[:4], "little") < size


def _may_be_short(clone: Clone, record: CloneRecord, sizes: np.ndarray) -> np.ndarray:
    """Return which shards an earlier run may have planned in part only, bool [num_shards].

    All of them when the earlier runs are not known, or while a repair is not done.
    """
    earlier = record.planned_counts
    if not earlier or record.withdrawn is not None:
        return np.ones(len(sizes), dtype=bool)
    doubtful = np.zeros(len(sizes), dtype=bool)
    for counts in earlier:
        if counts.covers(clone.counts):
            continue
        own = clone.with_counts(counts).shard_sizes()
        common = counts_from_array(np.minimum(counts.array, clone.counts.array))
        shared = clone.with_counts(common).shard_sizes()
        length = len(sizes)
        doubtful |= (_padded(own, length) > 0) & (_padded(shared, length) < sizes)
    return doubtful


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(values[:length], (0, max(0, length - len(values))))


def _covers(clone: Clone, number: int) -> bool:
    shard = read_shard(clone.folder, number, clone.spec, LIGHT_COLUMNS)
    return shard is not None and bool(np.isin(clone.positions(number), shard.covered(clone.counts.num_classes)).all())


@dataclass
class ShardCheck:
    """The content of the shards of a clone, in numbers."""

    broken: list[int]
    """Shards that do not cover their part of the plan, or hold an image twice."""
    num_images: int
    """Planned images that are there."""
    flags: dict[str, np.ndarray]
    """Images of each label for each flag and for `dropped`, int64 [K] each."""

    @property
    def num_flagged(self) -> int:
        """Flagged images that are there."""
        return sum(int(counts.sum()) for flag, counts in self.flags.items() if flag != "dropped")

    @property
    def num_dropped(self) -> int:
        """Planned images that were dropped."""
        return int(self.flags["dropped"].sum()) if "dropped" in self.flags else 0

    def short_classes(self, keys: list[str]) -> dict[str, int]:
        """Return how many images each short class lacks, by key."""
        if "dropped" not in self.flags:
            return {}
        return {keys[label]: int(count) for label, count in enumerate(self.flags["dropped"]) if count}


def check_shards(clone: Clone) -> ShardCheck:
    """Read what each shard covers, without its images. Memory does not grow with the clone.

    Of many shards an index is written, from which a training counts its images without opening them again.
    """
    num_classes = clone.counts.num_classes
    numbers = np.flatnonzero(clone.shard_sizes())
    findings, data = ShardCheck([], 0, {}), clone.folder.child(DATA)
    index = IndexWriter(data.list_versions(".parquet")) if len(numbers) >= LEAST_FILES else None

    def check(number: int) -> tuple[int, Shard | None, int, dict[str, np.ndarray]]:
        shard = read_shard(clone.folder, number, clone.spec, LIGHT_COLUMNS)
        if shard is None:
            return number, None, 0, {}
        covered, planned = shard.covered(num_classes), clone.positions(number)
        is_whole = clone.belong(covered, number) and bool(np.isin(planned, covered).all())
        num_dropped = len(set(shard.dropped) & set(planned.tolist()))
        return number, shard if is_whole else None, len(planned) - num_dropped, shard.flag_counts(num_classes)

    for number, shard, num_images, flags in _each(check, numbers):
        if shard is None:
            findings.broken.append(number)
            continue
        if index is not None:
            index.add(shard_name(number), list(shard.group_sizes), shard.table)
        findings.num_images += num_images
        for flag, counts in flags.items():
            findings.flags[flag] = findings.flags.get(flag, 0) + counts
    if index is not None:
        index.write(data)
    return findings


def _each(function: Any, numbers: Iterable[int]) -> Iterator[Any]:
    """Yield the answers in order, from a few threads; few are held at once."""
    pending = [int(number) for number in numbers]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for start in range(0, len(pending), 64 * NUM_THREADS):
            yield from pool.map(function, pending[start : start + 64 * NUM_THREADS])
