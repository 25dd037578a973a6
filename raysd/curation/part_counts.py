"""The number of images in the part of each shard of a score table, kept beside the parts.

A part fits its shard when it has as many rows. The footers of both files say so, at the cost of two reads.
`counts.parquet` keeps the answer together with the sizes of both files; where a listing of each folder still shows
these sizes, no file is opened. Where `counts.parquet` is missing or old, the footers are read.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from raysd.clone.shard import DATA, shard_name
from raysd.storage.location import Location
from raysd.storage.tables import num_rows, read_each, read_table, write_table

COUNTS = "counts.parquet"
SCHEMA = pa.schema(
    [("name", pa.string()), ("shard_bytes", pa.int64()), ("part_bytes", pa.int64()), ("rows", pa.int64())]
)


class PartCount(NamedTuple):
    """Rows of a part that fitted its shard when both files had these sizes in bytes."""

    shard_bytes: int
    part_bytes: int
    rows: int


class PartCounts:
    """The counts of the parts of one clone. The shards are listed once; the next run finds what grows meanwhile.

    Args:
        clone: the clone's folder.
        scores: the folder of the score table.
    """

    def __init__(self, clone: Location, scores: Location) -> None:
        self.data, self.scores, self.parts = clone.child(DATA), scores, scores.child("parts")
        self.shard_bytes = self.data.list_sizes(".parquet")
        rows = read_table(scores, COUNTS).to_pylist() if scores.exists(COUNTS) else []
        self.counts = {row.pop("name"): PartCount(**row) for row in rows}

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Return the shards that have no part, or have grown since. Footers of files that changed since are read."""
        part_bytes = self.parts.list_sizes(".parquet")
        names = [shard_name(number) for number in numbers]
        there = [name for name in names if name in part_bytes and name in self.shard_bytes]
        changed = [name for name in there if not self._is_as_counted(name, part_bytes)]
        fitting = set(there).difference(changed)
        in_parts = read_each(lambda name: num_rows(self.parts, name), changed)
        in_shards = read_each(lambda name: num_rows(self.data, name), changed)
        for name, rows, wanted in zip(changed, in_parts, in_shards, strict=True):
            if rows == wanted:
                self.counts[name] = PartCount(self.shard_bytes[name], part_bytes[name], rows)
                fitting.add(name)
        if changed:
            self._write()
        return [number for number, name in zip(numbers, names, strict=True) if name not in fitting]

    def keep(self, scored: dict[int, tuple[int, int]]) -> None:
        """Keep the rows and the bytes of the parts that this run wrote, by shard."""
        for number, (rows, part_bytes) in scored.items():
            name = shard_name(number)
            self.counts[name] = PartCount(self.shard_bytes.get(name, 0), part_bytes, rows)
        self._write()

    def rows(self) -> dict[str, int]:
        """Return the rows of all parts that are there, by file name, also of parts of a larger clone."""
        part_bytes = self.parts.list_sizes(".parquet")
        known = {
            name: self.counts[name].rows
            for name, size in part_bytes.items()
            if name in self.counts and self.counts[name].part_bytes == size
        }
        others = sorted(set(part_bytes).difference(known))
        known.update(zip(others, read_each(lambda name: num_rows(self.parts, name), others), strict=True))
        return {name: known[name] for name in sorted(known)}

    def _is_as_counted(self, name: str, part_bytes: dict[str, int]) -> bool:
        count = self.counts.get(name)
        return count is not None and (count.shard_bytes, count.part_bytes) == (self.shard_bytes[name], part_bytes[name])

    def _write(self) -> None:
        rows = [{"name": name, **count._asdict()} for name, count in sorted(self.counts.items())]
        write_table(self.scores, COUNTS, pa.Table.from_pylist(rows, SCHEMA))
