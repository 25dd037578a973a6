"""The scoring of the images of a shard, by an actor of Ray Data."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from raysd.clone.clone import Clone
from raysd.clone.shard import DATA, read_shard, shard_name
from raysd.curation.near_duplicates import Reference, descriptors, nearest, thumbnail
from raysd.curation.scores import ScoringSpec
from raysd.curation.teachers import log_softmax, mean_logs, teacher_columns
from raysd.data.pixels import to_rgb
from raysd.errors import Failure, UserError, try_again
from raysd.storage.tables import write_table


class ShardScorer:
    """A Ray Data actor that scores the images of one shard after the other, and writes their parts."""

    def __init__(
        self, clone: Clone, spec: ScoringSpec, references: list[Reference], batch_size: int, num_threads: int
    ) -> None:
        self.clone, self.spec, self.batch_size = clone, spec, batch_size
        self.model = None
        if spec.model is not None or spec.faculty is not None:
            import torch

            torch.set_num_threads(num_threads)
        if spec.model is not None:
            from raysd.curation.image_text_model import ImageTextModel

            self.model = ImageTextModel(spec.model.find_here("scoring.model"), spec.texts)
        self.teachers = [] if spec.faculty is None else [teacher.load() for teacher in spec.faculty.teachers]
        self.names = [f"{reference.name}/{i}" for reference in references for i in range(len(reference.thumbnails))]
        self.references = descriptors([data for reference in references for data in reference.thumbnails])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Score the shards of column `shard`; return them with their numbers of images, the bytes of their parts, and
        why a shard failed."""
        scored = [self._try_shard(int(number)) for number in batch["shard"]]
        return {
            "shard": batch["shard"].tolist(),
            "images": [images for images, _, _ in scored],
            "bytes": [num_bytes for _, num_bytes, _ in scored],
            "failure": [failure for _, _, failure in scored],
        }

    def _try_shard(self, number: int) -> tuple[int, int, str]:
        try:
            return *try_again(lambda: self.score_shard(number)), ""
        except Failure as error:  # the other shards go on
            return 0, 0, str(error)

    def score_shard(self, number: int) -> tuple[int, int]:
        """Score one shard; return the number of its images and the bytes of its part."""
        shard = read_shard(self.clone.folder, number, self.clone.spec, ["image", "label", "index"])
        if shard is None:
            raise UserError(
                "clone", self.clone.folder.child(DATA).uri, f"shard {number} cannot be read; run raysd verify --repair"
            )
        encoded = [row["bytes"] for row in shard.table["image"].to_pylist()]
        labels = shard.table["label"].to_numpy()
        thumbnails = [thumbnail(data) for data in encoded]
        columns: dict[str, Any] = {"label": labels, "index": shard.table["index"].to_numpy(), "thumbnail": thumbnails}
        if encoded:
            columns |= self._fit(encoded, labels)
        if self.names and encoded:
            similarity, match = nearest(descriptors(thumbnails), self.references)
            columns |= {"test_similarity": similarity, "test_match": [self.names[i] for i in match]}
        table = pa.table(
            {part.name: _array(columns.get(part.name), part.type, len(encoded)) for part in self.spec.part}
        )
        return len(encoded), write_table(self.spec.folder(self.clone).child("parts"), shard_name(number), table)

    def _fit(self, encoded: list[bytes], labels: np.ndarray) -> dict[str, Any]:
        """Return how well the images fit the classes, by the image-text model and by the teachers."""
        columns: dict[str, Any] = {}
        logs = [self._in_batches(teacher.log_probabilities, encoded) for teacher in self.teachers]
        if self.model is not None:
            similarities = self._in_batches(self._similarities, encoded)
            logits = self.model.scale * (similarities - similarities.max(axis=1, keepdims=True))
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            own = np.arange(len(labels)), labels
            columns |= {
                "similarity": similarities[own],
                "probability": probabilities[own],
                "guess": similarities.argmax(axis=1),
            }
            if self.spec.faculty is not None and self.spec.faculty.has_texts:
                logs.append(log_softmax(logits))
        return columns | (teacher_columns(mean_logs(logs), labels) if logs else {})

    def _similarities(self, encoded: Sequence[bytes]) -> np.ndarray:
        assert self.model is not None
        return self.model.similarities([to_rgb(Image.open(io.BytesIO(data))) for data in encoded])

    def _in_batches(self, measure: Callable[[Sequence[bytes]], np.ndarray], encoded: list[bytes]) -> np.ndarray:
        starts = range(0, len(encoded), self.batch_size)
        return np.concatenate([measure(encoded[start : start + self.batch_size]) for start in starts])


def _array(values: Any, dtype: pa.DataType, length: int) -> pa.Array:
    """Return a column; nulls where nothing was measured."""
    return pa.nulls(length, dtype) if values is None else pa.array(values, type=dtype)
