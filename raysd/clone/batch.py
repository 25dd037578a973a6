"""One batch of images, or the batch size that a GPU's memory has room for."""

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raysd.clone.drawn import DrawnBatch
from raysd.clone.plan import PlannedImage
from raysd.clone.spec import CloneSpec
from raysd.errors import UserError

if TYPE_CHECKING:
    from raysd.clone.drawer import BatchGenerator

FIELD = "generation.batch_size"


def generate_batch(generator: "BatchGenerator", spec: CloneSpec, images: Sequence[PlannedImage]) -> DrawnBatch:
    """Generate a batch.

    One that the GPU has no memory for is tried again, once what was left there is freed. It is never split: the size of a batch shapes the bytes of its
    images, and one device's images would differ from another's. Halves are only tried to find the size that fits.

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
        raise UserError(FIELD, len(images), f"not even one image of {pixels} fits into {_gpu()}; lower generation.image_size, or use larger GPUs")
    raise UserError(FIELD, len(images), f"does not fit into {_gpu()} with images of {pixels}; set it to {size}, which does, or use larger GPUs")


def _try(generator: "BatchGenerator", spec: CloneSpec, images: Sequence[PlannedImage]) -> DrawnBatch | None:
    """None where the memory is too small. What the failed call held is freed after its error is gone, which holds it."""
    try:
        return generator.draw(spec, images)
    except Exception as error:
        torch = sys.modules.get("torch")  # not loaded for its error alone
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
    gc.collect()
    torch.cuda.empty_cache()
    return None


def _gpu() -> str:
    from raysd.device import find_device

    torch, device = sys.modules["torch"], find_device()
    if device.type != "cuda":
        return "the device"
    return f"{torch.cuda.get_device_name(device)} ({torch.cuda.get_device_properties(device).total_memory / 1e9:.0f} GB)"
