"""Real sets of one's own: a Parquet file, a folder, or a data set of the hub."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysd.storage.location import Location
from raysd.training.frozen_split import half_mask
from raysd.training.library_sources import SAVED, SAVED_DICT, SCHEME, HubSet, hub_source, hub_splits, parse_hub_name
from raysd.training.real_sources import Source, Split, files_key, folder_source, parquet_source


@dataclass(frozen=True)
class WantedSet:
    """A split of a set: where it is kept, and how its pictures are had if it is not there."""

    name: str
    folder: Location
    open: Callable[[], Source]
    rows: Callable[[Source], np.ndarray]
    """Which pictures of the source belong to the split, int64 [n]."""
    one_file: bool = False


@dataclass(frozen=True)
class _OwnSource:
    stem: str
    key: str
    """Changes when the source does."""
    open: Callable[[], Source]
    is_split: bool = False
    """It has a training and a test split of its own."""


def own_set(name: str, split: Split, root: Location, halve: bool) -> WantedSet:
    """A set of one's own, by path or hub name; whole, unless it has splits or is to be cut in two frozen halves.

    Raises:
        UserError: it cannot be opened.
    """
    own = _hub(name, split) if name.startswith(SCHEME) else _local(Path(name).expanduser(), split)
    halve = halve and not own.is_split

    def rows(source: Source) -> np.ndarray:
        return np.flatnonzero(half_mask(source.labels, split)) if halve else all_rows(source)

    part = split if halve or own.is_split else "whole"
    return WantedSet(f"{own.stem}-{part}", root.child("sets", "own", short_digest(own.stem, part, own.key)), own.open, rows)


def _hub(name: str, split: Split) -> _OwnSource:
    hub, splits = parse_hub_name(name)
    source, key = hub_source(hub, splits[split])
    return _OwnSource(hub.id.replace("/", "_"), key, lambda: source, splits["train"] != splits["test"])


def _local(path: Path, split: Split) -> _OwnSource:
    key = files_key(path)
    if path.is_file():
        return _OwnSource(path.stem, key, lambda: parquet_source(path))
    if not _is_data_set(path):
        return _OwnSource(path.stem, key, lambda: folder_source(path))
    hub = HubSet(id=str(path))
    names = hub_splits(hub)
    is_split = {"train", "test"} <= set(names)
    return _OwnSource(path.stem, key, lambda: hub_source(hub, split if is_split else names[0])[0], is_split)


def _is_data_set(path: Path) -> bool:
    """True for a folder that holds a Hugging Face data set: Parquet files, or what `save_to_disk` wrote."""
    return any((path / file).is_file() for file in (SAVED, SAVED_DICT)) or any(any(folder.glob("*.parquet")) for folder in (path, path / "data"))


def all_rows(source: Source) -> np.ndarray:
    """int64 [N]."""
    return np.arange(len(source.labels))


def short_digest(*parts: str) -> str:
    """A hash of some texts, 16 hex digits."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
