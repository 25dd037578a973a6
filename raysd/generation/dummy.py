"""The model `dummy`: each class has a pattern of colors, each image noise of its own. It needs no torch and no weights.

With it a cluster, a storage root or a job can be tried in seconds. A batch takes a millisecond per inference step, so
more steps stand for a slower model.
"""

import time
from collections.abc import Sequence
from zlib import crc32

import numpy as np

from raysd.clone.plan import PlannedImage
from raysd.clone.spec import CloneSpec
from raysd.generation.batch import GeneratedBatch, finish_images

CELLS = 4  # of a pattern, along a side
STEP_SECONDS = 0.001


class DummyGenerator:
    """Generates batches as a `raysd.generation.pipeline.Generator` does; more guidance makes the images of a class
    more alike."""

    def generate(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> GeneratedBatch:
        """Generate one batch."""
        time.sleep(STEP_SECONDS * spec.num_inference_steps)
        pixels = np.stack([_pixels(spec, image) for image in images])
        return finish_images(pixels, [False] * len(images), spec.stored_size, spec.color)


def _pixels(spec: CloneSpec, image: PlannedImage) -> np.ndarray:
    """Return an image's pixels, float [S, S, 3] in 0..1."""
    size, share = spec.image_size, spec.guidance_scale / (1 + spec.guidance_scale)
    cells = np.random.default_rng(image.label).random((CELLS, CELLS, 3))
    place = np.arange(size) * CELLS // size
    identity = [
        image.seed,
        spec.num_inference_steps,
        crc32(image.prompt.encode()),
        crc32(image.negative_prompt.encode()),
    ]
    noise = np.random.default_rng(identity).random((size, size, 3))
    return share * cells[place][:, place] + (1 - share) * noise
