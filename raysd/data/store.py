"""A real data set in the storage root: balanced Parquet files, with image 0 of each class first, then image 1.

A set that fits one file is that file, named by its content. A larger one is `part-00000.parquet`, ... and `set.json`,
which is written last: a set without it does not count, and is written again under the same names. So no rename is
needed, which an object store lacks.
"""

import hashlib
import json
import re
from contextlib import nullcontext, suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysd.data.overlap import image_hash, write_hashes
from raysd.data.readers import Source
from raysd.progress import Progress
from raysd.storage.location import Location

SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("index", pa.int64()),
    ]
)
SET = "set.json"
ROW_GROUP = 1024
SHARD_ROWS, SHARD_BYTES = 20_000, 128 * 2**20
GROUP_BYTES = 32 * 2**20
PROGRESS_FROM = 10_000


def round_major(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order in which images are stored, int64 [N], and the number of each image in its class, int64 [N]."""
    by_label = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_label], return_index=True, return_counts=True)
    index = np.empty(len(labels), dtype=np.int64)
    index[by_label] = np.arange(len(labels)) - np.repeat(starts, counts)
    return np.lexsort((labels, index)), index


def image_table(encoded: list[bytes], labels: np.ndarray, class_names: list[str]) -> pa.Table:
    """Return encoded images as a table, in rounds."""
    order, index = round_major(np.asarray(labels))
    return _table([encoded[i] for i in order], np.asarray(labels)[order], index[order], _schema(class_names))


def _schema(class_names: list[str]) -> pa.Schema:
    features = {
        "image": {"_type": "Image"},
        "label": {"names": class_names, "_type": "ClassLabel"},
        "index": {"dtype": "int64", "_type": "Value"},
    }
    return SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _table(encoded: list[bytes], labels: np.ndarray, index: np.ndarray, schema: pa.Schema) -> pa.Table:
    rows = [{"bytes": data, "path": None} for data in encoded]
    return pa.table(
        [pa.array(rows, SCHEMA.field("image").type), pa.array(labels, pa.int64()), pa.array(index, pa.int64())],
        schema=schema,
    )


def find_set(folder: Location) -> str | None:
    """Return the fingerprint of the set in a folder; None when there is none, or not all of it."""
    files = set(folder.list_files())
    if SET in files:
        record = json.loads(folder.read(SET))
        return record["fingerprint"] if files.issuperset(record["files"]) else None
    single = sorted(file for file in files if re.fullmatch(r"[0-9a-f]{16}\.parquet", file))
    return single[0].removesuffix(".parquet") if single else None


def write_set(
    folder: Location,
    source: Source,
    rows: np.ndarray,
    one_file: bool = False,
    is_read_as_before: np.ndarray | None = None,
) -> str:
    """Write some images of a source into a folder, and return their fingerprint.

    The images of one file are in memory at once.

    Args:
        folder: the folder to write into.
        source: the images.
        rows: numbers of the images to write, int64 [n].
        one_file: whether to write a single file, for small sets.
        is_read_as_before: whether the colors of an image are those that version 0.1.0 saw, bool [n]; the fingerprint
            of a set with others is another one, since what was measured on them no longer holds. All are, when None.
    """
    digest, writer = hashlib.blake2b(digest_size=8), _Writer(folder, _schema(source.class_names))
    order, index = round_major(source.labels[rows])
    encoded: list[bytes] = []
    hashes = bytearray()
    start = size = 0
    with (
        Progress(f"storing {source.name}", len(rows), "images")
        if len(rows) > PROGRESS_FROM
        else nullcontext() as progress
    ):
        for place, position in enumerate(order):
            data, is_last = source.encoded(int(rows[position])), place == len(order) - 1
            digest.update(data + str(source.labels[rows[position]]).encode())
            if is_read_as_before is not None and not is_read_as_before[position]:
                digest.update(b"RGB of raysd.data.pixels")
            encoded.append(data)
            hashes += image_hash(data)
            size += len(data)
            if len(encoded) < ROW_GROUP and size < GROUP_BYTES and not is_last:
                continue
            chosen = order[start : place + 1]
            writer.add(_table(encoded, source.labels[rows[chosen]], index[chosen], writer.schema))
            if progress is not None:
                progress.advance(len(encoded))
            if writer.is_full and not one_file and not is_last:
                writer.end_shard()
            encoded, start, size = [], place + 1, 0
    fingerprint = writer.end_set(digest.hexdigest())
    write_hashes(folder, fingerprint, hashes)
    return fingerprint


class _Writer:
    """Writer of one shard after the other; the current one is in memory, so that its name can be that of a set."""

    def __init__(self, folder: Location, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema
        self.files: list[str] = []
        self.total = 0
        self._begin()

    def _begin(self) -> None:
        self.buffer, self.rows = pa.BufferOutputStream(), 0
        self.parquet = pq.ParquetWriter(self.buffer, self.schema, compression="none")

    @property
    def is_full(self) -> bool:
        """Whether a further row group might be too much for the shard."""
        return self.rows + ROW_GROUP > SHARD_ROWS or self.buffer.tell() + GROUP_BYTES > SHARD_BYTES

    def add(self, table: pa.Table) -> None:
        """Add one row group."""
        self.parquet.write_table(table, row_group_size=ROW_GROUP)
        self.rows += len(table)

    def end_shard(self) -> None:
        """Write the current shard and begin another."""
        self._write(f"part-{len(self.files):05d}.parquet")
        self._begin()

    def _write(self, name: str) -> None:
        self.parquet.close()
        self.folder.write(name, self.buffer.getvalue().to_pybytes())
        self.files.append(name)
        self.total += self.rows

    def end_set(self, fingerprint: str) -> str:
        """Write the last shard, remove what an unfinished run left, and make the set count."""
        is_single = not self.files
        self._write(f"{fingerprint}.parquet" if is_single else f"part-{len(self.files):05d}.parquet")
        for stale in set(self.folder.list_files(".parquet")) - set(self.files):
            with suppress(FileNotFoundError):  # another process that writes the same set was faster
                self.folder.delete(stale)
        if not is_single:
            record = {"fingerprint": fingerprint, "num_images": self.total, "files": self.files}
            self.folder.write(SET, json.dumps(record).encode())
        return fingerprint
