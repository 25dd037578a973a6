"""The images of an adaptive clone as an experiment file, for the other commands."""

from collections.abc import Sequence
from typing import Any

from raysd.adaptive.parts import Part
from raysd.config import Experiment
from raysd.yaml_text import write_yaml

SUFFIX = "-adapted"
LONGEST_NAME = 64


def adapted_config(experiment: Experiment, parts: Sequence[Part], note: str = "") -> str:
    """Return a file whose training learns from the images of a last round: its parts are `training.sources`.

    A file cannot say which images of a pool were chosen, so it is for parts with all images.

    Args:
        experiment: that was adapted.
        parts: of one clone seed.
        note: a remark for the top of the file.

    Returns:
        YAML that `raysd.config.load_experiment` reads.
    """
    unwanted: dict[str, Any] = {"name": True, "storage": True, "sweep": True, "adaptive": True}
    values = experiment.model_dump(mode="json", exclude_unset=True, exclude=unwanted)
    keys = experiment.table.keys
    sources = []
    for part in parts:
        own = {keys[label]: count for label, count in part.counts.own}
        sizes = {"images_per_class": part.counts.default, "class_counts": own}
        sources.append({"clone": {**part.full_changes(experiment), **sizes}})
    generation, training = values.get("generation", {}), values.get("training", {})
    generation = {
        **{name: each for name, each in generation.items() if name != "seeds"},
        "seed": experiment.generation.seed,
    }
    head = {"name": experiment.name[: LONGEST_NAME - len(SUFFIX)] + SUFFIX, "storage": experiment.storage}
    whole = {**head, **values, "generation": generation, "training": {**training, "sources": sources}}
    return write_yaml(whole, [f"The images of the last round of {experiment.name}.", note])
