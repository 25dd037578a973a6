"""A clone in other forms: ImageFolder and WebDataset. As stored it is a Hugging Face data set already.

A file gets its name when it is whole, so an export that is killed leaves whole images, some of them missing; the same
command writes all of them again. The small files of an ImageFolder are synced together at the end: a machine that stops
before that may leave empty files.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from raysd.clone.clone import Clone
from raysd.clone.shard import DATA, read_shard
from raysd.errors import UserError
from raysd.progress import Progress
from raysd.storage.location import Location

Form = Literal["imagefolder", "webdataset"]
SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp"}
RECORD = ".raysd-export.json"
"""What a folder holds an export of."""
ABOUT = ("key", "index", "prompt", "seed", "redraws", "flag")


def export_clone(clone: Clone, form: Form, out: str, flagged: bool = False) -> int:
    """Write the planned images of a complete clone; return how many.

    Args:
        clone: the clone.
        form: `imagefolder`: `<label>_<key>/<index>.png`; `webdataset`: a tar per shard with image, `cls` and `json` of
            each sample.
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
    folders = [target.child(folder_name(label, key)) for label, key in enumerate(clone.spec.table.keys)]
    if form == "imagefolder":
        for folder in folders:
            folder.remove_stale_partials()
    count = 0
    with Progress("exported", len(numbers), "shards") as progress:
        for number in numbers:
            rows = list(_rows(clone, number, flagged))
            if form == "webdataset":
                target.write(f"train-{number:06d}.tar", _tar(rows, clone.spec.codec))
            else:
                _write_images(folders, rows, clone.spec.codec)
            count += len(rows)
            progress.advance(1)
    if form == "imagefolder":
        target.sync_disks()
    return count


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
    }
    remedy = "choose an empty folder"
    if not target.exists(RECORD):
        if target.has_entries():
            raise UserError("out", target.uri, f"is not empty and holds no export; {remedy}")
    else:
        earlier = json.loads(target.read(RECORD))
        if any(earlier[name] != now[name] for name in ("clone", "form")):
            raise UserError("out", target.uri, f"holds clone {earlier['clone']} as {earlier['form']}; {remedy}")
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


def folder_name(label: int, key: str) -> str:
    """Return the name of a class's folder: its label, which keeps the order, and its key without unsafe characters."""
    return f"{label:05d}_{re.sub(r'[^A-Za-z0-9-]+', '_', key)[:64]}"


def _write_images(folders: list[Location], rows: list[dict[str, Any]], codec: str) -> None:
    for row in rows:
        folders[row["label"]].write(f"{row['index']:07d}.{SUFFIXES[codec]}", row["image"]["bytes"], sync=False)


def _tar(rows: list[dict[str, Any]], codec: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            about = json.dumps({column: row[column] for column in ABOUT}).encode()
            for suffix, data in (
                (SUFFIXES[codec], row["image"]["bytes"]),
                ("cls", str(row["label"]).encode()),
                ("json", about),
            ):
                member = tarfile.TarInfo(f"{row['label']:05d}-{row['index']:07d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
