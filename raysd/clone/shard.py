"""Shards: Parquet files of images that Hugging Face `datasets` opens without conversion.

A shard gets its name only when it is whole (see `raysd.storage.location`). Its footer holds the clone's fingerprint,
and the positions of planned images that were dropped, with the reason; so rows and dropped positions together say what
the shard covers.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import fs

from raysd.clone.plan import Plan, PlannedImage
from raysd.clone.spec import CloneSpec
from raysd.prompts.table import ClassTable
from raysd.storage.change import change
from raysd.storage.location import Location

DATA = "data"
PARTS = "parts"  # folder of unfinished shards, beside the data, so that nobody reads them as data
NAME = "train-{:06d}.parquet"
ROWS_PER_GROUP = 256
JPEG_QUALITY = WEBP_QUALITY = 95
MAGIC = b"PAR1"
COLUMNS = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("key", pa.string()),
        ("index", pa.int64()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("redraws", pa.int64()),
        ("flag", pa.string()),
        ("sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class GeneratedImage:
    """One encoded image with its plan."""

    planned: PlannedImage
    data: bytes
    flag: str
    """Empty, or the reason why the image is suspect: `black`, `nan`, `unsafe`."""


@dataclass(frozen=True)
class Shard:
    """The content of a shard."""

    table: pa.Table
    dropped: dict[int, str] = field(default_factory=dict)
    """Planned positions without an image, with the reason."""
    group_sizes: tuple[int, ...] = ()
    """Rows of each row group of the file that it was read from."""

    def covered(self, num_classes: int) -> np.ndarray:
        """Return all positions that are generated or dropped, int64, rising."""
        generated = self.table["index"].to_numpy() * num_classes + self.table["label"].to_numpy()
        return np.sort(np.concatenate([generated, np.array(list(self.dropped), dtype=np.int64)]))

    def without(self, positions: np.ndarray, num_classes: int) -> "Shard":
        """Return the shard without the images and dropped positions at these positions."""
        own = self.table["index"].to_numpy() * num_classes + self.table["label"].to_numpy()
        taken = set(positions.tolist())
        return Shard(
            self.table.filter(pa.array(~np.isin(own, positions))),
            {place: why for place, why in self.dropped.items() if place not in taken},
        )

    def flag_counts(self, num_classes: int) -> dict[str, np.ndarray]:
        """Return the images of each label for each flag and for `dropped`, int64 [K] each."""
        counts: dict[str, np.ndarray] = {}
        labels, flags = self.table["label"].to_numpy(), np.array(self.table["flag"].to_pylist(), dtype=object)
        for flag in sorted(set(flags) - {""}):
            counts[flag] = np.bincount(labels[flags == flag], minlength=num_classes)
        if self.dropped:
            counts["dropped"] = np.bincount(
                [position % num_classes for position in self.dropped], minlength=num_classes
            )
        return counts


def shard_name(shard: int) -> str:
    """Return the file name of a shard."""
    return NAME.format(shard)


def encode_image(pixels: np.ndarray, codec: str) -> bytes:
    """Return uint8 [H, W] or [H, W, 3] as PNG, or as JPEG or WebP of quality 95."""
    buffer = io.BytesIO()
    options: dict[str, dict[str, int | bool]] = {
        "png": {"optimize": True},
        "jpeg": {"quality": JPEG_QUALITY},
        "webp": {"quality": WEBP_QUALITY},
    }
    Image.fromarray(pixels).save(buffer, codec.upper(), **options[codec])
    return buffer.getvalue()


def class_labels(table: ClassTable) -> list[str]:
    """Return the labels' names: the class names if they are unique, which `datasets` needs, else the keys."""
    return table.names if len(set(table.names)) == len(table) else table.keys


