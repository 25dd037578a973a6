"""Real picture sets: built-in ones by name, and one's own by path or hub name. Each is brought into the storage root, once."""

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from raysd.clone.scores import Reference
from raysd.clone.thumbnails import thumbnail
from raysd.errors import UserError
from raysd.progress import say
from raysd.prompts.table import ClassTable
from raysd.storage.location import Location
from raysd.training.catalogue import BuiltInSet, built_in_sets, open_built_in
from raysd.training.class_match import ClassMatch, count_left_out, match_classes, read_class_map
from raysd.training.fashion_mnist import fashion_mnist_folder
from raysd.training.frozen_split import frozen_mask
from raysd.training.library_sources import SCHEME, parse_hub_name
from raysd.training.offline_sets import check_offline_set
from raysd.training.own_sets import WantedSet, all_rows, own_set, short_digest
from raysd.training.pictures import UNDECODABLE, PictureSet, read_labels
from raysd.training.real_sources import Source, files_key, local_path, parquet_source
from raysd.training.real_sources import Split as Split
from raysd.training.real_sources import encode_png as encode_png
from raysd.training.stored_set import find_set, write_set
from raysd.training.stored_set import picture_table as picture_table

SAMPLE = Path(__file__).parent.parent / "assets" / "fashion_mnist"


def real_set(
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
) -> PictureSet:
    """A real set as pictures that training and evaluation read.

    Args:
        name: a built-in set, a Parquet file with columns `image` and `label`, a folder with one folder of pictures per class, a folder that
            holds a Hugging Face data set, or `hf://datasets/<owner>/<name>`.
        split: which part of a built-in set, or of one of the hub; a path is taken whole unless `halve` is set.
        root: the storage root; the set is kept in its `sets` folder.
        images_per_class: only so many of each class.
        table: the classes that the labels must mean; the set's own labels are mapped to them by name or key.
        from_end: take the last pictures of each class, not the first.
        halve: split a path in two frozen halves, for training and testing a probe.
        path: where a built-in set lies on this machine, if it cannot or shall not be fetched.
        shared_classes: leave out the pictures of classes that the table does not have; when None, as the built-in set says, else not.
        class_map: a JSON file that says which class of the table each class of the set is.

    Raises:
        UserError: no such set or split, classes that the table does not have, or too few pictures.
    """
    entry = built_in_sets().get(name)
    if path is not None and entry is None:
        raise UserError("path", path, f"is for built-in sets, and {name!r} is none; give the path as the name")
    if entry is None or path is not None:
        check_real_set("real set", name, path)
    if class_map is not None:
        read_class_map(class_map)
    elif table is not None and entry is not None and entry.needs_class_map:
        raise UserError("class_map", None, f"{name} needs one, its class names are not those of the class table; docs/real_sets.md tells its form")
    wanted = own_set(name, split, root, halve) if entry is None else _built_in(name, entry, split, root, path)
    fingerprint = find_set(wanted.folder)
    if fingerprint is None:
        check_real_set("real set", name, path)
        source = wanted.open()
        rows = wanted.rows(source)
        if len(rows) == 0:
            raise UserError("real set", name, "holds no pictures")
        fingerprint = write_set(wanted.folder, source, rows, wanted.one_file)
    pictures = PictureSet(wanted.name, fingerprint, wanted.folder, images_per_class, from_end, about={"kind": "real"})
    if table is not None:
        shared = entry is not None and entry.shared_classes if shared_classes is None else shared_classes
        pictures = _matched(pictures, match_classes(pictures, table, shared, class_map))
    _check_counts(pictures)
    return pictures


def _matched(pictures: PictureSet, match: ClassMatch) -> PictureSet:
    about = pictures.about | count_left_out(pictures, match.label_map)
    return replace(pictures, label_map=match.label_map, groups=match.groups, about=about)


