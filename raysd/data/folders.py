"""Folders of images: one folder per class, or one per split with the classes in it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from raysd.data.readers import Source, file_source
from raysd.errors import UserError
from raysd.progress import say

NOISE = {"__macosx", "thumbs.db", "desktop.ini", "metadata.jsonl", "metadata.csv"}
"""What systems and `datasets` put into folders; it counts as nothing, as hidden files and folders do."""
STUBS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows by name, and decodes only with another program."""
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Names of folders that are splits, as `datasets` reads them."""
SHOWN = 5


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of all image files that Pillow opens, in lower case."""
    formats = Image.registered_extensions()
    return frozenset(suffix.lower() for suffix, name in formats.items() if name in Image.OPEN and name not in STUBS)


@dataclass
class _Found:
    """The files of a folder, as paths from it."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def folder_source(path: Path, by_number: bool = False) -> Source:
    """Open a folder with one folder of images per class; both are sorted by name.

    Every file that Pillow opens is an image, also in folders within a class. Other files are left out, and one line
    says how many.

    Args:
        path: the folder.
        by_number: whether folder names are class numbers and are sorted as such, so that `10` comes after `9`.

    Raises:
        UserError: no such folder, a class folder whose name is no number, or two of one number.
    """
    if not path.is_dir():
        raise UserError(
            "real data set", str(path), "is no folder; give the folder that holds one folder of images per class"
        )
    names = _folders(path)
    if by_number:
        if wrong := [name for name in names if not name.isdecimal()]:
            raise UserError(
                "real data set",
                str(path),
                f"its folder {wrong[0]} is no class number; give the folder with the folders 0, 1, 2, ...",
            )
        names.sort(key=int)
        if len({int(name) for name in names}) < len(names):
            raise UserError("real data set", str(path), "has two folders of one class number; remove one")
    files, labels = [], []
    others = [entry.name for entry in sorted(path.iterdir()) if not _is_noise(entry.name) and not entry.is_dir()]
    for label, name in enumerate(names):
        found = _find_files(path / name)
        files += [f"{path / name}/{file}" for file in found.images]
        labels += [label] * len(found.images)
        others += [f"{name}/{file}" for file in found.others]
    if others:
        shown = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
        text = f"{path}: {len(others):,} files that are no images of a class are left out: {shown}"
        say(text.encode("utf-8", "backslashreplace").decode())
    return file_source(path.name, files, np.array(labels, dtype=np.int64), names)


def split_folders(path: Path) -> dict[str, str]:
    """Return the folders that are splits by the split's name: `train`, `validation` or `test`; empty where the folders
    are classes.

    A folder is a split if its name is that of one, and it holds folders with images and no image itself.

    Raises:
        UserError: two folders of one split, or splits beside other folders with images.
    """
    with_images = [name for name in _folders(path) if next(_walk(path / name), None) is not None]
    splits = [name for name in with_images if name.lower() in SPLITS and _holds_classes(path / name)]
    others = [name for name in with_images if name not in splits]
    if not splits or (len(splits) == 1 and others):
        return {}
    if others:
        remedy = f"has the splits {', '.join(splits)} and also the folder {others[0]}; give a folder of one kind"
        raise UserError("real data set", str(path), remedy)
    found: dict[str, str] = {}
    for name in splits:
        if (other := found.setdefault(SPLITS[name.lower()], name)) != name:
            raise UserError("real data set", str(path), f"has two folders of one split, {other} and {name}; remove one")
    return found


def _holds_classes(path: Path) -> bool:
    return not any(_is_image(entry.name) for entry in path.iterdir() if entry.is_file())


def _folders(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir() if child.is_dir() and not _is_noise(child.name))


def _is_noise(name: str) -> bool:
    return name.startswith(".") or name.lower() in NOISE


def _is_image(name: str) -> bool:
    return not _is_noise(name) and os.path.splitext(name)[1].lower() in image_suffixes()


def _find_files(path: Path) -> _Found:
    found = _Found()
    for folder, files in _tree(path):
        inside = os.path.relpath(folder, path)
        for name in files:
            file = name if inside == "." else f"{inside}/{name}"
            (found.images if _is_image(name) else found.others).append(file)
    found.images.sort(key=lambda file: file.split("/"))
    return found


def _walk(path: Path) -> Iterator[str]:
    """Yield the images of a folder and of all folders in it."""
    for folder, files in _tree(path):
        yield from (f"{folder}/{name}" for name in files if _is_image(name))


def _tree(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder with the names of its files; links are followed, and those that lead back are not."""
    seen, top = set[str](), os.path.realpath(path)
    for folder, folders, files in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not _is_noise(name))
        if (real := os.path.realpath(folder)) in seen or top.startswith(f"{real}/"):
            folders.clear()
            continue
        seen.add(real)
        yield folder, sorted(name for name in files if not _is_noise(name))
