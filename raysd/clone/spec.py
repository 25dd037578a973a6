"""The spec of a clone: all that shapes a picture, resolved, and its fingerprint."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raysd.clone.model import Model, find_model
from raysd.clone.settings import SAMPLER_STEPS, GenerationSettings
from raysd.errors import UserError
from raysd.prompts.table import ClassTable
from raysd.prompts.variant import PromptVariant
from raysd.storage.fingerprint import fingerprint

PNG_LIMIT = 64  # pixels; larger pictures are stored as JPEG
FAST_SCHEDULER = "DPMSolverMultistepScheduler"


@dataclass(frozen=True)
class CloneSpec:
    """A clone to be drawn; make one with `resolve_clone_spec`."""

    model: Model
    table: ClassTable
    variant_name: str
    variant: PromptVariant
    guidance_scale: float
    scheduler: str | None
    """A diffusers scheduler class; None is the checkpoint's own."""
    num_inference_steps: int
    image_size: int
    dtype: str
    codec: str
    color: str
    seed: int

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that shapes a picture; not the number of images, and not the variant's name."""
        return fingerprint(self.identity())

    def identity(self) -> dict[str, Any]:
        """What the fingerprint is made of, as plain JSON values."""
        return {
            "model_digest": self.model.digest,
            "classes": [{column: row[column] for column in self.table.columns} for row in self.table.rows],
            "variant": self.variant.model_dump(),
            "guidance_scale": self.guidance_scale,
            "scheduler": self.scheduler,
            "num_inference_steps": self.num_inference_steps,
            "image_size": self.image_size,
            "dtype": self.dtype,
            "codec": self.codec,
            "color": self.color,
            "seed": self.seed,
        }

    def describe(self) -> dict[str, Any]:
        """The identity with the names that a person looks for."""
        names = {"model": self.model.name, "revision": self.model.revision, "variant_name": self.variant_name}
        return {**names, **self.identity()}


def resolve_clone_spec(settings: GenerationSettings, table: ClassTable, variants: dict[str, PromptVariant]) -> CloneSpec:
    """Fill in the model's defaults and check the settings against the class table.

    Raises:
        UserError: unknown model or variant, or a template that the table cannot fill.
    """
    if settings.variant not in variants:
        raise UserError("generation.variant", settings.variant, f"unknown; use one of {', '.join(variants)}")
    variant = variants[settings.variant]
    variant.check(settings.variant, table)
    model = find_model(settings.model, settings.revision)
    size = settings.image_size or _native_size(model)
    if size % 8:
        raise UserError("generation.image_size", size, "use a multiple of 8")
    return CloneSpec(
        model=model,
        table=table,
        variant_name=settings.variant,
        variant=variant,
        guidance_scale=settings.guidance_scale,
        scheduler=FAST_SCHEDULER if settings.sampler == "fast" and not _matches_flow(model) else None,
        num_inference_steps=settings.num_inference_steps or SAMPLER_STEPS[settings.sampler],
        image_size=size,
        dtype=("float32" if model.is_embedded else "float16") if settings.dtype == "auto" else settings.dtype,
        codec=("png" if size <= PNG_LIMIT else "jpeg") if settings.codec == "auto" else settings.codec,
        color=("grey" if model.is_embedded else "rgb") if settings.color == "auto" else settings.color,
        seed=settings.seed,
    )


def _matches_flow(model: Model) -> bool:
    """True for models whose own scheduler is of the flow-matching kind; another kind would draw noise with them."""
    index = json.loads((model.folder / "model_index.json").read_text())
    return "FlowMatch" in str(index.get("scheduler", ""))


def _native_size(model: Model) -> int:
    """The picture's side that the denoiser was trained at: its sample size times the autoencoder's reduction."""
    for part in ("unet", "transformer"):
        if (path := model.folder / part / "config.json").is_file():
            return int(json.loads(path.read_text())["sample_size"]) * _reduction(model.folder)
    raise UserError("generation.image_size", None, f"{model.name} does not say its size; set one")


def _reduction(folder: Path) -> int:
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    return 2 ** (len(config.get("block_out_channels", [0, 0, 0, 0])) - 1)
