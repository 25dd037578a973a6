"""The spec of a clone: the resolved values of all that shapes an image, and their fingerprint."""

from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal

from raysd.classifier.entropy import EntropyGuide
from raysd.classifier.exemplars import ExemplarGuide
from raysd.clone.guiding import Guiding, check_guider, resolve_guiding
from raysd.clone.latent_guides import FindExemplars, LatentGuide, entropy_guide, exemplar_guide
from raysd.clone.settings import SAMPLER_STEPS, GenerationSettings, SchedulerOption, StepCacheSettings
from raysd.diffusion.checkpoint import SHIPPED, Lora, Model, find_checkpoint, find_lora, find_model, plan_model
from raysd.diffusion.conventions import why_refused
from raysd.diffusion.family import FEW_STEPS, Family, read_family
from raysd.diffusion.inspection import check_checkpoint, check_lora
from raysd.diffusion.schedulers import resolve_scheduler
from raysd.diffusion.step_cache import cannot_cache
from raysd.errors import UserError
from raysd.prompts.resolve import resolve_variant
from raysd.prompts.settings import VariantSettings
from raysd.prompts.table import ClassTable
from raysd.prompts.variant import PromptVariant
from raysd.storage.fingerprint import fingerprint

PNG_LIMIT = 64  # pixels; larger images are stored as JPEG
WHOLE = (0.0, 1.0)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class CloneSpec:
    """A clone to be generated; make one with `resolve_clone_spec`."""

    model: Model
    table: ClassTable
    variant_name: str
    variant: PromptVariant
    guidance_scale: float
    scheduler: str | None
    """A diffusers scheduler class; None for the checkpoint's own."""
    num_inference_steps: int
    image_size: int
    dtype: str
    codec: str
    color: str
    seed: int
    stored_size: int
    loras: tuple[Lora, ...] = ()
    scheduler_options: tuple[tuple[str, SchedulerOption], ...] = ()
    guidance_interval: tuple[float, float] = WHOLE
    safety_checker: bool = True
    flagged: str = "redraw"
    max_redraws: int = 3
    compile: bool | Literal["regional"] = False
    guidance_version: int = 1
    """Of the family's convention (`raysd.diffusion.conventions`)."""
    step_cache: StepCacheSettings | None = None
    first_image: int = 0
    """Number of the first image of each class."""
    entropy_guide: EntropyGuide | None = None
    exemplar_guide: ExemplarGuide | None = None
    guiding: Guiding = field(default_factory=Guiding)

    @property
    def weights(self) -> tuple[Model | Lora, ...]:
        """The models and LoRA weights, which each node that generates needs."""
        weak = self.guiding.weak_model
        return self.model, *(() if weak is None else (weak,)), *self.loras

    @property
    def is_here(self) -> bool:
        """Whether all weights are on this machine, and so the fingerprint is known."""
        return all(each.digest for each in self.weights)

    @property
    def latent_guide(self) -> LatentGuide | None:
        """What moves the latents along its gradient; None for nothing."""
        return self.entropy_guide or self.exemplar_guide

    @cached_property
    def family(self) -> Family:
        """Facts about the model's pipeline."""
        return read_family(self.model.find_configs_here())

    @cached_property
    def pipeline_key(self) -> str:
        """Hash that is equal for clones that one loaded pipeline can generate."""
        loras = [[lora.digest, lora.scale] for lora in self.loras]
        has_checker = self.safety_checker and self.family.has_safety_checker
        key = [self.model.digest, self.dtype, loras, self.compile, has_checker]
        return fingerprint(key + ([] if (weak := self.guiding.weak_model) is None else [weak.digest]))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that shapes an image, without the number of images and the variant's name; `unknown` while
        the model's weights are still on the hub."""
        return fingerprint(self.identity()) if self.is_here else UNKNOWN

    def identity(self) -> dict[str, Any]:
        """Return the values that the fingerprint hashes, as plain JSON."""
        return {
            "model_digest": self.model.digest,
            "loras": [{"digest": lora.digest, "scale": lora.scale} for lora in self.loras],
            "classes": [{column: row[column] for column in self.table.columns} for row in self.table.rows],
            "variant": self.variant.identity(),
            "guidance_scale": self.guidance_scale,
            "guidance_interval": list(self.guidance_interval),
            "scheduler": self.scheduler,
            "scheduler_options": dict(self.scheduler_options),
            "num_inference_steps": self.num_inference_steps,
            "image_size": self.image_size,
            "stored_size": self.stored_size,
            "dtype": self.dtype,
            "compile": self.compile,
            "codec": self.codec,
            "color": "grey" if self.color == "gray" else self.color,  # as fingerprints of version 0.1.0 have it
            "safety_checker": self.safety_checker,
            "flagged": self.flagged,
            "max_redraws": self.max_redraws if self.flagged == "redraw" else None,
            "seed": self.seed,
            **({} if self.guidance_version == 1 else {"guidance_version": self.guidance_version}),
            **({"step_cache": self.step_cache.model_dump()} if self.step_cache is not None else {}),
            **({"first_image": self.first_image} if self.first_image else {}),
            **({"entropy_guidance": self.entropy_guide.identity()} if self.entropy_guide is not None else {}),
            **({"exemplar_guidance": self.exemplar_guide.identity()} if self.exemplar_guide is not None else {}),
            **self.guiding.identity(),
        }

    def describe(self) -> dict[str, Any]:
        """Return the identity, with the names that a person looks for."""
        names: dict[str, Any] = {
            "model": self.model.name,
            "revision": self.model.revision,
            "commit": self.model.commit,
            "variant_name": self.variant_name,
        }
        if (weak := self.guiding.weak_model) is not None:
            names |= {"weak_model_name": weak.name, "weak_model_commit": weak.commit}
        if (guide := self.exemplar_guide) is not None:
            names |= {"num_real_images": guide.exemplars.num_real_images, "exemplars": guide.describe()}
        return {**names, "pipeline": self.family.pipeline, **self.identity()}


