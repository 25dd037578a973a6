"""Labels and pictures as they stand in the rows of a source, checked."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raysd.errors import UserError

LAST_UNNAMED = 1_000_000
"""The highest label that a class without a name may have."""


def checked_labels(name: str, column: pa.Array | pa.ChunkedArray, class_names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Labels int64 [N], and the class names; where labels are text and no names are known, the names are the texts, sorted.

    Raises:
        UserError: a row without a label, or with one that is no class.
    """

    def refuse(row: int, label: object, remedy: str) -> UserError:
        return UserError("real set", name, f"row {row} has the label {label!r}; {remedy}")

    column = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    if (missing := np.flatnonzero(column.is_null(nan_is_null=True).to_numpy())).size:
        raise refuse(int(missing[0]), None, "label it or remove it")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.to_pylist()
        class_names = class_names or sorted(set(texts))
        place = {text: label for label, text in enumerate(class_names)}
        if wrong := [row for row, text in enumerate(texts) if text not in place]:
            raise refuse(wrong[0], texts[wrong[0]], f"its classes are {', '.join(class_names[:5])}, ...")
        return np.array([place[text] for text in texts], dtype=np.int64), class_names
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise UserError("real set", name, f"its labels are of type {column.type}; give whole numbers or class names")
    values = np.asarray(column.to_numpy())
    end = len(class_names) or LAST_UNNAMED + 1
    wrong_rows = np.flatnonzero(~((values >= 0) & (values < end) & (values == np.floor(values))))
    if len(wrong_rows):
        remedy = f"labels are 0 to {end - 1}" if class_names else f"labels are whole numbers from 0 to {LAST_UNNAMED:,}"
        raise refuse(int(wrong_rows[0]), values[wrong_rows[0]].item(), remedy)
    return values.astype(np.int64), class_names


def image_bytes(name: str, row: int, value: Any, open_paths: bool = False) -> bytes:
    """The encoded picture in a cell: bytes, or a struct with `bytes`.

    Args:
        name: of the set.
        row: number of the row.
        value: of the cell.
        open_paths: where a struct has no bytes, read the file at its `path`; only for sets whose files a library has fetched.

    Raises:
        UserError: there is none.
    """
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if not data and path and open_paths and Path(path).is_file():
        data = Path(path).read_bytes()
    if not data and path and not open_paths:
        raise UserError("real set", name, f"row {row} has the path of a picture, not its bytes; write the bytes into the file")
    return checked_bytes(name, row, data)


def checked_bytes(name: str, row: int, data: Any) -> bytes:
    """The bytes of a picture.

    Raises:
        UserError: none, or no bytes.
    """
    if not isinstance(data, bytes) or not data:
        what = "has no picture" if not data else f"has a picture of type {type(data).__name__}, not its encoded bytes"
        raise UserError("real set", name, f"row {row} {what}; repair or remove it")
    return data
