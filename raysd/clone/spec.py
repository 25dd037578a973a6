"""The spec of a clone: the resolved values of all that shapes an image, and their fingerprint."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raysd.clone.settings import SAMPLER_STEPS, GenerationSettings, SchedulerOption, StepCacheSettings
from raysd.diffusion.checkpoint import Lora, Model, find_lora, find_model
from raysd.diffusion.family import FEW_STEPS, Family, read_family
from raysd.diffusion.step_cache import cannot_cache
from raysd.errors import UserError
from raysd.prompts.resolve import resolve_variant
from raysd.prompts.settings import VariantSettings
from raysd.prompts.table import ClassTable
from raysd.prompts.variant import PromptVariant
from raysd.storage.fingerprint import fingerprint

PNG_LIMIT = 64  # pixels; larger images are stored as JPEG
FAST_SCHEDULER = "DPMSolverMultistepScheduler"
WHOLE = (0.0, 1.0)


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
    compile: bool = False
    step_cache: StepCacheSettings | None = None

    @property
    def weights(self) -> tuple[Model | Lora, ...]:
        """The model and LoRA weights, which each node that generates needs."""
        return self.model, *self.loras

    @cached_property
    def family(self) -> Family:
        """Facts about the model's pipeline."""
        return read_family(self.model.folder if self.model.folder.is_dir() else self.model.find_here())

    @cached_property
    def pipeline_key(self) -> str:
        """Hash that is equal for clones that one loaded pipeline can generate."""
        loras = [[lora.digest, lora.scale] for lora in self.loras]
        return fingerprint(
            [self.model.digest, self.dtype, loras, self.compile, self.safety_checker and self.family.has_safety_checker]
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that shapes an image, without the number of images and the variant's name."""
        return fingerprint(self.identity())

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
            **({"step_cache": self.step_cache.model_dump()} if self.step_cache is not None else {}),
        }

    def describe(self) -> dict[str, Any]:
        """Return the identity, with the names that a person looks for."""
        names = {
            "model": self.model.name,
            "revision": self.model.revision,
            "commit": self.model.commit,
            "variant_name": self.variant_name,
        }
        return {**names, "pipeline": self.family.pipeline, **self.identity()}


def resolve_clone_spec(
    settings: GenerationSettings, table: ClassTable, variants: dict[str, VariantSettings]
) -> CloneSpec:
    """Fill in the model's defaults and check the settings against the model and the class table.

    Raises:
        UserError: unknown model or variant, a template that the table cannot fill, or a setting that the model ignores.
    """
    variant = resolve_variant(settings.variant, variants, table)
    if settings.negative_prompt is not None:
        variant = variant.with_negative_prompt(settings.negative_prompt)
    model = find_model(settings.model, settings.revision)
    family = read_family(model.folder)
    _check_guidance(settings, variant, family)
    scheduler = _scheduler(settings, family)
    size = settings.image_size or family.native_size
    if size is None:
        raise UserError("generation.image_size", None, f"{model.name} does not say its size; set one")
    if size % family.size_multiple:
        raise UserError("generation.image_size", size, f"use a multiple of {family.size_multiple}")
    stored_size = settings.stored_size or size
    if stored_size > size:
        raise UserError(
            "generation.stored_size", stored_size, f"is larger than the generated images; use at most {size}"
        )
    return CloneSpec(
        model=model,
        table=table,
        variant_name=settings.variant,
        variant=variant,
        guidance_scale=settings.guidance_scale,
        scheduler=scheduler,
        num_inference_steps=settings.num_inference_steps
        or (FEW_STEPS if family.is_few_step else SAMPLER_STEPS[settings.sampler]),
        image_size=size,
        dtype=_dtype(model, family) if settings.dtype == "auto" else settings.dtype,
        codec=("png" if stored_size <= PNG_LIMIT else "jpeg") if settings.codec == "auto" else settings.codec,
        color=("gray" if model.is_embedded else "rgb") if settings.color == "auto" else settings.color,
        seed=settings.seed,
        stored_size=stored_size,
        loras=tuple(find_lora(lora.path, lora.scale) for lora in settings.lora),
        scheduler_options=tuple(sorted(settings.scheduler_options.items())),
        guidance_interval=settings.guidance_interval if settings.guidance_scale > 1 else WHOLE,
        safety_checker=settings.safety_checker,
        flagged=settings.flagged,
        max_redraws=settings.max_redraws,
        compile=settings.compile,
        step_cache=_step_cache(settings, model, family),
    )


def _check_guidance(settings: GenerationSettings, variant: PromptVariant, family: Family) -> None:
    """Refuse guidance settings that the family would ignore."""
    if family.guidance == "none" and settings.guidance_scale != 1:
        raise UserError(
            "generation.guidance_scale",
            settings.guidance_scale,
            f"{settings.model} was distilled without guidance and ignores it; set it to 1",
        )
    if settings.guidance_interval != WHOLE and not family.takes_interval:
        why = f"{settings.model} makes no unconditional pass that could be left out"
        if family.guidance == "classifier_free":
            why = f"{family.pipeline} is not known to make both passes in one call, so none can be left out"
        raise UserError("generation.guidance_interval", list(settings.guidance_interval), f"{why}; leave it at [0, 1]")
    if variant.negative_prompt and family.guidance != "classifier_free":
        remedy = f"{settings.model} makes no unconditional pass and ignores negative prompts; leave it empty"
        field = (
            f"variants.{settings.variant}.negative_prompt"
            if settings.negative_prompt is None
            else "generation.negative_prompt"
        )
        raise UserError(field, variant.negative_prompt, remedy)


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


def _scheduler(settings: GenerationSettings, family: Family) -> str | None:
    """Return a scheduler class, or None for the checkpoint's own.

    Raises:
        UserError: diffusers has no such scheduler, or the scheduler does not take the options.
    """
    name = settings.scheduler or (
        FAST_SCHEDULER if settings.sampler == "fast" and family.has_exchangeable_scheduler else None
    )
    if settings.scheduler is None and not settings.scheduler_options:
        return name
    import diffusers

    if name is not None and not (name.endswith("Scheduler") and hasattr(diffusers, name)):
        raise UserError(
            "generation.scheduler", name, "diffusers has no such scheduler; use a class name as UniPCMultistepScheduler"
        )
    if name is not None:
        from inspect import signature

        known = set(signature(getattr(diffusers, name).__init__).parameters) - {"self"}
        if unknown := sorted(set(settings.scheduler_options) - known):
            raise UserError(
                "generation.scheduler_options",
                unknown[0],
                f"{name} has no such option; it has {', '.join(sorted(known))}",
            )
    return name


def _dtype(model: Model, family: Family) -> str:
    if model.is_embedded or model.is_dummy:
        return "float32"
    return "float16" if family.denoiser == "unet" else "bfloat16"
