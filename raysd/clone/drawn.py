"""Pictures as they come from a pipeline, made ready to be stored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

BLACK_LEVEL = 2  # a picture whose brightest value is at most this is black


@dataclass(frozen=True)
class DrawnBatch:
    """Pictures and what is suspect about them."""

    pixels: np.ndarray
    """uint8 [B, H, W, 3], or [B, H, W] for a grey clone."""
    flags: list[str]
    """For each picture `unsafe` (the safety checker), `nan`, `black`, or nothing."""


def finish_pictures(drawn: np.ndarray, unsafe: Sequence[bool], stored_size: int, color: str) -> DrawnBatch:
    """Float [B, H, W, 3] in 0..1 as stored pictures with their flags; a picture with NaN becomes black."""
    finite = np.isfinite(drawn).all(axis=(1, 2, 3))
    pixels = (np.nan_to_num(drawn, nan=0.0) * 255).round().clip(0, 255).astype(np.uint8)
    flags = []
    for picture, is_unsafe, is_finite in zip(pixels, unsafe, finite, strict=True):
        flags.append("unsafe" if is_unsafe else "nan" if not is_finite else "black" if is_black(picture) else "")
    if pixels.shape[1:3] != (stored_size, stored_size):
        small = [Image.fromarray(picture).resize((stored_size, stored_size), Image.Resampling.LANCZOS) for picture in pixels]
        pixels = np.stack([np.asarray(picture) for picture in small])
    if color == "grey":
        pixels = pixels.astype(np.float32).mean(axis=3).round().astype(np.uint8)
    return DrawnBatch(pixels, flags)


def is_black(picture: np.ndarray) -> bool:
    """True for a picture without content (a safety checker's answer, or a numeric failure)."""
    return int(picture.max()) <= BLACK_LEVEL
