"""Shards: Parquet files of pictures that Hugging Face `datasets` opens as they lie.

A shard's name is there only when the shard is whole (see `raysd.storage.location`). A shard counts as drawn when its footer can be read
and it has at least the planned rows; a shorter one, from before the clone grew, is extended.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysd.clone.plan import Plan, PlannedImage
from raysd.clone.spec import CloneSpec
from raysd.prompts.table import ClassTable
from raysd.storage.location import Location

DATA = "data"
ROWS_PER_GROUP = 256
JPEG_QUALITY = 95
COLUMNS = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("key", pa.string()),
        ("index", pa.int64()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("flag", pa.string()),
        ("sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class DrawnImage:
    """One encoded picture with its plan."""

    planned: PlannedImage
    data: bytes
    flag: str
    """Empty, or why the picture is suspect: `black`."""


def shard_name(shard: int) -> str:
    """The file name of a shard."""
    return f"train-{shard:06d}.parquet"


def encode_image(pixels: np.ndarray, codec: str) -> bytes:
    """uint8 [H, W] or [H, W, 3] as PNG, or as JPEG of quality 95."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if codec == "png":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def class_labels(table: ClassTable) -> list[str]:
    """Names for the labels: class names, or the keys where a name stands twice, since `datasets` wants each once."""
    return table.names if len(set(table.names)) == len(table) else table.keys


def image_schema(class_names: list[str], schema: pa.Schema = COLUMNS) -> pa.Schema:
    """A schema whose metadata tells `datasets` which column is a picture and what the labels are called."""
    dtypes = {pa.int64(): "int64", pa.string(): "string"}
    features: dict[str, dict[str, object]] = {"image": {"_type": "Image"}, "label": {"names": class_names, "_type": "ClassLabel"}}
    for field in schema:
        if field.name not in features:
            features[field.name] = {"dtype": dtypes[field.type], "_type": "Value"}
    ordered = {field.name: features[field.name] for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": ordered}})})


def shard_table(spec: CloneSpec, images: Sequence[DrawnImage]) -> pa.Table:
    """The rows of a shard, in plan order."""
    rows = [
        {
            "image": {"bytes": image.data, "path": f"{image.planned.label:05d}-{image.planned.index:07d}.{spec.codec}"},
            "label": image.planned.label,
            "key": image.planned.key,
            "index": image.planned.index,
            "prompt": image.planned.prompt,
            "seed": image.planned.seed,
            "flag": image.flag,
            "sha256": hashlib.sha256(image.data).hexdigest(),
        }
        for image in images
    ]
    return pa.Table.from_pylist(rows, schema=image_schema(class_labels(spec.table)))


def write_shard(folder: Location, shard: int, table: pa.Table) -> None:
    """Commit a shard below the clone's folder, in one atomic step."""
    buffer = pa.BufferOutputStream()
    # The pictures are compressed already; a dictionary does what is left.
    pq.write_table(table, buffer, compression="none", use_dictionary=["key", "prompt", "flag"], row_group_size=ROWS_PER_GROUP)
    folder.child(DATA).write(shard_name(shard), buffer.getvalue().to_pybytes())


def read_shard(folder: Location, shard: int) -> pa.Table:
    """All rows of a shard."""
    data = folder.child(DATA)
    return pq.read_table(data.file(shard_name(shard)), filesystem=data.filesystem)


def count_rows(folder: Location, shard: int) -> int:
    """Rows of a shard by its footer; 0 when it is missing or cannot be read."""
    data = folder.child(DATA)
    try:
        return int(pq.read_metadata(data.file(shard_name(shard)), filesystem=data.filesystem).num_rows)
    except (OSError, pa.ArrowInvalid):
        return 0


def missing_shards(folder: Location, plan: Plan) -> list[int]:
    """Shards that are absent, torn, or shorter than the plan; one listing, and the footers of the files that are there."""
    present = set(folder.child(DATA).list_files(".parquet"))
    return [s for s in range(plan.num_shards) if shard_name(s) not in present or count_rows(folder, s) < len(plan.shard_range(s))]
