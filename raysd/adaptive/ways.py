"""The ways in which a round says what the next one adds."""

import math
from itertools import pairwise

import numpy as np

from raysd.adaptive.budget import divide, images_after
from raysd.adaptive.parts import Part, total
from raysd.adaptive.settings import AdaptiveSettings
from raysd.clone.plan import ImageCounts, counts_from_array


def first_parts(settings: AdaptiveSettings, images_per_class: int, num_classes: int) -> list[Part]:
    """Return what the first round generates: as many images of each class."""
    count = images_after(0, images_per_class, settings.num_rounds, settings.first_share)
    return [Part({}, ImageCounts(num_classes, count))]


def next_parts(
    settings: AdaptiveSettings,
    images_per_class: int,
    step: int,
    parts: list[Part],
    accuracies: list[float | None],
    classifier: str,
) -> list[Part]:
    """Return what there is to be after a growth step; images that are there stay.

    Args:
        settings: the way, and its options.
        images_per_class: after the last round.
        step: the growth step, from 1.
        parts: before it.
        accuracies: of the classifier of the round that has ended, on the images that decide, in percent of each
            class; None where there are none.
        classifier: its fingerprint.
    """
    num_classes = parts[0].counts.num_classes
    goal = images_after(step, images_per_class, settings.num_rounds, settings.first_share)
    added = goal * num_classes - total(parts)
    if settings.way == "entropy":
        return [*parts, _guided(settings, parts, added // num_classes, classifier)]
    even = settings.way == "uniform"
    errors = [None if accuracy is None else 100 - accuracy for accuracy in accuracies]
    counts = divide(added, [None] * num_classes if even else errors, settings.floor)
    (part,) = parts
    return [Part(part.changes, counts_from_array(part.counts.array + counts))]


def pool_slice(settings: AdaptiveSettings, images_per_class: int, done: int, step: int) -> tuple[int, tuple[int, int]]:
    """Return the number of the first image of each class in the pool of growth step `step`, and how many of it are
    chosen and generated; `done` is the step before."""
    steps = [*range(done + 1), step]
    goals = [images_after(each, images_per_class, settings.num_rounds, settings.first_share) for each in steps]
    sizes = [math.ceil((after - before) * settings.pool_factor) for before, after in pairwise(goals)]
    return goals[0] + sum(sizes[:-1]), (goals[-1] - goals[-2], sizes[-1])


def _guided(settings: AdaptiveSettings, parts: list[Part], count: int, classifier: str) -> Part:
    """Return images of each class with the numbers after those that are there, guided by a classifier."""
    guidance = {
        "classifier": classifier,
        "weight": settings.weight,
        "every": settings.every,
        "through_denoiser": settings.through_denoiser,
    }
    first = int(np.sum([part.counts.default for part in parts]))
    changes = {**parts[0].changes, "first_image": first, "entropy_guidance": guidance}
    return Part(changes, ImageCounts(parts[0].counts.num_classes, count))
