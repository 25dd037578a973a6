"""Files that hold a table: of classes, or of texts for prompts."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import yaml
from pyarrow import ArrowInvalid

from raysd.errors import UserError
from raysd.yaml_text import Plain, decode_text, describe_error, read_yaml

FILES = ".csv, .tsv, .jsonl, .parquet, .yaml or .txt"
KNOWN_COLUMNS = ("label", "key", "name", "definition", "hypernym", "synonyms", "wnid", "sense", "senses")
ON_ONE_LINE = ("key", "name")


def read_rows(field: str, source: str, path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table by column, as the file has them: see `FILES`.

    A list of texts, and a text file with a text a line, are tables with the column `name`.

    Args:
        field: of the experiment, for errors.
        source: what the field says.
        path: of the file.

    Raises:
        UserError: an unknown kind of file, or one that cannot be read.
    """
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            return _read_cells(field, source, _read_text(path), kind)
        if kind == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            _check_once(field, source, table.column_names)
            return table.to_pylist()
        if kind in (".yaml", ".yml"):
            return _rows(field, source, _as_text(read_yaml(_read_text(path))))
        if kind == ".jsonl":
            return _rows(field, source, [json.loads(line) for line in _read_text(path).splitlines() if line.strip()])
        if kind == ".txt":
            return [{"name": line.strip()} for line in _read_text(path).splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(field, source, "is not UTF-8 text; save it as UTF-8") from None
    except csv.Error as error:
        why = "a quote that it opens is never closed" if "end of data" in str(error) else str(error)
        raise UserError(field, source, f"cannot be read ({why})") from None
    except (OSError, json.JSONDecodeError, yaml.YAMLError, ArrowInvalid) as error:
        raise UserError(field, source, f"cannot be read ({describe_error(error)})") from None
    raise UserError(field, source, f"unknown kind of file; use {FILES}")


def plain_text(cell: Any) -> str:
    """Return a cell as text: bytes as UTF-8 if they are, nothing where there is none (NaN to pandas)."""
    if cell is None or cell != cell:  # NaN
        return ""
    return cell.decode() if isinstance(cell, bytes) and not is_binary(cell) else str(cell)


def is_binary(cell: Any) -> bool:
    """Return whether a cell holds bytes that are no text in UTF-8."""
    if not isinstance(cell, bytes):
        return False
    try:
        cell.decode()
    except UnicodeDecodeError:
        return True
    return False


def _read_text(path: Path) -> str:
    return decode_text(path.read_bytes())


def _read_cells(field: str, source: str, text: str, kind: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV or TSV file.

    Where the header has no comma, semicolons or tabs may separate cells, as spreadsheets write them. Blanks before a
    cell mean nothing, nor do capitals in the names of columns that raysd knows.
    """
    header = text.partition("\n")[0]
    separator = "\t" if kind == ".tsv" else next((mark for mark in ",;\t" if mark in header), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    columns = [name.strip() for name in reader.fieldnames or []]
    columns = [name.lower() if name.lower() in KNOWN_COLUMNS else name for name in columns]
    _check_once(field, source, columns)
    reader.fieldnames = columns
    rows: list[dict[str, Any]] = list(reader)
    for number, row in enumerate(rows):
        if None in row:
            raise UserError(
                field, source, f"row {number + 1} has more cells than the header; put cells with commas in quotes"
            )
        if broken := next((name for name in ON_ONE_LINE if len((row.get(name) or "").splitlines()) > 1), None):
            raise UserError(
                f"{field}.{broken}",
                row[broken],
                f"row {number + 1} of {source} goes over several lines; close the quote that it opens",
            )
    return rows


def _check_once(field: str, source: str, columns: list[str]) -> None:
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise UserError(field, source, f"has two columns {twice!r}; rename one")


def _as_text(value: Any) -> Any:
    """Return what a YAML file holds, with its own characters in the place of numbers and truth values."""
    if isinstance(value, Plain):
        return None if value.value is None else value.text
    if isinstance(value, dict):
        return {key: _as_text(inner) for key, inner in value.items()}
    return [_as_text(inner) for inner in value] if isinstance(value, list) else value


def _rows(field: str, source: str, items: Any) -> list[dict[str, Any]]:
    if not isinstance(items, list):
        raise UserError(field, source, "must hold a list of names or of rows")
    return [item if isinstance(item, dict) else {"name": item} for item in items]
