"""Result rows: one JSON line in one small file per measurement, named by its fingerprint.

So a repeated measurement replaces its own row, writers do not meet, and object stores need no append.
"""

import json
import re
from typing import Any

from raysd.storage.location import Location

Row = dict[str, Any]


def write_result(root: Location, kind: str, row: Row) -> None:
    """Write `row` to `results/<kind>/<row["fingerprint"]>.json`."""
    if not re.fullmatch(r"[0-9a-f]+", row["fingerprint"]):
        raise ValueError(f"not a fingerprint: {row['fingerprint']!r}")
    root.child("results", kind).write(
        f"{row['fingerprint']}.json", json.dumps(row, sort_keys=True, allow_nan=False).encode() + b"\n"
    )


def read_results(root: Location, kind: str) -> list[Row]:
    """Return all rows of one kind, in the order of their fingerprints."""
    folder = root.child("results", kind)
    return [json.loads(folder.read(name)) for name in folder.list_files(".json")]


def find_result(root: Location, kind: str, fingerprint: str) -> Row | None:
    """Return the row with this fingerprint, or None."""
    folder = root.child("results", kind)
    return json.loads(folder.read(f"{fingerprint}.json")) if folder.exists(f"{fingerprint}.json") else None