def resolve_clone_spec(
    settings: GenerationSettings,
    table: ClassTable,
    variants: dict[str, VariantSettings],
    fetch: bool = True,
    find_exemplars: FindExemplars | None = None,
) -> CloneSpec:
    """Fill in the model's defaults and check the settings against the model and the class table.

    Args:
        settings: how the clone is generated.
        table: its classes.
        variants: all variants of prompts.
        fetch: whether to fetch the weights of a hub model; if they are missing otherwise, the fingerprint is unknown.
        find_exemplars: finds the exemplars of `exemplar_guidance`; only needed where the settings ask for some.

    Raises:
        UserError: unknown model or variant, a template that the table cannot fill, a setting that the model ignores,
            or a scheduler that does not fit it.
    """
    variant = resolve_variant(settings.variant, variants, table)
    if settings.negative_prompt is not None:
        variant = variant.with_negative_prompt(settings.negative_prompt)
    checkpoint = find_checkpoint(settings.model, settings.revision)
    if checkpoint.repository is None:
        stored = checkpoint.variant(settings.dtype)
        check_checkpoint(checkpoint.name, checkpoint.folder, settings.safety_checker, stored)
    family = read_family(checkpoint.folder)
    _check_family(settings, family)
    _check_guidance(settings, variant, family)
    dtype = _dtype(settings.model, family) if settings.dtype == "auto" else settings.dtype
    model = (find_model if fetch else plan_model)(settings.model, settings.revision, dtype)
    if checkpoint.repository is not None and not model.missing_bytes:
        check_checkpoint(model.name, model.folder, settings.safety_checker, model.variant)
    num_steps = settings.num_inference_steps or (FEW_STEPS if family.is_few_step else SAMPLER_STEPS[settings.sampler])
    scheduler = resolve_scheduler(
        model, family, settings.scheduler, settings.scheduler_options, settings.sampler == "fast", num_steps
    )
    _check_regions(settings, family)
    size = _image_size(settings, model, family)
    stored_size = settings.stored_size or size
    if stored_size > size:
        raise UserError(
            "generation.stored_size", stored_size, f"is larger than the generated images; use at most {size}"
        )
    loras = tuple(find_lora(lora.path, lora.scale) for lora in settings.lora)
    for lora in loras:
        check_lora(lora, model, family.denoiser)
    return CloneSpec(
        model=model,
        table=table,
        variant_name=settings.variant,
        variant=variant,
        guidance_scale=settings.mean_guidance_scale,
        scheduler=scheduler,
        num_inference_steps=num_steps,
        image_size=size,
        dtype=dtype,
        codec=("png" if stored_size <= PNG_LIMIT else "jpeg") if settings.codec == "auto" else settings.codec,
        color=("gray" if model.is_embedded else "rgb") if settings.color == "auto" else settings.color,
        seed=settings.seed,
        stored_size=stored_size,
        loras=loras,
        scheduler_options=tuple(sorted(settings.scheduler_options.items())),
        guidance_interval=settings.guidance_interval if settings.mean_guidance_scale > 1 else WHOLE,
        safety_checker=settings.safety_checker,
        flagged=settings.flagged,
        max_redraws=settings.max_redraws,
        compile=settings.compile,
        guidance_version=family.known.version,
        step_cache=_step_cache(settings, model, family),
        first_image=settings.first_image,
        entropy_guide=entropy_guide(settings, family, num_steps),
        exemplar_guide=exemplar_guide(settings, family, num_steps, find_exemplars),
        guiding=resolve_guiding(settings, family, model, dtype, variant.negative_prompt, fetch),
    )


