"""The command that lists what a storage holds."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raysd.config import ExperimentLike, load_experiment
from raysd.errors import UserError
from raysd.formats import byte_size
from raysd.storage import rows
from raysd.storage.location import Location

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

NUM_THREADS = 16  # they wait for an object store
KINDS: tuple[rows.Kind[Any], ...] = (
    rows.SWEEP,
    rows.RUNG_RESULT,
    rows.ACCURACY,
    rows.COMPARISON,
    rows.ANALYSIS,
    rows.RATE,
)


@dataclass(frozen=True)
class ListedItem:
    """A clone, a classifier or a result in a storage."""

    fingerprint: str
    """Of what shaped it; the name of its folder or file."""
    name: str
    """What it is, in a few words."""
    when: str
    """Time at which it was finished or, while it is not, of the last change: UTC, as ISO 8601."""
    num_bytes: int
    path: str
    """The folder or file: a path, or a URI in an object store."""


@dataclass(frozen=True)
class ListedClone(ListedItem):
    """A clone in a storage."""

    num_images: int | None
    """None while it is not complete."""
    num_shards: int
    """Files that are there."""


@dataclass(frozen=True)
class ListedClassifier(ListedItem):
    """A trained classifier in a storage."""

    backbone: str
    seed: int


@dataclass(frozen=True)
class ListedResult(ListedItem):
    """A result row in a storage."""

    kind: str
    """`sweep`, `rung_result`, `accuracy`, `comparison`, `analysis` or `rate`."""
    value: str
    """The row's main number, in words; empty where it has none."""


@dataclass(frozen=True)
class StorageListing:
    """What a storage holds; of each kind, the oldest first."""

    storage: str
    clones: tuple[ListedClone, ...]
    classifiers: tuple[ListedClassifier, ...]
    results: tuple[ListedResult, ...]

    def lines(self) -> list[str]:
        """Return all of it as lines of aligned columns."""
        return [
            f"storage {self.storage}",
            *_table("clones", self.clones, {"num_images": "images", "num_shards": "files"}),
            *_table("classifiers", self.classifiers, {"backbone": "backbone", "seed": "seed"}),
            *_table("results", self.results, {"kind": "kind", "value": "value"}),
        ]


def _table(title: str, items: Sequence[ListedItem], columns: dict[str, str]) -> list[str]:
    if not items:
        return [f"{title}: none"]
    rows = [["when", "fingerprint", "size", *columns.values(), "name"]]
    for item in items:
        own = [_cell(getattr(item, field)) for field in columns]
        when = item.when.replace("T", " ").removesuffix("Z")[:16]
        rows.append([when, item.fingerprint, byte_size(item.num_bytes), *own, item.name])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [f"{title}: {len(items):,}", *(("  " + "  ".join(row)).rstrip() for row in cells)]


def _cell(value: object) -> str:
    if value is None:
        return "unfinished"
    return f"{value:,}" if isinstance(value, int) else str(value)


def list_storage(experiment: ExperimentLike = None, **values: Any) -> StorageListing:
    """List the clones, the classifiers and the results in an experiment's storage.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        values: keys of the experiment file, as `storage="s3://bucket/runs"`; merged into `experiment`.

    Raises:
        UserError: the storage cannot be read.
    """
    root = load_experiment(experiment, **values).root
    try:
        if root.is_file_itself():
            raise UserError("storage", root.uri, "is a file; give the folder that holds clones and results")
        return StorageListing(
            root.uri,
            tuple(_items(root.child("clones"), _clone)),
            tuple(_items(root.child("classifiers"), _classifier)),
            tuple(_by_time(result for kind in KINDS for result in _results(root, kind))),
        )
    except OSError as error:
        raise UserError("storage", root.uri, f"cannot be read ({error}); give one that you may read") from None


def _items(folder: Location, read: "Callable[[Location, str], ListedItem | None]") -> list[Any]:
    """Return what the folders in a folder hold, read by a few threads."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        found = list(pool.map(lambda name: read(folder.child(name), name), folder.list_folders()))
    return _by_time(item for item in found if item is not None)


def _by_time(items: Iterator[Any]) -> list[Any]:
    return sorted(items, key=lambda item: (item.when, item.fingerprint))


def _clone(folder: Location, name: str) -> ListedClone | None:
    from raysd.clone.clone import RECORD, CloneRecord
    from raysd.clone.shard import DATA

    files = {info.base_name: info for info in folder.list_infos()}
    if RECORD not in files:
        return None
    record = CloneRecord.from_json(folder.read(RECORD), 0)
    shards = folder.child(DATA).list_sizes(".parquet")
    return ListedClone(
        name,
        _clone_name(record.spec),
        (record.complete and record.written) or _time(files[RECORD]),
        sum(shards.values()) + sum(info.size for info in files.values()),
        folder.uri,
        record.num_images if record.complete else None,
        len(shards),
    )


def _clone_name(spec: dict[str, Any]) -> str:
    """Return what a clone is, in a few words; version 0.1.0 wrote the same keys."""
    names = [str(spec.get(key, "?")) for key in ("model", "variant_name")]
    scale = spec.get("guidance_scale")
    parts = [f"{len(spec.get('classes', []))} classes", *names, *([] if scale is None else [f"g={scale:g}"])]
    return ", ".join([*parts, f"seed {spec.get('seed', 0)}"])


def _classifier(folder: Location, name: str) -> ListedClassifier | None:
    import json

    from raysd.classifier.architecture import CONFIG, RECORD

    files = {info.base_name: info for info in folder.list_infos()}
    if RECORD not in files:
        return None
    record = json.loads(folder.read(RECORD))
    config = json.loads(folder.read(CONFIG)) if CONFIG in files else {}
    return ListedClassifier(
        name,
        record.get("trained_on", {}).get("name", "?"),
        _time(files[RECORD]),
        sum(info.size for info in files.values()),
        folder.uri,
        config.get("architecture", "?"),
        record.get("seed", 0),
    )


def _results(root: Location, kind: rows.Kind[Any]) -> Iterator[ListedResult]:
    for row, info in rows.list_rows(root, kind):
        name, value = _described(kind.name, row)
        path = root.child("results", kind.name).uri
        yield ListedResult(row["fingerprint"], name, row.get("date") or _time(info), info.size, path, kind.name, value)


def _described(kind: str, row: dict[str, Any]) -> tuple[str, str]:
    """Return what a row is about, and its main number."""
    if kind == rows.SWEEP.name:
        return row["name"], f"best {row['best']['label']} {row['best']['score']:.1f} %"
    if kind == rows.RUNG_RESULT.name:
        score = "failed" if row["score"] is None else f"{row['score']:.1f} %"
        name = f"{row['label']}, {row['images_per_class']:,} images a class"
        return f"{name}, confirmed" if row.get("confirmed") else name, score
    if kind == rows.ACCURACY.name:
        return f"{row['trained_on']['name']}, seed {row['seed']}, on {row['dataset']}", f"{row['value']:.1f} %"
    if kind == rows.COMPARISON.name:
        return f"two settings on {row['dataset']}", f"{row['difference']:+.2f} points, {row['verdict']}"
    if kind == rows.RATE.name:
        return row["device"], f"{row['images_per_second']:.3g} images/s"
    what = row["trained_on"]["name"] if row["kind"] == "features" else " against ".join(row["datasets"])
    return f"{what}, seed {row['seed']}", ""


def _time(info: "FileInfo") -> str:
    when = info.mtime or datetime.fromtimestamp(0, UTC)
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
