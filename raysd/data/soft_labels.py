"""Soft labels: what teachers said of each image, read from the parts of a score table beside the images."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.storage.tables import read_table

CLASSES, LOGS = "teacher_classes", "teacher_logs"
MOST_CLASSES = 32  # that are kept of each image; the rest of the probability counts as spread evenly over the others


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of a clone."""

    parts: Location
    """Folder with a part for each file of images, of the same name."""
    num_classes: int
    fingerprint: str
    """Of the scores."""

    @property
    def num_kept(self) -> int:
        """Classes that are kept of each image."""
        return min(self.num_classes, MOST_CLASSES)

    def read(self, file: str, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Return the soft labels of some images of a file, float32 [N, 2, num_kept]: the classes, and the logarithms of
        their probabilities.

        Args:
            file: name of the file of images.
            labels: of the images, int64 [N].
            index: numbers of the images in their classes, int64 [N].

        Raises:
            UserError: an image has no soft label.
        """
        keys, soft = _read_part(self.parts, file, self.num_classes, self.num_kept)
        wanted = index * self.num_classes + labels
        places = np.searchsorted(keys, wanted)
        if len(keys) == 0 or not np.array_equal(keys[np.minimum(places, len(keys) - 1)], wanted):
            remedy = "lacks images that the clone has; run raysd score with the same configuration"
            raise UserError("scoring.teachers", f"{self.parts.uri}/{file}", remedy)
        return soft[places]


def _read_part(parts: Location, file: str, num_classes: int, num_kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of the images of a part, sorted, int64 [N], and their soft labels, float32 [N, 2, num_kept]."""
    if not parts.is_file(file):
        return np.empty(0, np.int64), np.empty((0, 2, num_kept), np.float32)
    table = read_table(parts, file, ["label", "index", CLASSES, LOGS])
    keys = table["index"].to_numpy() * num_classes + table["label"].to_numpy()
    order = np.argsort(keys)
    soft = np.stack([_values(table[name], num_kept) for name in (CLASSES, LOGS)], axis=1)
    return keys[order], soft[order]


def _values(column: pa.ChunkedArray, num_kept: int) -> np.ndarray:
    values = pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
    return values.to_numpy().astype(np.float32).reshape(-1, num_kept)
