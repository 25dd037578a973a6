"""What moves the latents of a clone's images along a gradient, and which models and settings it fits."""

from collections.abc import Callable

from raysd.classifier.entropy import EntropyGuide, find_guide
from raysd.classifier.exemplars import ExemplarGuide, Exemplars, FeatureModel
from raysd.clone.settings import ExemplarGuidanceSettings, GenerationSettings, LatentGuidanceSettings
from raysd.diffusion.conventions import STEPPED
from raysd.diffusion.family import Family
from raysd.errors import UserError

FindExemplars = Callable[[ExemplarGuidanceSettings], tuple[Exemplars, FeatureModel]]
LatentGuide = EntropyGuide | ExemplarGuide


def entropy_guide(settings: GenerationSettings, family: Family, num_steps: int) -> EntropyGuide | None:
    """Return the classifier whose doubt guides; None for none.

    Raises:
        UserError: there is no such classifier, or the pipeline does not hand out what the gradient needs.
    """
    wanted = settings.entropy_guidance
    if wanted is None:
        return None
    _check("entropy_guidance", wanted, settings, family, num_steps)
    return find_guide(wanted.classifier, wanted.weight, wanted.every, wanted.through_denoiser)


def exemplar_guide(
    settings: GenerationSettings, family: Family, num_steps: int, find: FindExemplars | None
) -> ExemplarGuide | None:
    """Return the exemplars that guide; None for none. They are found only where the model can be guided.

    Raises:
        UserError: there are no such exemplars, or the pipeline does not hand out what the gradient needs.
    """
    wanted = settings.exemplar_guidance
    if wanted is None:
        return None
    _check("exemplar_guidance", wanted, settings, family, num_steps)
    if find is None:
        raise ValueError("exemplars are images of an experiment: see raysd.resolve.clone_spec_of")
    return ExemplarGuide(*find(wanted), wanted.weight, wanted.every, wanted.through_denoiser)


def _check(
    name: str, wanted: LatentGuidanceSettings, settings: GenerationSettings, family: Family, num_steps: int
) -> None:
    """Refuse a pipeline without the hook, and what has no gradient."""
    why = None
    if family.pipeline not in STEPPED:
        why = f"{settings.model} does not hand out its latents after each step as {', '.join(STEPPED)} do; leave it out"
    elif wanted.through_denoiser and settings.compile:
        why = "a compiled denoiser has no gradient; set generation.compile=false, or through_denoiser to false"
    elif wanted.through_denoiser and settings.step_cache is not None:
        why = "a cached step has no gradient; leave out generation.step_cache, or set through_denoiser to false"
    elif wanted.weight and wanted.every >= num_steps:
        why = f"guides no step of {num_steps}, of which the last never is; set every to less than {num_steps}"
    if why is not None:
        raise UserError(f"generation.{name}", wanted.model_dump(), why)
