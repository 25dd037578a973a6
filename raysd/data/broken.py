"""The check of every image of a set when the set is brought in: each is decoded once."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from raysd.data.images import UNDECODABLE
from raysd.data.own_name import OnBroken
from raysd.data.pixels import is_read_as_before, to_rgb
from raysd.data.readers import Source
from raysd.errors import UserError
from raysd.progress import Progress, say

MOST_BROKEN = 0.01
"""The largest share of images that may be skipped."""
SHOWN = 10
CHUNK = 256  # images in memory at once
PROGRESS_FROM = 10_000


@dataclass(frozen=True)
class CheckedImages:
    """The images of a source that can be decoded."""

    rows: np.ndarray
    """Their numbers in the source, int64 [n]."""
    is_read_as_before: np.ndarray
    """Whether an image's colors are those that version 0.1.0 saw, bool [n]."""


def check_images(name: str, source: Source, rows: np.ndarray, on_broken: OnBroken | None) -> CheckedImages:
    """Decode some images of a source; return those that can be decoded.

    Args:
        name: the set's name, as the user gave it.
        source: the images.
        rows: numbers of the images, int64 [n].
        on_broken: whether to skip images that cannot be decoded; None where the set must be whole.

    Raises:
        UserError: an image cannot be decoded, or with `skip` more than 1 % of them.
    """
    broken: list[str] = []
    is_good, is_before = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    with (
        Progress(f"checking {source.name}", len(rows), "images")
        if len(rows) > PROGRESS_FROM
        else nullcontext() as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for start in range(0, len(rows), CHUNK):
            chunk = [int(row) for row in rows[start : start + CHUNK]]
            for place, found in enumerate(pool.map(_decode, [_encoded(source, row) for row in chunk]), start):
                if isinstance(found, bool):
                    is_good[place], is_before[place] = True, found
                    continue
                broken.append(f"{source.place(int(rows[place]))} ({found})")
                if on_broken != "skip":
                    raise _broken_image(name, broken[0], on_broken is not None)
                if len(broken) > MOST_BROKEN * len(rows):
                    raise _too_many(name, broken, len(rows))
            if progress is not None:
                progress.advance(len(chunk))
    if broken:
        shown = ", ".join(broken[:SHOWN]) + (", ..." if len(broken) > SHOWN else "")
        say(f"{name}: {len(broken):,} of {len(rows):,} images cannot be decoded and are left out: {shown}")
    return CheckedImages(rows[is_good], is_before[is_good])


def _broken_image(name: str, broken: str, may_skip: bool) -> UserError:
    skip = f"; or leave up to 1 % of such images out with {with_option(name, 'on_broken=skip')}" if may_skip else ""
    return UserError("real data set", name, f"an image cannot be decoded: {broken}; repair or remove it{skip}")


def _too_many(name: str, broken: list[str], count: int) -> UserError:
    what = f"more than 1 % of its {count:,} images cannot be decoded: {', '.join(broken[:SHOWN])}"
    return UserError("real data set", name, f"{what}; repair or remove them")


def with_option(name: str, option: str) -> str:
    """Return the name of a set with one option more."""
    return f"{name}{'&' if '?' in name else '?'}{option}"


def _encoded(source: Source, row: int) -> bytes | str:
    try:
        return source.encoded(row)
    except UserError as error:
        return error.remedy


def _decode(data: bytes | str) -> bool | str:
    """Return whether an image's colors are those that version 0.1.0 saw, or why it cannot be decoded."""
    if isinstance(data, str):
        return data
    try:
        with Image.open(io.BytesIO(data)) as image:
            return is_read_as_before(image, to_rgb(image))
    except UnidentifiedImageError:
        return "no format that Pillow knows"
    except UNDECODABLE as error:
        return " ".join((str(error) or type(error).__name__).split())
