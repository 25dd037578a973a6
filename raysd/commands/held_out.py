"""Held-out generated images: what classifiers are measured on where an experiment names no real images.

They come from clones with a clone seed that nothing is trained on. An accuracy on them says how well a classifier
recognizes other images of the same generator, and nothing about real images. So their rows have a role of their own,
`generated`, and no verdict mixes them with real ones.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raysd.config import Experiment
from raysd.progress import say
from raysd.storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from raysd.clone.clone import Clone
    from raysd.evaluation.tasks import MeasuredOn

GENERATED = "generated"
SEED_STEP = 2**62
"""From a clone seed to that of the held-out images."""
MOST_CLONES = 8
"""Clones that the held-out images of a sweep come from, at most."""
WORTH = (
    "no real images are named, so these are accuracies on held-out generated images: how well other images of the same "
    "generator are recognized. They say nothing about real images; for that, name some in evaluation.test_set"
)


def names_real_images(experiment: Experiment) -> bool:
    """Return whether the evaluation names a set of real images."""
    sets = experiment.evaluation
    return bool(sets.test_set or sets.test_sets or sets.transfer_sets or sets.validation_set)


def with_objective(experiment: Experiment) -> Experiment:
    """Return an experiment whose sweep chooses by held-out generated images if it names no real ones."""
    if names_real_images(experiment):
        return experiment
    return experiment.model_copy(update={"sweep": experiment.sweep.model_copy(update={"objective": GENERATED})})


def held_out_clones(experiments: Sequence[Experiment], fetch: bool = True) -> "list[Clone]":
    """Return the held-out clones of some settings, each once.

    The more varied images are, the more a classifier of them knows of those of other settings. So all settings of a
    sweep are measured on the images of all, in equal shares: own images alone would favor those with the least variety.

    Args:
        experiments: the settings.
        fetch: whether to fetch the weights of a hub model.
    """
    from raysd.resolve import clone_of

    found: dict[str, Clone] = {}
    for experiment in experiments:
        generation = experiment.generation
        own = {
            "seed": (generation.seed + SEED_STEP) % 2**63,
            "seeds": [],
            "images_per_class": experiment.evaluation.generated_images_per_class,
            "class_counts": {},
        }
        clone = clone_of(experiment, generation.model_copy(update=own), fetch)
        found.setdefault(clone.spec.fingerprint, clone)
    return spread(list(found.values()), MOST_CLONES)


def spread(items: "list[Clone]", count: int) -> "list[Clone]":
    """Return at most so many items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


def held_out_sets(clones: "Sequence[Clone]") -> "list[MeasuredOn]":
    """Return the sets that classifiers are measured on, one for each held-out clone."""
    from raysd.evaluation.tasks import MeasuredOn
    from raysd.resolve import clone_images

    sets = []
    for clone in clones:
        images = clone_images(clone)
        sets.append(MeasuredOn(GENERATED, replace(images, name=f"held-out generated images, {images.name}")))
    return list({fingerprint(measured.identity()): measured for measured in sets}.values())


def generate_held_out(experiment: Experiment, clones: "Sequence[Clone]") -> None:
    """Generate what is missing of some held-out clones."""
    from raysd.commands.checks import check_generation
    from raysd.generation.generate import generate_clones

    missing = [clone for clone in clones if not clone.is_complete()]
    if not missing:
        return
    say(f"held-out images, of a seed that nothing is trained on: {sum(map(len, missing)):,} to be generated")
    check_generation(experiment, missing)
    generate_clones(missing, experiment.generation)
