"""Labeled images for training or evaluation: a clone, or a real data set in Parquet files."""

import io
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from raysd.data.pixels import to_rgb
from raysd.data.soft_labels import SoftLabels
from raysd.errors import UserError
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.row_index import FILES_AT_ONCE, LEAST_FILES, IndexWriter, read_index
from raysd.storage.tables import read_each

CONTENT = ["image", "label", "index"]
UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""Errors that Pillow raises for an image that it cannot decode."""


@dataclass(frozen=True)
class LeftOut:
    """The images of a clone that a filter leaves out: a bit for each position of the plan."""

    num_classes: int
    bits: bytes

    @cached_property
    def _mask(self) -> np.ndarray:
        return np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8)).astype(bool)

    def contains(self, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Return which images are left out, bool [N], by label and image index; none beyond the scored ones."""
        positions = index * self.num_classes + labels
        inside = positions < len(self._mask)
        return (
            inside & self._mask[np.where(inside, positions, 0)]
            if len(self._mask)
            else np.zeros(len(labels), dtype=bool)
        )

    def __len__(self) -> int:
        return int(self._mask.sum())

    @cached_property
    def digest(self) -> str:
        """Hash of the choice, for the fingerprint of what is trained on it."""
        return fingerprint([self.num_classes, self.bits.hex()])


