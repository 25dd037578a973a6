"""The settings that a sweep compares, and their hash."""

from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import CloneSpec, resolve_clone_spec
from raysd.config import Experiment
from raysd.storage.fingerprint import fingerprint


def sweep_specs(experiment: Experiment) -> list[tuple[GenerationSettings, CloneSpec]]:
    """The settings and the spec of each clone, variants outermost.

    Raises:
        UserError: a variant that is unknown or that the class table cannot fill.
    """
    cells = []
    for variant in experiment.sweep.variants:
        for guidance_scale in experiment.sweep.guidance_scales:
            settings = experiment.generation.model_copy(update={"variant": variant, "guidance_scale": guidance_scale})
            cells.append((settings, resolve_clone_spec(settings, experiment.table, experiment.all_variants)))
    return cells


def sweep_fingerprint(experiment: Experiment) -> str:
    """Hash of what shapes a sweep's answer."""
    specs = [spec.fingerprint for _, spec in sweep_specs(experiment)]
    rest = experiment.model_dump(include={"training", "evaluation", "sweep"})
    counts = {"images_per_class": experiment.generation.images_per_class, "class_counts": experiment.generation.class_counts}
    return fingerprint({"clones": specs, **counts, **rest})
