"""Real data sets: built-in ones by name, a user's by path or hub name. Each is copied into the storage root once."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from raysd.data.broken import check_images
from raysd.data.catalog import BuiltInSet, built_in_sets, check_offline_set, fashion_mnist_folder, open_built_in
from raysd.data.class_map import AS_SHARED, ClassMatch, count_left_out, match_classes, read_class_map
from raysd.data.folders import folder_source, split_folders
from raysd.data.hub_readers import SAVED, SAVED_DICT, SCHEME, HubSet, hub_source, hub_splits, parse_hub_name
from raysd.data.images import ImageSet, read_labels
from raysd.data.own_name import OnBroken, OwnName, parse_own_name
from raysd.data.parquet import hive_files, parquet_source
from raysd.data.readers import USUAL, Source, Split, files_key
from raysd.data.readers import encode_png as encode_png
from raysd.data.splits import frozen_mask, half_mask
from raysd.data.store import find_set, write_set
from raysd.data.store import image_table as image_table
from raysd.errors import UserError
from raysd.progress import say
from raysd.prompts.table import ClassTable
from raysd.storage.address import local_path
from raysd.storage.location import Location

HUB_NAME = re.compile(r"(?:https?://huggingface\.co/datasets/)?([\w.-]+/[\w.-]+?)/?(?:/tree/.*)?", re.ASCII)
FOLDER_READER = "every suffix, folders in folders"
"""What the reader of folders takes for images. A set that was brought in by another rule is brought in again."""


@dataclass(frozen=True)
class WantedSet:
    """A split of a set: its folder in the storage root, and the source of its images if it is not there."""

    name: str
    folder: Location
    open: Callable[[], Source]
    rows: Callable[[Source], np.ndarray]
    """Function that returns the images of the source that belong to the split, int64 [n]."""
    one_file: bool = False
    on_broken: OnBroken | None = None
    """What happens to an image that cannot be decoded; None for a built-in set, which must be whole."""


@dataclass(frozen=True)
class _OwnSource:
    stem: str
    key: str
    """Hash that changes with the source."""
    open: Callable[[], Source]
    is_split: bool = False
    """Whether the set has training and test splits."""
    on_broken: OnBroken = "error"

    @property
    def full_key(self) -> str:
        """The key, apart for a set that may lack images."""
        return self.key if self.on_broken == "error" else short_digest(self.on_broken, self.key)


def own_set(name: str, split: Split, root: Location, halve: bool) -> WantedSet:
    """Return a user's set by path or hub name; whole, unless it has splits or `halve` cuts it in two frozen halves.

    Raises:
        UserError: the set cannot be opened.
    """
    own = _hub(name, split) if name.startswith(SCHEME) else _own(parse_own_name("real data set", name), split)
    halve = halve and not own.is_split

    def rows(source: Source) -> np.ndarray:
        return np.flatnonzero(half_mask(source.labels, split)) if halve else all_rows(source)

    part = split if halve or own.is_split else "whole"
    folder = root.child("sets", "own", short_digest(own.stem, part, own.full_key))
    return WantedSet(f"{own.stem}-{part}", folder, own.open, rows, on_broken=own.on_broken)


def _hub(name: str, split: Split) -> _OwnSource:
    hub, splits = parse_hub_name(name)
    is_split = splits["train"] != splits["test"]
    if is_split and (only := _only_split(hub, splits)) is not None:
        return _hub_split(hub, only, is_split=False)
    return _hub_split(hub, splits[split], is_split)


def _only_split(hub: HubSet, splits: dict[str, str]) -> str | None:
    """Return the one split of a set that lacks a usual split, if the user asks for no other; else None."""
    if not any(wanted == split for split, wanted in splits.items()):
        return None
    names = hub_splits(hub)
    fits = len(names) == 1 and all(wanted in (split, names[0]) for split, wanted in splits.items())
    return names[0] if fits else None


def _hub_split(hub: HubSet, split: str, is_split: bool) -> _OwnSource:
    source, key = hub_source(hub, split)
    # One split may be halved under one name and whole under another.
    key = short_digest(hub.id, hub.image, hub.label, str(is_split), key)
    return _OwnSource(hub.id.replace("/", "_"), key, lambda: source, is_split, hub.on_broken)


def _own(name: OwnName, split: Split) -> _OwnSource:
    return replace(_local(name, split), on_broken=name.on_broken)


def _local(name: OwnName, split: Split) -> _OwnSource:
    path, columns = name.path, name.columns
    key = files_key(path)
    if path.is_file() or (path.is_dir() and not _is_data_set(path) and hive_files(path)):
        own = [] if columns == USUAL and path.is_file() else [columns.image, columns.label]
        return _OwnSource(path.stem, short_digest(*own, key) if own else key, lambda: parquet_source(path, columns))
    if not _is_data_set(path):
        if columns != USUAL:
            shown = f"{path}?image={columns.image}&label={columns.label}"
            remedy = "is a folder of images, which has no columns; leave image and label out"
            raise UserError("real data set", shown, remedy)
        return _folder(path, split, key)
    hub = HubSet(id=str(path.absolute()), image=columns.image, label=columns.label)
    chosen = _chosen_splits(hub.id, hub_splits(hub))
    return _OwnSource(
        path.stem,
        short_digest(hub.image, hub.label, key),
        lambda: hub_source(hub, chosen[split])[0],
        chosen["train"] != chosen["test"],
    )


def _folder(path: Path, split: Split, key: str) -> _OwnSource:
    """Return a set of class folders, or of split folders with class folders in them."""
    key = short_digest(FOLDER_READER, key)
    folders = split_folders(path)
    if not folders:
        return _OwnSource(path.stem, key, lambda: folder_source(path))
    chosen = _chosen_splits(str(path), list(folders))
    return _OwnSource(
        path.stem,
        key,
        lambda: folder_source(path / folders[chosen[split]]),
        chosen["train"] != chosen["test"],
    )


def _chosen_splits(name: str, names: list[str]) -> dict[Split, str]:
    """Return the splits for training and testing of a data set in a folder; the same one where it has only one.

    Raises:
        UserError: the data set has several splits with unknown roles.
    """
    if len(names) == 1:
        return {"train": names[0], "test": names[0]}
    if {"train", "test"} <= set(names):
        return {"train": "train", "test": "test"}
    if set(names) == {"train", "validation"}:
        return {"train": "train", "test": "validation"}
    remedy = "give it the splits train and test, or train and validation, or one alone"
    raise UserError("real data set", name, f"has the splits {', '.join(names) or 'none'}; {remedy}")


def _is_data_set(path: Path) -> bool:
    """Return whether a folder holds a Hugging Face data set: Parquet files, or what `save_to_disk` wrote."""
    return any((path / file).is_file() for file in (SAVED, SAVED_DICT)) or any(
        any(folder.glob("*.parquet")) for folder in (path, path / "data")
    )


def all_rows(source: Source) -> np.ndarray:
    """Return the numbers of all images of a source, int64 [N]."""
    return np.arange(len(source.labels))


def short_digest(*parts: str) -> str:
    """Return a hash of some texts, 16 hex digits."""
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


SAMPLE = Path(__file__).parent.parent / "assets" / "fashion_mnist"


def real_dataset(
    name: str,
    split: Split,
    root: Location,
    images_per_class: int | None = None,
    table: ClassTable | None = None,
    from_end: bool = False,
    halve: bool = False,
    path: str | None = None,
    shared_classes: bool | None = None,
    class_map: str | None = None,
) -> ImageSet:
    """Return a real data set as images that training and evaluation read.

    Args:
        name: a built-in set, a Parquet file with columns `image` and `label`, a folder with one folder of images per
            class, a folder that holds a Hugging Face data set, or `hf://datasets/<owner>/<name>`.
        split: the part of a built-in set or of a hub set; a path is taken whole unless `halve` is set.
        root: the storage root; the set is kept in its `sets` folder.
        images_per_class: number of images to take from each class; all when None.
        table: the classes to which the set's labels are matched by name or key.
        from_end: whether to take the last images of each class, not the first.
        halve: whether to split a path in two frozen halves, for training and testing a probe.
        path: the folder of a built-in set on this machine, if it cannot or shall not be fetched.
        shared_classes: whether to leave out images of classes that the table does not have; when None, the built-in
            set decides.
        class_map: a JSON file that maps each class of the set to a class of the table.

    Raises:
        UserError: no such set or split, classes that are not in the table, or too few images.
    """
    entry = built_in_sets().get(name)
    if path is not None and entry is None:
        raise _needless_path("path", path, name)
    if entry is None or path is not None:
        check_real_dataset("real data set", name, path)
    if class_map is not None:
        read_class_map(class_map)
    elif table is not None and entry is not None and entry.needs_class_map:
        raise UserError(
            "class_map",
            None,
            f"{name} needs one, its class names are not those of the class table; see docs/real_data_sets.md",
        )
    wanted = own_set(name, split, root, halve) if entry is None else _built_in(name, entry, split, root, path)
    fingerprint = find_set(wanted.folder)
    if fingerprint is None:
        check_real_dataset("real data set", name, path)
        source = wanted.open()
        rows = wanted.rows(source)
        if len(rows) == 0:
            remedy = "holds no images; give images as .png or .jpg files in one folder per class, or a Parquet file"
            raise UserError("real data set", name, remedy)
        fingerprint = _bring_in(name, wanted, source, rows)
    images = ImageSet(wanted.name, fingerprint, wanted.folder, images_per_class, from_end, about={"kind": "real"})
    shared = entry is not None and entry.shared_classes if shared_classes is None else shared_classes
    try:
        return _checked(images, table, shared, class_map)
    except UserError as error:  # of a set by path, the user knows the path
        given = name if error.value == images.name and entry is None else error.value
        raise UserError(error.field, given, error.remedy) from None


def _checked(images: ImageSet, table: ClassTable | None, shared: bool, class_map: str | None) -> ImageSet:
    """Return a set matched to the classes of a table, if there is one.

    Raises:
        UserError: classes that are not in the table, or too few images.
    """
    if table is not None:
        images = _matched(images, match_classes(images, table, shared, class_map))
        if class_map is None and not shared:
            _check_classes(images, table)
    _check_counts(images)
    return images


def _bring_in(name: str, wanted: WantedSet, source: Source, rows: np.ndarray) -> str:
    """Check the images of a set, and write them into the storage root; return their fingerprint."""
    if source.is_made_here:
        return write_set(wanted.folder, source, rows, wanted.one_file)
    checked = check_images(name, source, rows, wanted.on_broken)
    return write_set(wanted.folder, source, checked.rows, wanted.one_file, checked.is_read_as_before)


def _matched(images: ImageSet, match: ClassMatch) -> ImageSet:
    about = images.about | count_left_out(images, match.label_map)
    return replace(images, label_map=match.label_map, groups=match.groups, about=about)


def _built_in(name: str, entry: BuiltInSet, split: Split, root: Location, path: str | None) -> WantedSet:
    if not entry.has(split):
        raise UserError(
            "real data set", name, f"has no {split} images, only {', '.join(entry.splits)} ones; choose another set"
        )
    if name == "fashion_mnist" and fashion_mnist_folder() is None:
        sample = f"fashion_mnist_sample-{split}"
        return WantedSet(
            sample,
            root.child("sets", sample),
            lambda: replace(parquet_source(SAMPLE / f"{split}.parquet"), is_made_here=True),
            all_rows,
            one_file=True,
        )

    def opened() -> Source:
        if entry.download and path is None:
            facts = f"{entry.download}, license: {entry.license}, {entry.url}"
            say(f"{name}: {facts}; fetched unless it is on this machine")
        return open_built_in(name, split, None if path is None else local_path("path", path))

    def chosen(source: Source) -> np.ndarray:
        rows = all_rows(source) if entry.frozen is None else np.flatnonzero(frozen_mask(entry.frozen, source, split))
        published = entry.images.get(split)
        remedy = "unpack it again, whole" if entry.by_hand else "fetch it again"
        if published is not None and entry.source.offline is None and len(rows) != published:
            raise UserError(
                "real data set", name, f"has {len(rows):,} {split} images, {published:,} were published; {remedy}"
            )
        if entry.source.folder and (there := len(np.unique(source.labels[rows]))) != entry.classes:
            raise UserError(
                "real data set",
                name,
                f"has {split} images of {there:,} classes, {entry.classes:,} were published; {remedy}",
            )
        return rows

    # A published set never changes; a folder that was filled by hand may.
    folder = root.child("sets", f"{name}-{split}")
    if path is not None and entry.source.folder:
        folder = root.child("sets", "own", short_digest(name, split, files_key(local_path("path", path))))
    return WantedSet(f"{name}-{split}", folder, opened, chosen, one_file=entry.source.offline is not None)


def _check_classes(images: ImageSet, table: ClassTable) -> None:
    """Check that each class of the table has an image.

    Raises:
        UserError: a class has none.
    """
    there = set(images.to_labels(read_labels(images)).tolist())
    there |= {label for group in images.groups if there & set(group) for label in group}
    missing = [key for label, key in enumerate(table.keys) if label not in there]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        what = f"has no image of {len(missing):,} of the {len(table):,} classes: {shown}"
        remedy = f"if it is a test set and shall lack them, give it as {AS_SHARED}, or with a class_map"
        raise UserError("real data set", images.name, f"{what}; add images, or {remedy}")


def _check_counts(images: ImageSet) -> None:
    labels = read_labels(images)
    labels = labels[images.to_labels(labels) >= 0]
    if len(labels) == 0:
        raise UserError(
            "real data set", images.name, "has no image of a class of the class table; check names, or give a class map"
        )
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    if isinstance(images.images_per_class, int) and fewest < images.images_per_class:
        remedy = f"has a class of only {fewest} images, {images.images_per_class} are wanted; ask for fewer"
        raise UserError(
            "real data set", images.name, remedy + (" or install the full set" if "sample" in images.name else "")
        )


def check_real_dataset(field: str, name: str, path: str | None = None, class_map: str | None = None) -> None:
    """Check early that a set can be read.

    Raises:
        UserError: neither a built-in set, a path nor a hub name; a set that must be fetched by hand, and no path; a
            missing package; or a class map that cannot be read.
    """
    if class_map is not None:
        read_class_map(class_map, field.removesuffix(".name") + ".class_map")
    entry = built_in_sets().get(name)
    if entry is None and path is not None:
        raise _needless_path(field.removesuffix(".name") + ".path", path, name)
    if entry is not None:
        if path is not None and entry.source.offline is not None:
            raise UserError(field, name, "comes with a package; leave path out")
        path_field = field.removesuffix(".name") + ".path"
        if path is not None and not local_path(path_field, path).exists():
            raise UserError(path_field, path, f"is not there; give the folder or file that holds {name}")
        if path is None and entry.by_hand:
            raise UserError(
                field,
                name,
                f"cannot be fetched ({entry.download}, license: {entry.license}, {entry.url}); unpack it and set path",
            )
        if entry.source.offline is not None:
            check_offline_set(field, name)
    elif name.startswith(SCHEME):
        parse_hub_name(name)
    elif not parse_own_name(field, name).path.exists():
        close = get_close_matches(name, built_in_sets(), n=3)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"use one of {', '.join(list(built_in_sets())[:5])}, ... (docs/real_data_sets.md),"
        )
        kinds = f"or give a Parquet file, or a folder with one folder per class{_hub_hint(name)}"
        raise UserError(field, name, f"no such set; {hint} {kinds}")


def _needless_path(field: str, path: str, name: str) -> UserError:
    return UserError(field, path, f"is for built-in sets, and {name!r} is none; give the path as the name")


def _hub_hint(name: str) -> str:
    """Return how a data set of the hub is named, where an address or `owner/name` was given."""
    if found := HUB_NAME.fullmatch(name):
        return f"; of the hub: {SCHEME}{found[1]}"
    return f"; of the hub: {SCHEME}<owner>/<name>" if "://" in name else ""
