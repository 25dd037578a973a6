"""Small Parquet tables in a folder."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from raysd.storage.location import Location

T = TypeVar("T")
NUM_THREADS = 32  # they wait for an object store


def read_table(
    folder: Location, name: str, columns: list[str] | None = None, filters: list[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """Return the rows of a file, or only the rows that fit the filters `(column, comparison, value)`."""
    return folder.attempt(
        lambda: pq.read_table(folder.file(name), columns=columns, filters=filters, filesystem=folder.filesystem)
    )


def num_rows(folder: Location, name: str) -> int:
    """Return the number of rows of a file, from its footer."""
    return folder.attempt(lambda: int(pq.read_metadata(folder.file(name), filesystem=folder.filesystem).num_rows))


def read_each(read: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Return what `read` gives for each file, in order; 32 files are read at once."""
    waiting = list(names)
    answers: list[T] = []
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for start in range(0, len(waiting), 64 * NUM_THREADS):
            answers += pool.map(read, waiting[start : start + 64 * NUM_THREADS])
    return answers


def write_table(folder: Location, name: str, table: pa.Table, row_group_size: int | None = None) -> int:
    """Write a file in one atomic step; return its bytes."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, row_group_size=row_group_size)
    data = buffer.getvalue().to_pybytes()
    folder.write(name, data)
    return len(data)
