"""One hidden file beside many Parquet files of images, which says what rows they hold, so that nobody opens them all.

It holds label, index and flag of each row, in the order of the rows, which compresses to a few bytes a file: whoever
takes a part of the images counts them from that. An entry counts only as long as its file has the size and the time of
change that it had before it was read. So a file that was changed since then is opened again. Pages have checksums, so
that a lost, torn or damaged index costs time alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysd.errors import UserError
from raysd.storage.change import change
from raysd.storage.location import Location, Version

NAME = ".rows.parquet"
LEAST_FILES = 32  # fewer are opened
FILES_AT_ONCE = 1024
ROW_COLUMNS = ["label", "index", "flag"]
SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("bytes", pa.int64()),
        ("changed", pa.int64()),
        ("groups", pa.list_(pa.int64())),
        ("label", pa.list_(pa.int64())),
        ("index", pa.list_(pa.int64())),
        ("flag", pa.list_(pa.string())),
    ]
)
DAMAGED = (OSError, ValueError, KeyError, pa.ArrowException)
"""Errors of reading a damaged index."""
RISING = ["bytes", "changed", *(f"{name}.list.element" for name in ("groups", "label", "index"))]


@dataclass(frozen=True)
class IndexedFiles:
    """Some files of an index, one after the other."""

    names: list[str]
    num_groups: np.ndarray
    """Row groups of each file, int64 [files]."""
    group_sizes: np.ndarray
    """Rows of each row group, int64 [row groups]."""
    rows: pa.Table
    """`label`, `index` and `flag` of each row."""

    def count(self, keep: np.ndarray) -> dict[str, list[int]]:
        """Return how many of the chosen rows, bool [rows], each row group of each file has."""
        ends = np.cumsum(self.group_sizes)
        before = np.concatenate([[0], np.cumsum(keep)])
        counts = before[ends] - before[ends - self.group_sizes]
        parts = np.split(counts, np.cumsum(self.num_groups)[:-1])
        return {name: part.tolist() for name, part in zip(self.names, parts, strict=True)}


class IndexWriter:
    """Writer of an index.

    Args:
        versions: the versions of the files before they were read.
    """

    def __init__(self, versions: dict[str, Version]) -> None:
        self.versions = versions
        self.is_empty = True
        self.entries: list[dict[str, object]] = []
        self.tables: list[pa.Table] = []
        self.buffer = pa.BufferOutputStream()
        self.writer = _writer(self.buffer)

    def add(self, file: str, groups: list[int], rows: pa.Table) -> None:
        """Add a file, with the rows of each of its row groups, and `label`, `index` and perhaps `flag` of its rows."""
        if file not in self.versions:
            return
        flag = rows["flag"] if "flag" in rows.column_names else pa.array([""] * len(rows), pa.string())
        version = self.versions[file]
        self.is_empty = False
        self.entries.append({"file": file, "bytes": version.size, "changed": version.changed, "groups": groups})
        self.tables.append(pa.table({"label": rows["label"], "index": rows["index"], "flag": flag}))
        if len(self.entries) == FILES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self.entries:
            return
        offsets = pa.array(np.cumsum([0, *map(len, self.tables)]), pa.int32())
        rows = pa.concat_tables(self.tables).combine_chunks()
        lists = [pa.ListArray.from_arrays(offsets, rows[name].combine_chunks()) for name in ROW_COLUMNS]
        about = pa.Table.from_pylist(self.entries, pa.schema(list(SCHEMA)[:4]))
        self.writer.write_table(pa.table([*about.columns, *lists], schema=SCHEMA))
        self.entries, self.tables = [], []

    def write(self, folder: Location) -> None:
        """Write the index, with the entries of files that this writer did not see; nothing where it saw no file, or
        where one may not write."""
        if self.is_empty:
            return
        self._flush()
        self.writer.close()
        own = self.buffer.getvalue()

        def united(data: bytes | None) -> bytes:
            return _united(own, data)

        try:
            change(folder, NAME, united)
        except (OSError, UserError):  # read-only or full: the files are opened the next time, too
            return


def read_index(folder: Location, versions: dict[str, Version]) -> Iterator[IndexedFiles]:
    """Yield what the index of a folder knows of the files as they are now; nothing where there is none."""
    try:
        for batch in _batches(folder.read(NAME)):
            states = zip(
                batch["file"].to_pylist(), batch["bytes"].to_pylist(), batch["changed"].to_pylist(), strict=True
            )
            is_valid = [changed > 0 and versions.get(file) == (size, changed) for file, size, changed in states]
            kept = batch.filter(pa.array(is_valid, pa.bool_())).combine_chunks()
            if len(kept):
                yield _indexed(kept)
    except DAMAGED:  # or missing
        return


def _indexed(kept: pa.Table) -> IndexedFiles:
    num_groups = pc.list_value_length(kept["groups"]).to_numpy().astype(np.int64)
    group_sizes = pc.list_flatten(kept["groups"]).to_numpy()
    rows = pa.table({name: pc.list_flatten(kept[name]) for name in ROW_COLUMNS})
    if num_groups.sum() != len(group_sizes) or group_sizes.sum() != len(rows):
        raise ValueError("the row groups do not hold the rows")
    return IndexedFiles(kept["file"].to_pylist(), num_groups, group_sizes, rows)


def _united(own: pa.Buffer, data: bytes | None) -> bytes:
    """Return an index with all entries of `own`, and those of another one for other files."""
    if data is None:
        return own.to_pybytes()
    names = pa.concat_arrays([batch["file"].combine_chunks() for batch in _batches(own, ["file"])])
    buffer = pa.BufferOutputStream()
    with _writer(buffer) as writer:
        try:
            for batch in _batches(data):
                writer.write_table(batch.filter(pc.invert(pc.is_in(batch["file"], names))))
        except DAMAGED:
            return own.to_pybytes()
        for batch in _batches(own):
            writer.write_table(batch)
    return buffer.getvalue().to_pybytes()


def _batches(data: bytes | pa.Buffer, columns: list[str] | None = None) -> Iterator[pa.Table]:
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    if file.schema_arrow.remove_metadata() != SCHEMA:
        raise ValueError("not an index")
    for number in range(file.num_row_groups):
        yield file.read_row_group(number, columns=columns)


def _writer(buffer: pa.BufferOutputStream) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        buffer,
        SCHEMA,
        compression="zstd",
        use_dictionary=["flag.list.element"],
        column_encoding=dict.fromkeys(RISING, "DELTA_BINARY_PACKED"),
        write_statistics=False,
        write_page_checksum=True,
    )
