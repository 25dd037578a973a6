"""The real Fashion-MNIST: 60,000 training and 10,000 test pictures, 28 px grey, padded to 32 px.

It is looked for where Debian's package `dataset-fashion-mnist` puts it, and where torchvision's download puts it.
"""

import gzip
import os
from pathlib import Path
from typing import Literal

import numpy as np

PADDING = 2
CLASS_NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
FILES = {"train": "train", "test": "t10k"}


def fashion_mnist_folder() -> Path | None:
    """The folder with the four gzipped IDX files, or None. `RAYSD_FASHION_MNIST` names another place."""
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
    """All pictures of a split: uint8 [N, 32, 32] and labels int64 [N].

    Raises:
        FileNotFoundError: when the files are not on this machine.
    """
    folder = fashion_mnist_folder()
    if folder is None:
        raise FileNotFoundError(
            "Fashion-MNIST: not on this machine. Install the Debian package dataset-fashion-mnist, or download it with "
            "torchvision.datasets.FashionMNIST and set RAYSD_FASHION_MNIST to its raw folder."
        )
    prefix = folder / FILES[split]
    images = _read_idx(Path(f"{prefix}-images-idx3-ubyte.gz"), header=16).reshape(-1, 28, 28)
    labels = _read_idx(Path(f"{prefix}-labels-idx1-ubyte.gz"), header=8)
    return np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING))), labels.astype(np.int64)


def _read_idx(path: Path, header: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint8, offset=header)
