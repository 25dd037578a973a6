"""What the rounds of an adaptive clone will generate and train, before the first of them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from raysd.adaptive.budget import all_goals
from raysd.adaptive.settings import AdaptiveSettings
from raysd.adaptive.ways import pool_slice
from raysd.classifier.entropy import EntropyGuide
from raysd.clone.clone import Clone
from raysd.clone.plan import ImageCounts


def images_to_generate(settings: AdaptiveSettings, images_per_class: int) -> int:
    """Return the images that the rounds generate of each class, on average."""
    if settings.way != "select":
        return images_per_class
    first, (_, pool) = pool_slice(settings, images_per_class, settings.num_rounds - 2, settings.num_rounds - 1)
    return first + pool


def clones_to_generate(settings: AdaptiveSettings, images_per_class: int, clones: Sequence[Clone]) -> list[Clone]:
    """Return clones that cost what the rounds of some clones generate; they cannot be generated themselves, since
    nobody knows the classifiers yet.

    Args:
        settings: the way, and its options.
        images_per_class: after the last round.
        clones: the plain clone of each clone seed.
    """
    if settings.way != "entropy":
        whole = images_to_generate(settings, images_per_class)
        return [clone.with_counts(ImageCounts(clone.counts.num_classes, whole)) for clone in clones]
    guide = EntropyGuide("", "", settings.weight, settings.every, settings.through_denoiser)
    goals = all_goals(images_per_class, settings.num_rounds, settings.first_share)
    found = list[Clone]()
    for clone in clones:
        parts = [clone, *[replace(clone, spec=replace(clone.spec, entropy_guide=guide))] * (len(goals) - 1)]
        counts = [goals[0], *(after - before for before, after in pairwise(goals))]
        num_classes = clone.counts.num_classes
        found += [part.with_counts(ImageCounts(num_classes, each)) for part, each in zip(parts, counts, strict=True)]
    return found


def num_trainings(settings: AdaptiveSettings, seeds: int) -> int:
    """Return the classifiers that the rounds of one clone seed train, at most.

    Args:
        settings: of the rounds.
        seeds: classifier seeds of the clone.
    """
    rounds = settings.num_rounds if settings.patience is None else settings.max_rounds
    return rounds * seeds if settings.training == "continued" else rounds - 1 + seeds
