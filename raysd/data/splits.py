"""Frozen splits, which say which images of a set without an official split are for testing; committed text files.

A line that is no comment holds a class, its number of images, and in hexadecimal one bit per image, the highest bit
first: 1 is for testing. Images are counted by the number in their file name, 1 to n; or, where the class is `*`, all
images of the set in its own order. The last line is a checksum of the others. `tools/make_splits.py` writes them.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from raysd.data.readers import Source, Split
from raysd.errors import UserError

FOLDER = Path(__file__).parent / "split_files"
ALL = "*"
PUBLISHED = "give the set as it was published"


def hashed_mask(name: str, count: int, test_share: float) -> np.ndarray:
    """Return which of the images 1 to `count` of a class are for testing, by the order of their hashes; bool [count].

    The hash is blake2b of `<name>/<number>`, so that the split depends on no library's random numbers.
    """
    order = sorted(range(count), key=lambda i: hashlib.blake2b(f"{name}/{i + 1}".encode(), digest_size=16).digest())
    is_test = np.zeros(count, dtype=bool)
    is_test[order[: round(count * test_share)]] = True
    return is_test


def half_mask(labels: np.ndarray, split: Split) -> np.ndarray:
    """Return which images of a user's set are in the half `split`, bool [N]; the larger half is for training.

    `hashed_mask` splits each class over its images in their order, so the halves stay the same as long as the set
    does.
    """
    is_test = np.zeros(len(labels), dtype=bool)
    by_label = np.argsort(labels, kind="stable")
    starts = np.unique(labels[by_label], return_index=True)[1]
    for members in np.split(by_label, starts[1:]) if len(labels) else []:
        is_test[members] = hashed_mask(str(labels[members[0]]), len(members), (len(members) // 2) / len(members))
    return is_test if split == "test" else ~is_test


def split_text(masks: dict[str, np.ndarray], header: str) -> str:
    """Return a frozen split as the text of its file: one mask bool [n] per class, or one for all under `*`."""
    lines = [f"{name} {len(mask)} {np.packbits(mask).tobytes().hex()}" for name, mask in masks.items()]
    return (
        "".join(f"# {line}\n" for line in header.splitlines())
        + "\n".join([*lines, f"checksum {_checksum(lines)}"])
        + "\n"
    )


def read_split(name: str) -> dict[str, np.ndarray]:
    """Return the masks of a committed split by class, bool [n]; True for testing.

    Raises:
        UserError: the file was changed.
    """
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    *lines, last = [line for line in text.splitlines() if line and not line.startswith("#")]
    if last != f"checksum {_checksum(lines)}":
        raise UserError("frozen split", name, "the file was changed, its checksum is wrong; install raysd again")
    masks = {}
    for line in lines:
        key, count, bits = line.split()
        masks[key] = np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=int(count)).astype(bool)
    return masks


def frozen_mask(name: str, source: Source, split: Split) -> np.ndarray:
    """Return which images of a set belong to one part of its frozen split, bool [N].

    Raises:
        UserError: the set does not have exactly the images of the split.
    """
    masks = read_split(name)
    if ALL in masks:
        is_test = masks[ALL]
        _check_count(name, "", len(source.labels), len(is_test))
    else:
        is_test = np.zeros(len(source.labels), dtype=bool)
        for label, class_name in enumerate(source.class_names):
            members = np.flatnonzero(source.labels == label)
            mask = masks.get(class_name)
            if mask is None:
                raise UserError("frozen split", name, f"has no class {class_name!r}; {PUBLISHED}")
            _check_count(name, f"of class {class_name} ", len(members), len(mask))
            numbers = np.array([_number(name, source.files[int(i)]) for i in members])
            if sorted(numbers.tolist()) != list(range(1, len(mask) + 1)):
                raise UserError(
                    "frozen split",
                    name,
                    f"the files of class {class_name} are not numbered 1 to {len(mask)}; {PUBLISHED}",
                )
            is_test[members] = mask[numbers - 1]
        _check_count(name, "", len(source.class_names), len(masks), "classes")
    return is_test if split == "test" else ~is_test


def _number(name: str, file: str) -> int:
    found = re.search(r"(\d+)$", Path(file).stem)
    if found is None:
        raise UserError("frozen split", name, f"the file {file} has no number; {PUBLISHED}")
    return int(found[1])


def _check_count(name: str, of_what: str, there: int, wanted: int, unit: str = "images") -> None:
    if there != wanted:
        raise UserError(
            "frozen split",
            name,
            f"the set has {there} {unit} {of_what}and the split was made for {wanted}; {PUBLISHED}",
        )


def _checksum(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
