"""A batch of generated images: generate it in the size that a GPU has memory for, flag what is suspect, and make it
ready to be stored."""

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from raysd.clone.plan import PlannedImage
from raysd.clone.spec import CloneSpec
from raysd.errors import UserError

BLACK_LEVEL = 2  # an image whose brightest value is at most this is black


@dataclass(frozen=True)
class GeneratedBatch:
    """Images and what is suspect about them."""

    pixels: np.ndarray
    """uint8 [B, H, W, 3], or [B, H, W] for a gray clone."""
    flags: list[str]
    """For each image `unsafe` (the safety checker), `nan`, `black`, or nothing."""


def finish_images(generated: np.ndarray, unsafe: Sequence[bool], stored_size: int, color: str) -> GeneratedBatch:
    """Convert float [B, H, W, 3] in 0..1 to images as they are stored, with their flags; an image with NaN becomes
    black."""
    finite = np.isfinite(generated).all(axis=(1, 2, 3))
    pixels = (np.nan_to_num(generated, nan=0.0) * 255).round().clip(0, 255).astype(np.uint8)
    return finish_pixels(pixels, finite, unsafe, stored_size, color)


def finish_pixels(
    pixels: np.ndarray, finite: np.ndarray, unsafe: Sequence[bool], stored_size: int, color: str
) -> GeneratedBatch:
    """Convert uint8 [B, H, W, 3] to images as they are stored, with their flags; `finite` says which had no NaN."""
    flags = []
    for image, is_unsafe, is_finite in zip(pixels, unsafe, finite, strict=True):
        flags.append("unsafe" if is_unsafe else "nan" if not is_finite else "black" if is_black(image) else "")
    if pixels.shape[1:3] != (stored_size, stored_size):
        small = [
            Image.fromarray(image).resize((stored_size, stored_size), Image.Resampling.LANCZOS) for image in pixels
        ]
        pixels = np.stack([np.asarray(image) for image in small])
    if color == "gray":
        pixels = pixels.astype(np.float32).mean(axis=3).round().astype(np.uint8)
    return GeneratedBatch(pixels, flags)


def is_black(image: np.ndarray) -> bool:
    """Return whether an image has no content (a safety checker's answer, or a numeric failure)."""
    return int(image.max()) <= BLACK_LEVEL


FIELD = "generation.batch_size"


MPS_IS_FULL = "MPS backend out of memory"
"""What torch says of a Mac's GPU, in an error of no kind of its own."""


class BatchGenerator(Protocol):
    """Generator of a batch: a `raysd.generation.pipeline.Generator`, or the model `dummy`."""

    def generate(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> GeneratedBatch:
        """Generate one batch."""


def generate_batch(generator: BatchGenerator, spec: CloneSpec, images: Sequence[PlannedImage]) -> GeneratedBatch:
    """Generate a batch.

    One that the GPU has no memory for is tried again, once what was left there is freed. It is never split: the size of
    a batch shapes the bytes of its images, and one device's images would differ from another's. Halves are only tried
    to find the size that fits.

    Raises:
        UserError: it does not fit.
    """
    for _ in range(2):
        if (batch := _try(generator, spec, images)) is not None:
            return batch
    size = len(images) // 2
    while size and _try(generator, spec, images[:size]) is None:
        size //= 2
    pixels = f"{spec.image_size} px"
    if not size:
        raise UserError(
            FIELD,
            len(images),
            f"not even one image of {pixels} fits into {_gpu()}; lower generation.image_size, or use larger GPUs",
        )
    raise UserError(
        FIELD,
        len(images),
        f"does not fit into {_gpu()} with images of {pixels}; set it to {size}, which does, or use larger GPUs",
    )


def _try(generator: BatchGenerator, spec: CloneSpec, images: Sequence[PlannedImage]) -> GeneratedBatch | None:
    """Generate a batch; return None where the memory is too small. The memory of a failed call is freed only after its
    error is gone, since the error refers to it."""
    try:
        return generator.generate(spec, images)
    except Exception as error:
        torch, said = sys.modules.get("torch"), str(error)  # torch is not loaded for its error alone
        if torch is None or not (isinstance(error, torch.OutOfMemoryError) or MPS_IS_FULL in said):
            raise
    gc.collect()
    torch.cuda.empty_cache()
    if MPS_IS_FULL in said:
        torch.mps.empty_cache()
    return None


def _gpu() -> str:
    from raysd.device import find_device

    torch, device = sys.modules["torch"], find_device()
    if device.type != "cuda":
        return "the device"
    return (
        f"{torch.cuda.get_device_name(device)} ({torch.cuda.get_device_properties(device).total_memory / 1e9:.0f} GB)"
    )
