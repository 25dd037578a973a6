"""Sources of real images, which give any image as encoded bytes: arrays, files, annotations.

Folders (`raysd.data.folders`) and Parquet files (`raysd.data.parquet`) have readers of our own. The builders of
`datasets` leave out classes without images, so that the labels after them shift, give no labels where one class has a
folder within its folder, take a class named `train` for a split, copy a Parquet file into a cache, and accept rows
without label or image. timm's reader sorts `9` before `10`, takes hidden folders for classes, and leaves out empty
ones.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from PIL import Image

from raysd.data.pixels import to_rgb
from raysd.errors import UserError
from raysd.storage.row_index import NAME as ROW_INDEX

LAST_UNNAMED = 1_000_000
"""The highest label that a class without a name may have."""


USUAL_COLUMNS = {
    "image": ("image", "img", "png", "jpg", "jpeg", "webp", "jpg;png;webp", "pixel_values"),
    "label": ("label", "fine_label", "cls", "labels", "class", "category", "target", "species"),
}
"""Names that other data sets give to these columns; an error proposes the first that is there."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a user's set."""

    image: str = "image"
    label: str = "label"


USUAL = Columns()


def missing_column(name: str, column: str, columns: Columns, there: list[str]) -> UserError:
    """Return the error of a set without a wanted column; it proposes a name of the set with its own columns."""
    found = {
        kind: wanted if wanted in there else next((usual for usual in USUAL_COLUMNS[kind] if usual in there), "..")
        for kind, wanted in (("image", columns.image), ("label", columns.label))
    }
    shown = ", ".join(there)
    remedy = f"name its columns, as {name}?image={quote(found['image'])}&label={quote(found['label'])}"
    return UserError("real data set", name, f"has no column {column}, only {shown}; {remedy}")


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column without dictionary or views."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(kind, kind)