def image_schema(class_names: list[str], schema: pa.Schema = COLUMNS) -> pa.Schema:
    """Return a schema whose metadata tells `datasets` which column is an image and what the labels are called."""
    dtypes = {pa.int64(): "int64", pa.string(): "string"}
    features: dict[str, dict[str, object]] = {
        "image": {"_type": "Image"},
        "label": {"names": class_names, "_type": "ClassLabel"},
    }
    for column in schema:
        if column.name not in features:
            features[column.name] = {"dtype": dtypes[column.type], "_type": "Value"}
    ordered = {column.name: features[column.name] for column in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": ordered}})})


def shard_table(spec: CloneSpec, images: Sequence[GeneratedImage]) -> pa.Table:
    """Return the rows of a shard, in plan order."""
    rows = [
        {
            "image": {"bytes": image.data, "path": f"{image.planned.label:05d}-{image.planned.index:07d}.{spec.codec}"},
            "label": image.planned.label,
            "key": image.planned.key,
            "index": image.planned.index,
            "prompt": image.planned.prompt,
            "seed": image.planned.seed,
            "redraws": image.planned.redraw,
            "flag": image.flag,
            "sha256": hashlib.sha256(image.data).hexdigest(),
        }
        for image in images
    ]
    return pa.Table.from_pylist(rows, schema=image_schema(class_labels(spec.table)))


def write_shard(folder: Location, number: int, shard: Shard, spec: CloneSpec) -> int:
    """Write a shard of the clone in `folder` in one atomic step, over an older one; return its bytes."""
    data = to_parquet(shard, spec)
    folder.child(DATA).write(shard_name(number), data)
    return len(data)


def to_parquet(shard: Shard, spec: CloneSpec) -> bytes:
    """Return the bytes of a shard's file."""
    about = {"fingerprint": spec.fingerprint, "dropped": sorted(shard.dropped.items())}
    table = shard.table.replace_schema_metadata({**shard.table.schema.metadata, b"raysd": json.dumps(about).encode()})
    buffer = pa.BufferOutputStream()
    # The images are compressed already; a dictionary suffices for the texts. Statistics of the images would copy two of
    # them into the footer.
    options = {
        "compression": "none",
        "use_dictionary": ["key", "prompt", "flag"],
        "write_statistics": ["label", "key", "index", "seed", "flag"],
    }
    pq.write_table(table, buffer, row_group_size=ROWS_PER_GROUP, **options)
    return buffer.getvalue().to_pybytes()


def add_to_shard(
    folder: Location, plan: Plan, number: int, fresh: Shard, is_new: bool = False, place: str = DATA
) -> int:
    """Add images to a shard in one atomic step, beside those that are there by now; return its bytes.

    Another driver may have written images of the same shard since this one read it. At the same position they are the
    same images, so the existing ones stay, and a shard never loses an image.

    Args:
        folder: the clone's folder.
        plan: the plan that says which positions belong into the shard.
        number: the shard's number.
        fresh: the generated images.
        is_new: whether the shard is most likely missing.
        place: the folder below the clone's, `DATA` or `PARTS`.
    """
    num_classes = plan.counts.num_classes

    def united(data: bytes | None) -> bytes:
        there = None if data is None else parse_shard(data, plan.spec)
        if there is None or not plan.belong(covered := there.covered(num_classes), number):
            return to_parquet(fresh, plan.spec)
        return to_parquet(merge_shards(there, fresh.without(covered, num_classes), num_classes), plan.spec)

    return len(change(folder.child(place), shard_name(number), united, is_new) or b"")


def delete_part(folder: Location, number: int) -> None:
    """Delete the part of a shard that was kept while the shard was generated."""
    parts = folder.child(PARTS)
    if parts.exists(shard_name(number)):
        with suppress(FileNotFoundError):
            parts.delete(shard_name(number))


def merge_shards(first: Shard, second: Shard, num_classes: int) -> Shard:
    """Return the images of both, by position; both must be of one clone and have no image in common."""
    table = pa.concat_tables(
        [first.table.replace_schema_metadata(second.table.schema.metadata), second.table]
    ).combine_chunks()
    positions = table["index"].to_numpy() * num_classes + table["label"].to_numpy()
    return Shard(table.take(np.argsort(positions)), first.dropped | second.dropped)


def read_shard(
    folder: Location, number: int, spec: CloneSpec, columns: list[str] | None = None, place: str = DATA
) -> Shard | None:
    """Return a shard, or None when it is missing, torn, or of another clone.

    Raises:
        OSError: an object store does not answer.
    """
    data, name = folder.child(place), shard_name(number)
    try:
        if columns is None:
            return parse_shard(data.read(name), spec)
        return data.attempt(lambda: _parse(data.file(name), data.filesystem, spec, columns))
    except FileNotFoundError:
        return None


def parse_shard(data: bytes, spec: CloneSpec) -> Shard | None:
    """Return a shard from the bytes of its file, or None when they are torn, or of another clone."""
    return _parse(pa.BufferReader(data), None, spec, None)


def _parse(
    source: str | pa.BufferReader, filesystem: fs.FileSystem | None, spec: CloneSpec, columns: list[str] | None
) -> Shard | None:
    try:
        file = pq.ParquetFile(source, filesystem=filesystem)
        about = json.loads((file.schema_arrow.metadata or {}).get(b"raysd", b"{}"))
        if about.get("fingerprint") != spec.fingerprint:
            return None
        sizes = tuple(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
        dropped = {int(position): str(reason) for position, reason in about["dropped"]}
        return Shard(file.read(columns=columns), dropped, sizes)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    except OSError as error:
        if _is_torn(error):
            return None
        raise


def _is_torn(error: OSError) -> bool:
    """Return whether the content of a file is broken, which Arrow says with an OSError without a number."""
    return error.errno is None and not any(word in str(error) for word in ("AWS Error", "Network", "HTTP"))
