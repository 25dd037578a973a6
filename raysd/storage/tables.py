"""Small Parquet tables in a folder."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysd.storage.location import Location


def read_table(folder: Location, name: str, columns: list[str] | None = None, filters: list[tuple[str, str, Any]] | None = None) -> pa.Table:
    """The rows of a file, or those that fit the filters `(column, comparison, value)`."""
    return folder.attempt(lambda: pq.read_table(folder.file(name), columns=columns, filters=filters, filesystem=folder.filesystem))


def num_rows(folder: Location, name: str) -> int:
    """Rows of a file, from its footer."""
    return folder.attempt(lambda: int(pq.read_metadata(folder.file(name), filesystem=folder.filesystem).num_rows))


def write_table(folder: Location, name: str, table: pa.Table) -> None:
    """Write a file in one atomic step."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    folder.write(name, buffer.getvalue().to_pybytes())