@dataclass(frozen=True)
class ImageSet:
    """Parquet files with columns `image`, `label`, `index` and, in a clone, `flag`."""

    name: str
    fingerprint: str
    folder: Location
    """The folder of the Parquet files."""
    images_per_class: int | tuple[int, ...] | None = None
    """Number of images to take from the start of each class, or of each label; all when None."""
    from_end: bool = False
    """Whether to take them from the end of each class instead, apart from the images that others train on."""
    label_map: tuple[int, ...] | None = None
    """The class table's label for each label in the files, -1 for those that are left out; None when all are equal."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Groups of the class table's labels that count as one class; images carry the first."""
    left_out: LeftOut | None = None
    """The images of a clone that a filter leaves out."""
    soft_labels: SoftLabels | None = None
    """What teachers said of each image; None where the training needs only labels."""
    about: dict[str, Any] = field(default_factory=dict)
    """Facts for result rows: the kind (`clone` or `real`), and a clone's variant and guidance scale."""

    def identity(self) -> dict[str, Any]:
        """Return what a result's fingerprint needs of this set."""
        chosen = {} if self.left_out is None else {"left_out": self.left_out.digest}
        part = {"images_per_class": self.images_per_class, "from_end": self.from_end, "label_map": self.label_map}
        grouped = {"groups": self.groups} if self.groups else {}
        soft = {} if self.soft_labels is None else {"soft_labels": self.soft_labels.fingerprint}
        return {"fingerprint": self.fingerprint, **part, **chosen, **grouped, **soft}

    def kept_rows(self, file: str) -> np.ndarray:
        """Return which rows of a file count, bool [rows].

        They are within `images_per_class`, without a flag, and not left out by a filter or by the label map.
        """
        return self._keeps(self._read_light(file)[1])

    def _keeps(self, table: pa.Table) -> np.ndarray:
        keep = np.ones(len(table), dtype=bool)
        if self.images_per_class is not None:
            index, labels = table["index"].to_numpy(), table["label"].to_numpy()
            if self.from_end:
                index = self._last_index[labels] - index
            keep &= index < (
                self.images_per_class
                if isinstance(self.images_per_class, int)
                else np.array(self.images_per_class)[labels]
            )
        if self.label_map is not None and min(self.label_map, default=0) < 0:
            keep &= self.to_labels(table["label"].to_numpy()) >= 0
        if self.left_out is not None:
            keep &= ~self.left_out.contains(table["label"].to_numpy(), table["index"].to_numpy())
        if "flag" in table.column_names:
            keep &= pc.equal(pc.fill_null(table["flag"], ""), "").to_numpy()
        return keep

    def row_group_counts(self) -> dict[str, list[int]]:
        """Return how many images of each row group of each file count, by file, in the order of `files`.

        Of many files an index says it, which is written where it is missing; else each file is opened.
        """
        folder, counts = self.folder, dict[str, list[int]]()
        versions = folder.list_versions(".parquet")
        if use_index := len(versions) >= LEAST_FILES:
            for part in read_index(folder, versions):
                counts |= part.count(self._keeps(part.rows))
        unknown, index = sorted(versions.keys() - counts), IndexWriter(versions)
        for start in range(0, len(unknown), FILES_AT_ONCE):
            files = unknown[start : start + FILES_AT_ONCE]
            for file, (sizes, rows) in zip(files, read_each(self._read_light, files), strict=True):
                counts[file] = [int(part.sum()) for part in np.split(self._keeps(rows), np.cumsum(sizes)[:-1])]
                index.add(file, sizes, rows)
        if use_index and unknown:
            index.write(folder)
        return {file: counts[file] for file in sorted(versions)}

    def _read_light(self, file: str) -> tuple[list[int], pa.Table]:
        """Return the rows of each row group of a file, and the columns that say which rows count."""
        with self._open(file) as parquet:
            sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
            return sizes, parquet.read(columns=self._light(parquet))

    def read_rows(self, file: str, row_group: int | None = None, more: tuple[str, ...] = ()) -> pa.Table:
        """Return `image`, `label`, `index` and any further columns of the rows that count in a file, or in one of its
        row groups."""
        if row_group is not None:
            return self.read_row_groups(file, [row_group], more)[0]
        with self._open(file) as parquet:
            return self._counting(parquet.read(columns=["image", *more, *self._light(parquet)]), more)

    def read_row_groups(self, file: str, numbers: list[int], more: tuple[str, ...] = ()) -> list[pa.Table]:
        """Return `image`, `label`, `index` and any further columns of the rows that count in some row groups; the file
        is opened once."""
        with self._open(file) as parquet:
            columns = ["image", *more, *self._light(parquet)]
            return [self._counting(parquet.read_row_group(number, columns=columns), more) for number in numbers]

    def _counting(self, table: pa.Table, more: tuple[str, ...]) -> pa.Table:
        return table.select([*CONTENT, *more]).filter(pa.array(self._keeps(table)))

    @staticmethod
    def _light(parquet: pq.ParquetFile) -> list[str]:
        """Return the columns that say which rows count."""
        return [name for name in ("label", "index", "flag") if name in parquet.schema_arrow.names]

    def _open(self, file: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.folder.file(file), filesystem=self.folder.filesystem, pre_buffer=True)

    def _read(self, file: str, columns: list[str]) -> pa.Table:
        return pq.read_table(self.folder.file(file), columns=columns, filesystem=self.folder.filesystem)

    def to_labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the class table's labels for labels of the files, int64 [N]."""
        return labels.astype(np.int64) if self.label_map is None else np.array(self.label_map, dtype=np.int64)[labels]

    def files(self) -> list[str]:
        """Return the names of the Parquet files, sorted."""
        return self.folder.list_files(".parquet")

    @cached_property
    def _last_index(self) -> np.ndarray:
        """Index of the last image of each label over all files, int64 [labels]."""
        last = np.zeros(0, dtype=np.int64)
        for file in self.files():
            table = self._read(file, ["label", "index"])
            labels, index = table["label"].to_numpy(), table["index"].to_numpy()
            last = np.pad(last, (0, max(0, int(labels.max(initial=-1)) + 1 - len(last))))
            np.maximum.at(last, labels, index)
        return last


@dataclass(frozen=True)
class ImageArrays:
    """Decoded images: uint8 [N, 3, S, S], labels int64 [N] and an order int64 [N] that no reader changes."""

    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray
    soft: np.ndarray | None = None
    """Soft labels float32 [N, 2, k], see `SoftLabels.read`."""
    groups: np.ndarray | None = None
    """Groups int64 [N], see `raysd.training.grouping`."""

    @staticmethod
    def concatenate(parts: list["ImageArrays"]) -> "ImageArrays":
        """Return all parts as one, sorted by their order."""
        order = np.concatenate([part.order for part in parts])
        place = np.argsort(order, kind="stable")
        images = np.concatenate([part.images for part in parts])[place]
        return ImageArrays(images, np.concatenate([part.labels for part in parts])[place], order[place])