def _check_regions(settings: GenerationSettings, family: Family) -> None:
    """Refuse to compile the repeated blocks of a model that is not known to have some."""
    if settings.compile == "regional" and not family.regions:
        remedy = f"{settings.model} is not known to have repeated blocks; set it to true"
        raise UserError("generation.compile", "regional", remedy)


def _image_size(settings: GenerationSettings, model: Model, family: Family) -> int:
    """Return the side of the generated images.

    Raises:
        UserError: the family does not generate images of that size, or none is known.
    """
    only = family.known.only_size
    size = settings.image_size or only or family.native_size
    if size is None:
        raise UserError("generation.image_size", None, f"{model.name} does not say its size; set one")
    if only is not None and size != only:
        raise UserError("generation.image_size", size, f"{family.pipeline} generates {only} px alone; set it to {only}")
    if size % family.size_multiple:
        raise UserError("generation.image_size", size, f"use a multiple of {family.size_multiple}")
    return size


def _check_family(settings: GenerationSettings, family: Family) -> None:
    """Refuse generators whose guidance is not known, and those that cannot run here."""
    if family.convention is None:
        why = why_refused(family.pipeline)
        raise UserError("generation.model", settings.model, f"{why}; use a generator that docs/clones.md lists")
    package = family.convention.package
    if package is not None and find_spec(package) is None:
        remedy = f"{family.pipeline} needs the package {package}; pip install {package}"
        raise UserError("generation.model", settings.model, remedy)


def _check_guidance(settings: GenerationSettings, variant: PromptVariant, family: Family) -> None:
    """Refuse guidance settings that the family would ignore."""
    least = family.known.guides_above
    if family.guidance == "none" and settings.guidance_scale != 1:
        raise UserError(
            "generation.guidance_scale",
            settings.guidance_scale,
            f"{settings.model} was distilled without guidance and ignores it; set it to 1",
        )
    if 1 < settings.guidance_scale <= least:
        raise UserError(
            "generation.guidance_scale",
            settings.guidance_scale,
            f"{family.pipeline} does not guide up to {least:g}; set it to 1, or above {least:g}",
        )
    check_guider(settings, family)
    if settings.guidance_interval != WHOLE and not family.takes_interval:
        why = f"{settings.model} makes no unconditional pass that could be left out"
        if family.guidance == "classifier_free":
            why = f"{family.pipeline} is not known to make both passes in one call, so none can be left out"
        raise UserError("generation.guidance_interval", list(settings.guidance_interval), f"{why}; leave it at [0, 1]")
    if variant.negative_prompt and not family.known.takes_negative_prompt:
        why = f"{settings.model} makes no unconditional pass and ignores negative prompts"
        if family.guidance == "classifier_free":
            why = f"{family.pipeline} takes no negative prompt"
        field = (
            f"variants.{settings.variant}.negative_prompt"
            if settings.negative_prompt is None
            else "generation.negative_prompt"
        )
        raise UserError(field, variant.negative_prompt, f"{why}; leave it empty")


def _step_cache(settings: GenerationSettings, model: Model, family: Family) -> StepCacheSettings | None:
    """Return which steps are cached; None when all run in full.

    Raises:
        UserError: the model has no U-Net that can be cached, or it is to be compiled as a whole.
    """
    cache = settings.step_cache
    if cache is None or cache.interval == 1:
        return None
    reason = None if model.is_dummy else cannot_cache(family, model.folder, cache.depth)
    if reason is None and settings.compile:
        reason = "compiled code runs all layers in every step; set generation.compile=false, or leave it out"
    if reason is not None:
        raise UserError("generation.step_cache", cache.model_dump(), reason)
    return cache


def _dtype(model: str, family: Family) -> str:
    if model in SHIPPED:
        return "float32"
    return "float16" if family.denoiser == "unet" else "bfloat16"
