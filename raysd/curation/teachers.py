"""Teachers: classifiers whose mean class distribution is kept of each image.

The distribution is kept as logarithms in float16, which holds small probabilities that a high temperature raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from raysd.data.soft_labels import CLASSES, LOGS, MOST_CLASSES

SawReal = Literal["no", "unknown", "yes"]
ANSWERS: tuple[SawReal, ...] = ("no", "unknown", "yes")
OF_TEACHERS = [
    (CLASSES, pa.list_(pa.int32())),
    (LOGS, pa.list_(pa.float16())),
    ("teacher_guess", pa.int64()),
    ("teacher_probability", pa.float32()),
    ("entropy", pa.float32()),
    ("margin", pa.float32()),
]
"""Columns of a score table with teachers."""


class LoadedTeacher(Protocol):
    """A teacher on the device of this process."""

    def log_probabilities(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Return the logarithm of each class's probability of encoded images, float64 [B, K]."""


class Teacher(Protocol):
    """A classifier that teaches."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes its answers."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def saw_real(self) -> SawReal:
        """Whether it ever learned from a real image."""

    def load(self) -> LoadedTeacher:
        """Return it on the device of this process."""


@dataclass(frozen=True)
class Faculty:
    """All teachers of a scoring; their distributions are averaged."""

    teachers: tuple[Teacher, ...]
    has_texts: bool
    """Whether the image-text model is one of them."""
    texts_name: str = ""

    @property
    def names(self) -> list[str]:
        """Names of all, for people."""
        return [*(teacher.name for teacher in self.teachers), *([self.texts_name] if self.has_texts else [])]

    @property
    def saw_real(self) -> SawReal:
        """Whether any of them ever learned from a real image; nobody knows it of an image-text model."""
        answers = [teacher.saw_real for teacher in self.teachers]
        return max([*answers, "unknown"] if self.has_texts else answers, key=ANSWERS.index)

    def identity(self) -> dict[str, Any]:
        """Return what a score's fingerprint needs of them."""
        classifiers = [teacher.fingerprint for teacher in self.teachers]
        return {"classifiers": classifiers, "has_texts": self.has_texts, "kept": MOST_CLASSES}


def mean_logs(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logarithm of the mean of some distributions, float64 [B, K], from their logarithms."""
    return np.asarray(np.logaddexp.reduce(np.stack(parts), axis=0) - np.log(len(parts)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def teacher_columns(logs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the columns of a score table for distributions, given as logarithms float64 [N, K].

    Of many classes the likeliest are kept, in falling order.
    """
    count, num_classes = logs.shape
    probabilities, own = np.exp(logs), (np.arange(count), labels)
    others = probabilities.copy()
    others[own] = -1
    kept = np.broadcast_to(np.arange(num_classes), logs.shape)
    if num_classes > MOST_CLASSES:
        kept = np.argsort(-logs, axis=1, kind="stable")[:, :MOST_CLASSES]
    least = float(np.finfo(np.float16).min)
    return {
        CLASSES: list(kept.astype(np.int32)),
        LOGS: list(np.maximum(np.take_along_axis(logs, kept, axis=1), least).astype(np.float16)),
        "teacher_guess": logs.argmax(axis=1),
        "teacher_probability": probabilities[own],
        "entropy": -(probabilities * logs).sum(axis=1),
        "margin": probabilities[own] - others.max(axis=1),
    }