def decode_image(data: bytes, size: int, resize: int | None = None, interpolation: str = "bicubic") -> np.ndarray:
    """Return an encoded image as uint8 [3, size, size]: its shorter side resized, then its center cropped.

    Its colors are those of `to_rgb`. The arithmetic is that of torchvision's Resize and CenterCrop on PIL images, so
    that results equal a plain loop's.
    Colors are innermost in memory.

    Args:
        data: the encoded image.
        size: side of the crop in pixels.
        resize: length of the resized shorter side in pixels; `size` when None.
        interpolation: `bicubic`, `bilinear`, or another name of PIL's.
    """
    with Image.open(io.BytesIO(data)) as image:
        rgb = to_rgb(image)
    shorter = min(rgb.size)
    if shorter != (wanted := resize or size):
        width, height = (wanted if side == shorter else int(wanted * side / shorter) for side in rgb.size)
        rgb = rgb.resize((width, height), Image.Resampling[interpolation.upper()])
    if rgb.size != (size, size):
        left, top = (round((side - size) / 2) for side in rgb.size)
        rgb = rgb.crop((left, top, left + size, top + size))
    return np.asarray(rgb).transpose(2, 0, 1)


def decode_from(images: ImageSet, file: str, data: bytes, size: int) -> np.ndarray:
    """Decode an image of a file, uint8 [3, size, size].

    Raises:
        UserError: the image cannot be decoded.
    """
    try:
        return decode_image(data, size)
    except UNDECODABLE as error:
        remedy = (
            "raysd verify --repair generates it again" if images.about.get("kind") == "clone" else "repair or remove it"
        )
        raise UserError(
            "image", f"{images.folder.uri}/{file}", f"holds an image that cannot be decoded ({error}); {remedy}"
        ) from None


def encoded_rows(images: ImageSet, rows: pa.Table) -> tuple[list[bytes], np.ndarray]:
    """Return the encoded images and the class table's labels int64 [N] of rows from `read_rows`."""
    return pc.struct_field(rows["image"], "bytes").to_pylist(), images.to_labels(rows["label"].to_numpy())


def soft_rows(images: ImageSet, file: str, rows: pa.Table) -> np.ndarray | None:
    """Return the soft labels of rows from `read_rows` of a file; None where the set has none."""
    if images.soft_labels is None:
        return None
    return images.soft_labels.read(file, rows["label"].to_numpy(), rows["index"].to_numpy())


def decode_file(images: ImageSet, file: str, position: int, size: int) -> ImageArrays:
    """Decode one file; `position` is the file's number among all files of a training, and makes the order unique.

    Raises:
        UserError: an image cannot be decoded.
    """
    encoded, labels = encoded_rows(images, images.read_rows(file))
    decoded = np.empty((len(encoded), 3, size, size), dtype=np.uint8)
    for i, data in enumerate(encoded):
        decoded[i] = decode_from(images, file, data, size)
    return ImageArrays(decoded, labels, position * 2**32 + np.arange(len(labels), dtype=np.int64))


def decode_all(images: ImageSet, size: int) -> ImageArrays:
    """Return all images of a set in memory, in file order."""
    return ImageArrays.concatenate(
        [decode_file(images, file, position, size) for position, file in enumerate(images.files())]
    )


def decode_part(images: ImageSet, size: int, part: int, num_parts: int) -> ImageArrays:
    """Return every `num_parts`-th image of a set, from number `part` on, in file order."""
    decoded, labels, seen = [], [], 0
    for file in images.files():
        rows = images.read_rows(file)
        first, seen = (part - seen) % num_parts, seen + len(rows)
        encoded, numbers = encoded_rows(images, rows.take(pa.array(range(first, len(rows), num_parts))))
        decoded += [decode_from(images, file, data, size) for data in encoded]
        labels.append(numbers)
    stacked = np.stack(decoded) if decoded else np.empty((0, 3, size, size), dtype=np.uint8)
    return ImageArrays(stacked, np.concatenate(labels), np.arange(len(stacked), dtype=np.int64))


def read_labels(images: ImageSet) -> np.ndarray:
    """Return all labels of a set as its files hold them, int64 [N]."""
    parts = [
        pq.read_table(images.folder.file(file), columns=["label"], filesystem=images.folder.filesystem)["label"]
        for file in images.files()
    ]
    return np.concatenate([part.to_numpy() for part in parts]).astype(np.int64)


def class_names(images: ImageSet) -> list[str]:
    """Return class names in label order, from the schema's `huggingface` metadata; empty when there is none."""
    schema = pq.read_schema(images.folder.file(images.files()[0]), filesystem=images.folder.filesystem)
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return list(metadata.get("info", {}).get("features", {}).get("label", {}).get("names", []))
