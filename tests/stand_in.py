"""A stand-in for the pipeline, where a test is about shards and not about diffusion: its actors start at once."""

import numpy as np
from plans import plan_of, spec_of

from raysd.clone.clone import Clone
from raysd.generation.actor import GenerationActor
from raysd.generation.batch import GeneratedBatch
from raysd.storage.location import Location


class StandIn:
    """Generates noise from each image's seed, and flags what it is told to: {position: number of bad tries}."""

    def __init__(self, bad=()):
        self.bad, self.batches = dict(bad), []

    def generate(self, spec, images):
        self.batches.append([(image.position, image.redraw) for image in images])
        pixels = np.stack(
            [np.random.default_rng(image.seed).integers(3, 255, (8, 8), dtype=np.uint8) for image in images]
        )
        return GeneratedBatch(
            pixels, ["unsafe" if image.redraw < self.bad.get(image.position, 0) else "" for image in images]
        )


def actor_class(make):
    """An actor that generates with what `make(spec)` returns. Put in the place of
    `raysd.generation.actor_pool.GenerationActor`, it travels into Ray's processes by value."""

    class Actor(GenerationActor):
        @staticmethod
        def load_generator(spec, num_threads):
            return make(spec)

    return Actor


def actor_of(job, stand_in, batch_size=4):
    return actor_class(lambda spec: stand_in)(job.spec, batch_size, 1)


def job_of(folder, images_per_class=3, **changes):
    return Clone.of(plan_of(images_per_class, 15, spec_of(**changes)), Location(str(folder)))