def _as_text(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return labels that are bytes as text.

    Raises:
        UserError: they are no UTF-8.
    """
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        raise UserError("real data set", name, "its labels are bytes that are no UTF-8; write them as text") from None


def checked_labels(
    name: str, column: pa.Array | pa.ChunkedArray, class_names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Return labels int64 [N] and class names; for labels that are text, unknown names are the sorted texts.

    Raises:
        UserError: a row has no label, or one that is no class.
    """

    def refuse(row: int, label: object, remedy: str) -> UserError:
        return UserError("real data set", name, f"row {row} has the label {label!r}; {remedy}")

    column = (pa.chunked_array([column]) if isinstance(column, pa.Array) else column).cast(plain_type(column.type))
    if (missing := np.flatnonzero(column.is_null(nan_is_null=True).to_numpy())).size:
        raise refuse(int(missing[0]), None, "label it or remove it")
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = _as_text(name, column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.to_pylist()
        class_names = class_names or sorted(set(texts))
        place = {text: label for label, text in enumerate(class_names)}
        if wrong := [row for row, text in enumerate(texts) if text not in place]:
            raise refuse(wrong[0], texts[wrong[0]], f"its classes are {', '.join(class_names[:5])}, ...")
        return np.array([place[text] for text in texts], dtype=np.int64), class_names
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise UserError(
            "real data set", name, f"its labels are of type {column.type}; give whole numbers or class names"
        )
    values = np.asarray(column.to_numpy())
    end = len(class_names) or LAST_UNNAMED + 1
    wrong_rows = np.flatnonzero(~((values >= 0) & (values < end) & (values == np.floor(values))))
    if len(wrong_rows):
        remedy = f"labels are 0 to {end - 1}" if class_names else f"labels are whole numbers from 0 to {LAST_UNNAMED:,}"
        raise refuse(int(wrong_rows[0]), values[wrong_rows[0]].item(), remedy)
    return values.astype(np.int64), class_names


def image_bytes(name: str, row: int, value: Any, open_paths: bool = False) -> bytes:
    """Return the encoded image in a cell: bytes, or a struct with `bytes`.

    Args:
        name: the set's name.
        row: the row's number.
        value: the cell's value.
        open_paths: whether to read the file at `path` of a struct without bytes; only for files that a library fetched.

    Raises:
        UserError: the cell has no image.
    """
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if not data and path and open_paths and Path(path).is_file():
        data = Path(path).read_bytes()
    if not data and path and not open_paths:
        raise UserError(
            "real data set", name, f"row {row} has the path of an image, not its bytes; write the bytes into the file"
        )
    return checked_bytes(name, row, data)


def checked_bytes(name: str, row: int, data: Any) -> bytes:
    """Return the bytes of an image.

    Raises:
        UserError: the image is missing, or not given as bytes.
    """
    if not isinstance(data, bytes) or not data:
        what = "has no image" if not data else f"has an image of type {type(data).__name__}, not its encoded bytes"
        raise UserError("real data set", name, f"row {row} {what}; repair or remove it")
    return data


Split = Literal["train", "test"]


@dataclass(frozen=True)
class Source:
    """Random access to the encoded images of one split of a set."""

    name: str
    labels: np.ndarray
    """int64 [N]."""
    class_names: list[str]
    """Names in label order; empty when the source has none."""
    encoded: Callable[[int], bytes]
    """Function that returns the bytes of image i as in a file; raises UserError where there are none."""
    files: Sequence[str] = ()
    """The file of each image; empty where images are no files."""
    where: Callable[[int], str] | None = None
    """Function that says where image i is, if it is no file of its own."""
    is_made_here: bool = False
    """Whether images were encoded from pixels, so that none is broken."""

    def place(self, i: int) -> str:
        """Return where image i is, for an error: its file, or its row."""
        if self.where is not None:
            return self.where(i)
        return self.files[i] if self.files else f"row {i}"


def encode_png(image: np.ndarray) -> bytes:
    """Return uint8 [H, W] or [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def without_border(source: Source, width: int) -> Source:
    """Return a source whose images lack so many pixels at each side; they are stored as PNG then."""

    def cut(i: int) -> bytes:
        data = source.encoded(i)
        try:
            image = to_rgb(Image.open(io.BytesIO(data)))
        except Exception:  # Pillow raises many kinds; a broken image is named where all are checked
            return data
        return encode_png(np.asarray(image.crop((width, width, image.width - width, image.height - width))))

    return replace(source, encoded=cut)


def array_source(name: str, images: np.ndarray, labels: np.ndarray, class_names: list[str]) -> Source:
    """Return the source of images uint8 [N, H, W] or [N, H, W, 3], which are read as PNG."""
    return Source(name, labels.astype(np.int64), class_names, lambda i: encode_png(images[i]), is_made_here=True)


def file_source(name: str, files: list[str], labels: Sequence[int] | np.ndarray, class_names: list[str]) -> Source:
    """Return the source of images that are a file each."""

    def encoded(i: int) -> bytes:
        try:
            if not Path(files[i]).is_file() and Path(files[i]).exists():  # a pipe would be waited for
                raise UserError("real data set", name, f"image {i}, {files[i]}, is no file; remove it")
            data = Path(files[i]).read_bytes()
        except OSError as error:
            raise UserError(
                "real data set", name, f"image {i}, {files[i]}, cannot be read ({error.strerror}); repair or remove it"
            ) from None
        return checked_bytes(name, i, data)

    return Source(name, checked_labels(name, pa.array(np.asarray(labels)), class_names)[0], class_names, encoded, files)


def annotation_source(path: Path) -> Source:
    """Open the images that a JSON file in COCO's form lists, as iNaturalist has it.

    The file holds `images`, `categories`, and one category per image in `annotations`.

    Raises:
        UserError: no such file, a file of another form, or one that lists images outside its folder.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        category = {entry["image_id"]: entry["category_id"] for entry in content["annotations"]}
        listed = [(str(PurePath(image["file_name"])), category[image["id"]]) for image in content["images"]]
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        class_names = [names[label] for label in range(len(names))]
    except OSError as error:
        raise UserError(
            "real data set", str(path), f"cannot be read ({error.strerror}); unpack the annotations beside the images"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            "real data set",
            str(path),
            f"is no list of annotated images ({type(error).__name__}: {error}); fetch it again",
        ) from None
    if outside := [file for file, _ in listed if os.path.isabs(file) or ".." in PurePath(file).parts]:
        raise UserError(
            "real data set",
            str(path),
            f"lists the image {outside[0]!r}, which is not below its own folder; fetch it again",
        )
    files = [str(path.parent / file) for file, _ in listed]
    return file_source(path.stem, files, np.array([label for _, label in listed], dtype=np.int64), class_names)


def join_sources(sources: list[Source]) -> Source:
    """Return several splits as one, in order.

    Raises:
        UserError: the splits do not have the same classes.
    """
    if len(sources) == 1:
        return sources[0]
    first = sources[0]
    if any(source.class_names != first.class_names for source in sources):
        raise UserError(
            "real data set", first.name, "its parts do not have the same classes; give the set as it was published"
        )
    starts = np.cumsum([0, *(len(source.labels) for source in sources)])

    def part_of(i: int) -> tuple[Source, int]:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        return sources[part], i - int(starts[part])

    def encoded(i: int) -> bytes:
        source, place = part_of(i)
        return source.encoded(place)

    def where(i: int) -> str:
        source, place = part_of(i)
        return source.place(place)

    labels = np.concatenate([source.labels for source in sources])
    files = [file for source in sources for file in source.files]
    return Source(first.name, labels, first.class_names, encoded, files, where)


def files_key(path: Path) -> str:
    """Return a hash of the names, sizes and times of a file or of all files in a folder, 16 hex digits.

    A set is read again when the hash changes. Links are followed, as readers do; each folder is read once, so links
    that lead back do no harm. The index that a training writes beside images of a clone says nothing new.

    Raises:
        UserError: a file or folder cannot be read.
    """
    digest, seen = hashlib.blake2b(os.fsencode(os.path.realpath(path)), digest_size=8), set[str]()
    try:
        if not path.is_dir():
            digest.update(_file_key(path.name, path.stat()))
            return digest.hexdigest()
        for folder, folders, files in os.walk(path, onerror=_raise, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            digest.update(os.fsencode(f"{os.path.relpath(folder, path)} {real}\n"))
            for file in sorted(set(files) - {ROW_INDEX}):
                try:
                    digest.update(_file_key(file, os.stat(f"{folder}/{file}")))
                except OSError:  # a link that leads nowhere
                    digest.update(os.fsencode(f"{file}\n"))
    except OSError as error:
        raise UserError(
            "real data set", str(path), f"cannot be read ({error.strerror}: {error.filename}); allow it, or remove it"
        ) from None
    return digest.hexdigest()


def _file_key(name: str, status: os.stat_result) -> bytes:
    return os.fsencode(f"{name} {status.st_size} {status.st_mtime_ns}\n")


def _raise(error: OSError) -> None:
    raise error
