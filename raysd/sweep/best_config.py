"""The best setting of a sweep as an experiment file of its own."""

from typing import Any

from raysd.config import Experiment
from raysd.yaml_text import write_yaml

SUFFIX = "-best"
LONGEST_NAME = 64


def best_config(
    experiment: Experiment, setting: dict[str, Any], images_per_class: int | None = None, note: str = ""
) -> str:
    """Return a file that runs the winner at full size: the experiment's own values and the setting's, without the
    sweep.

    Values that the experiment was given stay, also where they equal the defaults: in a variant or a probe they stand
    for another value than none. `training.real` goes, as a sweep's classifiers learn from the clone.

    Args:
        experiment: the swept experiment.
        setting: values by dotted names, as `generation.guidance_scale` or `training.recipe_options.learning_rate`.
        images_per_class: of the run; the experiment's own when empty.
        note: a remark for the top of the file.

    Returns:
        YAML that `raysd.config.load_experiment` reads.
    """
    values = experiment.model_dump(
        mode="json", exclude_unset=True, exclude={"name": True, "storage": True, "sweep": True, "training": {"real"}}
    )
    size = {} if images_per_class is None else {"generation.images_per_class": images_per_class}
    for name, value in {**setting, **size}.items():
        *parents, field = name.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[field] = value
    head = {"name": experiment.name[: LONGEST_NAME - len(SUFFIX)] + SUFFIX, "storage": experiment.storage}
    return write_yaml(
        {**head, **values}, [f"The best setting of the sweep {experiment.name}, as an experiment of its own.", note]
    )