def _built_in(name: str, entry: BuiltInSet, split: Split, root: Location, path: str | None) -> WantedSet:
    if not entry.has(split):
        raise UserError("real set", name, f"has no {split} pictures, only {', '.join(entry.splits)} ones; choose another set")
    if name == "fashion_mnist" and fashion_mnist_folder() is None:
        sample = f"fashion_mnist_sample-{split}"
        return WantedSet(sample, root.child("sets", sample), lambda: parquet_source(SAMPLE / f"{split}.parquet"), all_rows, one_file=True)

    def opened() -> Source:
        if entry.download and path is None:
            say(f"{name}: {entry.download}, licence: {entry.licence}, {entry.url}; fetched unless it is on this machine")
        return open_built_in(name, split, None if path is None else local_path("path", path))

    def chosen(source: Source) -> np.ndarray:
        rows = all_rows(source) if entry.frozen is None else np.flatnonzero(frozen_mask(entry.frozen, source, split))
        published = entry.pictures.get(split)
        remedy = "unpack it again, whole" if entry.by_hand else "fetch it again"
        if published is not None and entry.source.offline is None and len(rows) != published:
            raise UserError("real set", name, f"has {len(rows):,} {split} pictures, {published:,} were published; {remedy}")
        if entry.source.folder and (there := len(np.unique(source.labels[rows]))) != entry.classes:
            raise UserError("real set", name, f"has {split} pictures of {there:,} classes, {entry.classes:,} were published; {remedy}")
        return rows

    folder = root.child("sets", f"{name}-{split}")  # what others publish never changes; a folder that was filled by hand may
    if path is not None and entry.source.folder:
        folder = root.child("sets", "own", short_digest(name, split, files_key(local_path("path", path))))
    return WantedSet(f"{name}-{split}", folder, opened, chosen, one_file=entry.source.offline is not None)


def _check_counts(pictures: PictureSet) -> None:
    labels = read_labels(pictures)
    labels = labels[pictures.to_labels(labels) >= 0]
    if len(labels) == 0:
        raise UserError("real set", pictures.name, "has no picture of a class of the class table; check names, or give a class map")
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    if isinstance(pictures.images_per_class, int) and fewest < pictures.images_per_class:
        remedy = f"has a class of only {fewest} pictures, {pictures.images_per_class} are wanted; ask for fewer"
        raise UserError("real set", pictures.name, remedy + (" or install the full set" if "sample" in pictures.name else ""))


def read_reference(pictures: PictureSet) -> Reference:
    """A set's thumbnails, for a comparison with a clone.

    Raises:
        UserError: a picture that cannot be decoded.
    """
    thumbnails: list[bytes] = []
    for file in pictures.files():
        for image in pictures.read_rows(file)["image"].to_pylist():
            try:
                thumbnails.append(thumbnail(image["bytes"]))
            except UNDECODABLE as error:
                reason = f"picture {len(thumbnails)} cannot be decoded ({error}); repair or remove it"
                raise UserError("real set", pictures.name, reason) from None
    return Reference(pictures.name, pictures.fingerprint, tuple(thumbnails))


def check_real_set(field: str, name: str, path: str | None = None, class_map: str | None = None) -> None:
    """Say early that a set cannot be had.

    Raises:
        UserError: neither a built-in set, a path nor a hub name; one that must be fetched by hand, and no path; a package that is missing; or a
            class map that cannot be read.
    """
    if class_map is not None:
        read_class_map(class_map, field.removesuffix(".name") + ".class_map")
    entry = built_in_sets().get(name)
    if entry is not None:
        if path is not None and entry.source.offline is not None:
            raise UserError(field, name, "comes with a package; leave path out")
        path_field = field.removesuffix(".name") + ".path"
        if path is not None and not local_path(path_field, path).exists():
            raise UserError(path_field, path, f"is not there; give the place where {name} lies")
        if path is None and entry.by_hand:
            raise UserError(field, name, f"cannot be fetched ({entry.download}, licence: {entry.licence}, {entry.url}); unpack it and set path")
        if entry.source.offline is not None:
            check_offline_set(field, name)
    elif name.startswith(SCHEME):
        parse_hub_name(name)
    elif not local_path(field, name).exists():
        close = get_close_matches(name, built_in_sets(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(list(built_in_sets())[:5])}, ... (docs/real_sets.md),"
        raise UserError(field, name, f"no such set; {hint} or give a Parquet file, or a folder with one folder per class")
