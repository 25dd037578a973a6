"""Result rows: their kinds, and how rows are written and read. `raysd.storage.row_types` says what they hold.

A row is one JSON line in a small file of its own, named by its fingerprint. So a repeated measurement replaces its own
row, writers on many machines never meet, and object stores need no append.

Rows that version 0.1.0 wrote have other names for some keys, and one kind has another folder. They are read as if they
had been written today.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from pyarrow.fs import FileInfo

from raysd.statistics.verdict import verdict_of
from raysd.storage.location import Location
from raysd.storage.row_types.adaptive import AdaptiveRow, RoundRow
from raysd.storage.row_types.measured import AccuracyRow, AnalysisRow, ComparisonRow, FailedRow
from raysd.storage.row_types.rates import RateRow
from raysd.storage.row_types.sweep import RungResult, SweepRow

R = TypeVar("R", bound=Mapping[str, Any])
NUM_THREADS = 16  # they wait for an object store


@dataclass(frozen=True)
class Kind(Generic[R]):
    """A kind of row."""

    name: str
    """Of its folder in `results/`."""
    former_names: tuple[str, ...] = ()
    """Folders in which version 0.1.0 kept such rows."""
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Today's names of keys by those of version 0.1.0, for each part of a row by its dotted name; empty is the row."""
    complete: Callable[[dict[str, Any]], None] | None = None
    """Brings the rest of a row of version 0.1.0 into today's form."""


def _add_verdicts(sweep: dict[str, Any]) -> None:
    """Add the verdicts of effects, from their intervals."""
    for value in (value for effect in sweep.get("effects", ()) for value in effect["values"] if "verdict" not in value):
        value["verdict"] = None if value["low"] is None else verdict_of(value["low"], value["high"])


def _rename_untrained(row: dict[str, Any]) -> None:
    """Give an untrained network today's name, so that it is one setting whenever it was measured."""
    if row.get("trained_on", {}).get("name") == "random initialisation":
        row["trained_on"]["name"] = "random initialization"


ACCURACY: Kind[AccuracyRow] = Kind("accuracy", complete=_rename_untrained)
FAILED: Kind[FailedRow] = Kind("failed")
COMPARISON: Kind[ComparisonRow] = Kind("comparison")
ANALYSIS: Kind[AnalysisRow] = Kind("analysis")
RATE: Kind[RateRow] = Kind("rate")
ROUND: Kind[RoundRow] = Kind("round")
ADAPTIVE: Kind[AdaptiveRow] = Kind("adaptive")
RUNG_RESULT: Kind[RungResult] = Kind(
    "rung_result",
    ("trial",),
    {"": {"pictures": "num_planned", "num_drawn": "num_generated"}, "seconds": {"draw": "generate"}},
)
SWEEP: Kind[SweepRow] = Kind(
    "sweep",
    (),
    {
        "": {"num_drawn": "num_generated", "steps": "rung_results"},
        "seconds": {"draw": "generate"},
        "cost": {"pictures": "num_images", "num_drawn": "num_generated", "draw_seconds": "generate_seconds"},
        "cost.grid": {"pictures": "num_images", "draw_seconds": "generate_seconds"},
    },
    _add_verdicts,
)


def write_row(root: Location, kind: Kind[R], row: R) -> None:
    """Store a row under `results/<kind>/<fingerprint>.json`."""
    if not re.fullmatch(r"[0-9a-f]+", row["fingerprint"]):
        raise ValueError(f"not a fingerprint: {row['fingerprint']!r}")
    root.child("results", kind.name).write(
        f"{row['fingerprint']}.json", json.dumps(row, sort_keys=True, allow_nan=False).encode() + b"\n"
    )


def read_rows(root: Location, kind: Kind[R]) -> list[R]:
    """Return all rows of one kind, in the order of their fingerprints."""
    places = {name: folder for folder in reversed(_folders(root, kind)) for name in folder.list_files(".json")}
    return [_read(folder, name, kind) for name, folder in sorted(places.items())]


def list_rows(root: Location, kind: Kind[R]) -> Iterator[tuple[R, FileInfo]]:
    """Yield all rows of one kind with what the listing says of their files, read by a few threads."""
    found = {
        info.base_name: (folder, info)
        for folder in reversed(_folders(root, kind))
        for info in folder.list_infos(".json")
    }
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        rows = pool.map(lambda each: _read(each[0], each[1].base_name, kind), found.values())
        yield from zip(rows, (info for _, info in found.values()), strict=True)


def find_row(root: Location, kind: Kind[R], fingerprint: str) -> R | None:
    """Return the row with this fingerprint, or None."""
    name = f"{fingerprint}.json"
    return next((_read(folder, name, kind) for folder in _folders(root, kind) if folder.exists(name)), None)


def _folders(root: Location, kind: Kind[R]) -> list[Location]:
    """Return the folders that hold rows of a kind; what is in the first one counts."""
    return [root.child("results", name) for name in (kind.name, *kind.former_names)]


def _read(folder: Location, name: str, kind: Kind[R]) -> R:
    row = json.loads(folder.read(name))
    for part, names in kind.renamed.items():
        row = _renamed(row, part, names)
    if kind.complete is not None:
        kind.complete(row)
    return cast(R, row)


def _renamed(values: dict[str, Any], part: str, names: Mapping[str, str]) -> dict[str, Any]:
    """Return values with the keys of one part under their new names."""
    if not part:
        return {names.get(key, key): value for key, value in values.items()}
    head, _, rest = part.partition(".")
    return {**values, head: _renamed(values[head], rest, names)} if head in values else values
