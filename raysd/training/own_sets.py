"""Real sets of one's own: a Parquet file, a folder, or a data set of the hub."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.frozen_split import half_mask
from raysd.training.library_sources import SAVED, SAVED_DICT, SCHEME, HubSet, hub_source, hub_splits, parse_hub_name
from raysd.training.real_sources import Source, Split, files_key, folder_source, local_path, parquet_source


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
    own = _hub(name, split) if name.startswith(SCHEME) else _local(local_path("real set", name), split)
    halve = halve and not own.is_split

    def rows(source: Source) -> np.ndarray:
        return np.flatnonzero(half_mask(source.labels, split)) if halve else all_rows(source)

    part = split if halve or own.is_split else "whole"
    return WantedSet(f"{own.stem}-{part}", root.child("sets", "own", short_digest(own.stem, part, own.key)), own.open, rows)


def _hub(name: str, split: Split) -> _OwnSource:
    hub, splits = parse_hub_name(name)
    is_split = splits["train"] != splits["test"]
    if is_split and (only := _only_split(hub, splits)) is not None:
        return _hub_split(hub, only, is_split=False)
    return _hub_split(hub, splits[split], is_split)


def _only_split(hub: HubSet, splits: dict[str, str]) -> str | None:
    """The one split of a set, where a usual name is not there and the user has asked for no other; else None."""
    if not any(wanted == split for split, wanted in splits.items()):
        return None
    names = hub_splits(hub)
    fits = len(names) == 1 and all(wanted in (split, names[0]) for split, wanted in splits.items())
    return names[0] if fits else None


def _hub_split(hub: HubSet, split: str, is_split: bool) -> _OwnSource:
    source, key = hub_source(hub, split)
    key = short_digest(hub.id, hub.image, hub.label, str(is_split), key)  # one split is halved under one name and whole under another
    return _OwnSource(hub.id.replace("/", "_"), key, lambda: source, is_split)


def _local(path: Path, split: Split) -> _OwnSource:
    key = files_key(path)
    if path.is_file():
        return _OwnSource(path.stem, key, lambda: parquet_source(path))
    if not _is_data_set(path):
        return _OwnSource(path.stem, key, lambda: folder_source(path))
    hub = HubSet(id=str(path.absolute()))
    chosen = _local_splits(hub)
    return _OwnSource(path.stem, short_digest(hub.image, hub.label, key), lambda: hub_source(hub, chosen[split])[0], chosen["train"] != chosen["test"])


def _local_splits(hub: HubSet) -> dict[Split, str]:
    """Which split of a folder's data set is for training and which is for testing; the same where it has one.

    Raises:
        UserError: it has several, and they do not tell.
    """
    names = hub_splits(hub)
    if len(names) == 1:
        return {"train": names[0], "test": names[0]}
    if {"train", "test"} <= set(names):
        return {"train": "train", "test": "test"}
    if set(names) == {"train", "validation"}:
        return {"train": "train", "test": "validation"}
    remedy = "give it the splits train and test, or train and validation, or one alone"
    raise UserError("real set", hub.id, f"has the splits {', '.join(names) or 'none'}; {remedy}")


def _is_data_set(path: Path) -> bool:
    """True for a folder that holds a Hugging Face data set: Parquet files, or what `save_to_disk` wrote."""
    return any((path / file).is_file() for file in (SAVED, SAVED_DICT)) or any(any(folder.glob("*.parquet")) for folder in (path, path / "data"))


def all_rows(source: Source) -> np.ndarray:
    """int64 [N]."""
    return np.arange(len(source.labels))


def short_digest(*parts: str) -> str:
    """A hash of some texts, 16 hex digits."""
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
