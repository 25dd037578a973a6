"""Captions for real images: the class in words, and what the pixels show.

A caption names the class (its name or a synonym), with or without its definition or hypernym, or with adjectives that
are measured on the image: how light the object is, whether its surface is plain, and how much of the frame it fills.
Each adjective compares an image with others of its own class, so uniformly chosen adjectives give the real spread.
"""

from dataclasses import dataclass

import numpy as np

TONES = ("dark", "grey", "light")
PATTERNS = ("plain", "patterned")
CUTS = ("slim", "wide")
INK = 24  # a pixel above this gray value belongs to the object


@dataclass(frozen=True)
class Attributes:
    """Adjectives of N images, as indices into TONES, PATTERNS and CUTS; each array is int [N]."""

    tone: np.ndarray
    pattern: np.ndarray
    cut: np.ndarray

    def words(self, i: int) -> tuple[str, str, str]:
        """Return the three adjectives of image `i`."""
        return TONES[self.tone[i]], PATTERNS[self.pattern[i]], CUTS[self.cut[i]]


def _rank_within_class(values: np.ndarray, labels: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the quantile bin (0..num_bins-1) of each value among the values of its own class."""
    bins = np.empty(len(values), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = np.argsort(np.argsort(values[members], kind="stable"), kind="stable")
        bins[members] = order * num_bins // len(members)
    return bins


def measure_attributes(images: np.ndarray, labels: np.ndarray) -> Attributes:
    """Measure the adjectives of gray images.

    Args:
        images: uint8 [N, H, W], bright object on black.
        labels: int [N].
    """
    pixels = images.astype(np.float32)
    ink = images > INK
    area = ink.sum(axis=(1, 2)).clip(min=1)
    tone = (pixels * ink).sum(axis=(1, 2)) / area
    inside = ink[:, :, 1:] & ink[:, :, :-1]
    steps = np.abs(np.diff(pixels, axis=2)) * inside
    texture = steps.sum(axis=(1, 2)) / inside.sum(axis=(1, 2)).clip(min=1)
    return Attributes(
        tone=_rank_within_class(tone, labels, len(TONES)),
        pattern=_rank_within_class(texture, labels, len(PATTERNS)),
        cut=_rank_within_class(area.astype(np.float32), labels, len(CUTS)),
    )


def describe(row: dict[str, str], adjectives: tuple[str, str, str], rng: np.random.Generator) -> str:
    """Return one caption for an image of class-table row `row`, chosen by `rng`.

    Shares: name or synonym 30 %, adjectives 38 %, definition 12 %, hypernym 12 %, all of them 8 %.
    """
    names = [row["name"], *row["synonyms"].split("|")]
    name = names[0] if rng.random() < 0.7 else names[rng.integers(1, len(names))]
    form = rng.random()
    if form < 0.30:
        return name
    if form < 0.42:
        return f"{name}, {row['definition']}"
    if form < 0.54:
        return f"{name}, {row['hypernym']}"
    kept = " ".join(word for word in adjectives if rng.random() < 0.75)
    described = f"{kept} {name}" if kept else name
    if form < 0.92:
        return described
    return f"{described}, {row['hypernym'] if rng.random() < 0.5 else row['definition']}"


def vocabulary_texts(rows: list[dict[str, str]]) -> list[str]:
    """Return texts that cover every word a caption can hold, for training the tokenizer."""
    words = [" ".join(TONES + PATTERNS + CUTS)]
    for row in rows:
        words += [row["name"], row["definition"], row["hypernym"], *row["synonyms"].split("|")]
    return words
