"""A clone in other forms: ImageFolder and WebDataset. As stored it is a Hugging Face data set already.

A file gets its name when it is whole, so an export that is killed leaves whole images, some of them missing; the same
command writes all of them again. The small files of an ImageFolder are synced together at the end: a machine that stops
before that may leave empty files.
"""

import io
import json
import os
import re
import tarfile
import unicodedata
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from raysd.clone.clone import Clone
from raysd.clone.shard import DATA, class_labels, read_shard
from raysd.errors import UserError
from raysd.progress import Progress
from raysd.storage.location import Location

Form = Literal["imagefolder", "webdataset"]
SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp"}
RECORD = ".raysd-export.json"
"""What a folder holds an export of."""
ABOUT = ("key", "index", "prompt", "seed", "redraws", "flag")
METADATA = "metadata.jsonl"
"""What an ImageFolder says of its images, as `datasets` reads it."""
LONGEST_NAME = 60  # characters, of up to 4 bytes, where file systems allow 255 bytes
DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(10))}
"""Names that are no folders on Windows."""


def export_clone(clone: Clone, form: Form, out: str, flagged: bool = False) -> int:
    """Write the planned images of a complete clone; return how many.

    Args:
        clone: the clone.
        form: `imagefolder`: `<class name>/<index>.png` and `metadata.jsonl`; `webdataset`: a tar per shard with image,
            `cls` and `json` of each sample.
        out: a folder, empty or with an earlier export; for `webdataset` also a URI.
        flagged: whether to write images with a flag, too.

    Raises:
        UserError: the clone is not complete, or the folder cannot be written or holds something else.
    """
    if not clone.is_complete():
        raise UserError(
            "generation.images_per_class",
            clone.counts.default,
            "the clone is not complete; run raysd generate first",
        )
    if form == "imagefolder" and "://" in out:
        raise UserError(
            "out", out, "an ImageFolder needs a folder on a disk; use --format webdataset for an object store"
        )
    target = Location(out)
    target.check_writable()
    _claim(target, clone, form, flagged)
    numbers = np.flatnonzero(clone.shard_sizes()).tolist()
    with Progress("exported", len(numbers), "shards") as progress:
        shards = _shards(clone, numbers, flagged, progress)
        return _write_tars(target, shards) if form == "webdataset" else _write_folders(target, clone, shards)


def _shards(
    clone: Clone, numbers: list[int], flagged: bool, progress: Progress
) -> Iterator[tuple[int, list[dict[str, Any]], str]]:
    for number in numbers:
        yield number, list(_rows(clone, number, flagged)), SUFFIXES[clone.spec.codec]
        progress.advance(1)


def _write_tars(target: Location, shards: Iterator[tuple[int, list[dict[str, Any]], str]]) -> int:
    count = 0
    for number, rows, suffix in shards:
        target.write(f"train-{number:06d}.tar", _tar(rows, suffix))
        count += len(rows)
    return count


def _write_folders(target: Location, clone: Clone, shards: Iterator[tuple[int, list[dict[str, Any]], str]]) -> int:
    """Write an ImageFolder; what it says of its images comes last."""
    names = class_labels(clone.spec.table)
    folders = folder_names(names)
    for folder in folders:
        target.child(folder).remove_stale_partials()
    target.remove_stale_partials()
    count = 0
    with _whole_text(Path(target.path), METADATA) as metadata:
        for _, rows, suffix in shards:
            for row in rows:
                label, file = row["label"], f"{row['index']:07d}.{suffix}"
                target.child(folders[label]).write(file, row["image"]["bytes"], sync=False)
                about = {"file_name": f"{folders[label]}/{file}", "label": label, "class_name": names[label]}
                metadata.write(json.dumps(about | {column: row[column] for column in ABOUT}) + "\n")
            count += len(rows)
    target.sync_disks()
    return count


@contextmanager
def _whole_text(folder: Path, name: str) -> Iterator[TextIO]:
    """Open a text file that gets its name once it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.{uuid.uuid4().hex}.tmp"
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        os.replace(partial, folder / name)
    finally:
        partial.unlink(missing_ok=True)


def _claim(target: Location, clone: Clone, form: Form, flagged: bool) -> None:
    """Note in the folder what is exported into it.

    Raises:
        UserError: the folder holds other files, another clone, or images that this export would not write again.
    """
    now = {
        "clone": clone.spec.fingerprint,
        "form": form,
        "flagged": flagged,
        "class_counts": clone.counts.array.tolist(),
        **({"folders": folder_names(class_labels(clone.spec.table))} if form == "imagefolder" else {}),
    }
    remedy = "choose an empty folder"
    if not target.exists(RECORD):
        if target.has_entries():
            raise UserError("out", target.uri, f"is not empty and holds no export; {remedy}")
    else:
        earlier = json.loads(target.read(RECORD))
        if any(earlier[name] != now[name] for name in ("clone", "form")):
            raise UserError("out", target.uri, f"holds clone {earlier['clone']} as {earlier['form']}; {remedy}")
        if earlier.get("folders") != now.get("folders"):
            raise UserError("out", target.uri, f"holds an export with other names of folders; {remedy}")
        if earlier["flagged"] > flagged or (np.array(earlier["class_counts"]) > clone.counts.array).any():
            raise UserError("out", target.uri, f"holds an earlier export of this clone with more images; {remedy}")
    target.write(RECORD, json.dumps(now).encode(), sync=False)


def _rows(clone: Clone, number: int, flagged: bool) -> Iterator[dict[str, Any]]:
    shard = read_shard(clone.folder, number, clone.spec)
    if shard is None:
        raise UserError(
            "clone", clone.folder.child(DATA).uri, f"shard {number} cannot be read; run raysd verify --repair"
        )
    limits = clone.counts.array
    yield from (
        row for row in shard.table.to_pylist() if row["index"] < limits[row["label"]] and (flagged or not row["flag"])
    )


def folder_names(names: Sequence[str]) -> list[str]:
    """Return the folder of each class: its name, in letters of any script, digits, `-` and `_`; a number at its end
    where two would be the same on some disk."""
    folders: list[str] = []
    taken = set(DEVICES)
    for label, name in enumerate(names):
        safe = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", name))[:LONGEST_NAME].strip("_-") or "class"
        folder = safe
        while folder.lower() in taken:
            folder = f"{safe}_{label}" if folder == safe else f"{folder}_"
        taken.add(folder.lower())
        folders.append(folder)
    return folders


def former_folder_name(label: int, key: str) -> str:
    """Return the name of a class's folder as version 0.1.0 wrote it: its label, and its key without unsafe
    characters."""
    return f"{label:05d}_{re.sub(r'[^A-Za-z0-9-]+', '_', key)[:64]}"


def _tar(rows: list[dict[str, Any]], suffix: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            about = json.dumps({column: row[column] for column in ABOUT}).encode()
            for ending, data in (
                (suffix, row["image"]["bytes"]),
                ("cls", str(row["label"]).encode()),
                ("json", about),
            ):
                member = tarfile.TarInfo(f"{row['label']:05d}-{row['index']:07d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
