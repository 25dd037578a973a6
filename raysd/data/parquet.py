"""Real images in a Parquet file, or in a folder of Parquet files whose folders are named as `label=3`."""

import errno
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysd.data.readers import USUAL, Columns, Source, checked_labels, image_bytes, missing_column, plain_type
from raysd.errors import UserError

BATCH_ROWS = 256
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class _Part:
    """A Parquet file, and the columns that the names of its folders give."""

    path: Path
    name: str
    folders: dict[str, str]

    @cached_property
    def file(self) -> pq.ParquetFile:
        """The opened file; by default it would be read whole."""
        return pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20)

    @cached_property
    def schema(self) -> pa.Schema:
        """Schema with the columns of the folders, which are text."""
        schema = self.file.schema_arrow
        for name in self.folders:
            if name not in schema.names:
                schema = schema.append(pa.field(name, pa.string()))
        return schema

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield batches with some columns, also those that the folders give."""
        stored = [name for name in columns if name in self.file.schema_arrow.names]
        for batch in self.file.iter_batches(BATCH_ROWS, columns=stored):
            given = [
                batch[name] if name in stored else pa.array([self._value(name)] * len(batch), pa.string())
                for name in columns
            ]
            yield pa.RecordBatch.from_arrays(given, columns)

    def _value(self, name: str) -> str | None:
        return None if self.folders[name] == NO_VALUE else self.folders[name]


def hive_files(path: Path) -> list[Path]:
    """Return the Parquet files of a folder whose folders are named as `label=3`, sorted; nothing for other folders."""
    if not any("=" in child.name for child in path.iterdir() if child.is_dir()):
        return []
    found = sorted(path.rglob("*.parquet"))
    return [file for file in found if all("=" in folder for folder in file.relative_to(path).parts[:-1])]


def parquet_source(path: Path, columns: Columns = USUAL) -> Source:
    """Open a Parquet file, or a folder of them, with images (bytes, or a struct of bytes and path) and labels (whole
    numbers or text).

    The rows are copied to a nameless Arrow file on disk, which is mapped into memory; so large files take no memory.

    Raises:
        UserError: no such file, columns or labels, or a full disk.
    """
    parts = _parts(path)
    try:
        for part in parts:
            _check_columns(path, part, columns)
        names = _schema_class_names(parts[0].schema, columns.label)
        with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
            schema = parts[0].schema
            kept = pa.schema([(name, plain_type(schema.field(name).type)) for name in (columns.image, columns.label)])
            with pa.ipc.new_file(file.name, kept) as writer:
                for part in parts:
                    for batch in part.batches(kept.names):
                        writer.write_batch(batch.cast(kept))
            table = pa.ipc.open_file(pa.memory_map(file.name)).read_all()
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"does not fit the disk of {tempfile.gettempdir()}, where it is kept while it is read"
            remedy = f"{why}; free some space, or set TMPDIR to another folder"
            raise UserError("real data set", str(path), remedy) from None
        raise UserError(
            "real data set",
            str(path),
            f"is no readable Parquet file ({str(error).splitlines()[0]}); give one that is whole, or a folder: unpack "
            "archives into one folder per class",
        ) from None
    column = table[columns.label]
    if columns.label in parts[0].folders:
        column = _numbers(column)
    labels, names = checked_labels(path.name, column, names)
    images = table[columns.image]
    starts = np.cumsum([0, *(part.file.metadata.num_rows for part in parts)])

    def place(i: int) -> tuple[str, int]:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        return parts[part].name, i - int(starts[part])

    return Source(
        path.name,
        labels,
        names,
        lambda i: image_bytes(*place(i), images[i].as_py()),
        where=lambda i: "{}, row {}".format(*place(i)),
    )


def _parts(path: Path) -> list[_Part]:
    if not path.is_dir():
        return [_Part(path, path.name, {})]
    parts = []
    for file in hive_files(path):
        inside = file.relative_to(path)
        folders = dict(folder.split("=", 1) for folder in inside.parts[:-1])
        parts.append(_Part(file, str(inside), {key: unquote(value) for key, value in folders.items()}))
    return parts


def _check_columns(path: Path, part: _Part, columns: Columns) -> None:
    """Check that a file has each wanted column once.

    Raises:
        UserError: a column is missing, or there twice.
    """
    for column in (columns.image, columns.label):
        count = part.schema.names.count(column)
        if count == 0:
            raise missing_column(str(path), column, columns, part.schema.names)
        if count > 1:
            raise UserError("real data set", str(path), f"has {count} columns {column}; remove all but one")


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return labels from names of folders as whole numbers if all of them are."""
    texts = [text for text in column.unique().to_pylist() if text is not None]
    return column.cast(pa.int64()) if all(text.isdecimal() for text in texts) else column


def _schema_class_names(schema: pa.Schema, label: str) -> list[str]:
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return [str(name) for name in features.get(label, {}).get("names", [])]
    except (AttributeError, ValueError, TypeError):  # metadata of another form
        return []
