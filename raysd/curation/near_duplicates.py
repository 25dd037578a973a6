"""Near-duplicates by thumbnails: two images are alike when their gray thumbnails of 16 px correlate.

The correlation (Pearson's, -1 to 1) ignores a change of brightness or contrast, another codec, and another size. A
shift or a mirror image lowers it. Images of one simple shape on an empty ground count as alike though they show
different things; so look at images to choose a threshold.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raysd.data.images import UNDECODABLE, ImageSet
from raysd.data.pixels import to_rgb
from raysd.errors import UserError

SIDE = 16
BLOCK = 4096  # rows compared at once
FLAT = 1.0  # a thumbnail with a smaller standard deviation (in gray levels) is like nothing


def thumbnail(data: bytes) -> bytes:
    """Return an encoded image as 16 x 16 gray values, one byte each."""
    with Image.open(io.BytesIO(data)) as image:
        return to_rgb(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def descriptors(thumbnails: list[bytes]) -> np.ndarray:
    """Return thumbnails as rows whose dot product is their correlation, float32 [N, 256]; a flat one is all zeros."""
    values = np.frombuffer(b"".join(thumbnails), dtype=np.uint8).reshape(-1, SIDE**2).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(norms < FLAT * SIDE, 0.0, values / np.maximum(norms, 1e-6)).astype(np.float32)


def nearest(queries: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest correlation of each query, float32 [N], and its index among the M others, int64 [N]."""
    similarity, index = np.full(len(queries), -1.0, dtype=np.float32), np.full(len(queries), -1, dtype=np.int64)
    for start in range(0, len(others), BLOCK):
        block = queries @ others[start : start + BLOCK].T
        best = block.argmax(axis=1)
        values = block[np.arange(len(queries)), best]
        better = values > similarity
        similarity[better], index[better] = values[better], start + best[better]
    return similarity, index


def nearest_earlier(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest correlation of each row with an earlier row, float32 [N], and that row, int64 [N].

    Both are -1 for the first row.
    """
    similarity, index = np.full(len(values), -1.0, dtype=np.float32), np.full(len(values), -1, dtype=np.int64)
    for start in range(0, len(values), BLOCK):
        rows = values[start : start + BLOCK]
        similarity[start : start + BLOCK], index[start : start + BLOCK] = nearest(rows, values[:start])
        inside = rows @ rows.T
        inside[np.triu_indices(len(rows))] = -1.0
        best = inside.argmax(axis=1)
        found = inside[np.arange(len(rows)), best]
        better = found > similarity[start : start + BLOCK]
        similarity[start : start + BLOCK][better], index[start : start + BLOCK][better] = (
            found[better],
            start + best[better],
        )
    return similarity, index


@dataclass(frozen=True)
class Reference:
    """Real images that a clone must not repeat: the thumbnails of a test set."""

    name: str
    fingerprint: str
    thumbnails: tuple[bytes, ...]


def read_reference(images: ImageSet) -> Reference:
    """Read a set's thumbnails, for a comparison with a clone.

    Raises:
        UserError: an image cannot be decoded.
    """
    thumbnails: list[bytes] = []
    for file in images.files():
        for image in images.read_rows(file)["image"].to_pylist():
            try:
                thumbnails.append(thumbnail(image["bytes"]))
            except UNDECODABLE as error:
                reason = f"image {len(thumbnails)} cannot be decoded ({error}); repair or remove it"
                raise UserError("real data set", images.name, reason) from None
    return Reference(images.name, images.fingerprint, tuple(thumbnails))
