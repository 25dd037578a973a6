"""One diffusion pipeline that generates planned images."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from inspect import signature
from typing import Any

import numpy as np
import torch

from raysd.classifier.entropy import Entropy
from raysd.classifier.exemplars import ExemplarGuide, Nearness
from raysd.clone.latent_guides import LatentGuide
from raysd.clone.plan import PlannedImage
from raysd.clone.spec import CloneSpec
from raysd.device import find_device
from raysd.diffusion.family import EMBEDDINGS
from raysd.diffusion.guiding.condition_noise import ConditionNoise
from raysd.diffusion.guiding.guider import Guider
from raysd.diffusion.guiding.image_numbers import image_guidance_scale
from raysd.diffusion.guiding.weaker import load_weak_denoiser, transformer_blocks, without_blocks
from raysd.diffusion.latent_steps import LatentSteps, Objective
from raysd.diffusion.lora import fuse_lora
from raysd.diffusion.prompt_embeddings import PromptEmbeddings
from raysd.diffusion.step_cache import cached_steps
from raysd.errors import UserError
from raysd.generation.batch import GeneratedBatch, finish_pixels
from raysd.storage.location import Location

WHOLE = (0.0, 1.0)
SLICED_SIZE = 256  # px; larger images are decoded one at a time
MAX_GRAPHS = 64  # that are compiled of one denoiser: one for each shape of a batch, so two for each image size
MAX_KINDS = 32  # of widths and heights of one sort of block within a denoiser; Stable Diffusion has 14
# Arguments that some pipelines have and that would change what was asked for: other sizes, prompts or guidance scales.
FIXED_ARGUMENTS = {
    "use_resolution_binning": False,
    "clean_caption": False,
    "complex_human_instruction": None,
    "use_pe": False,  # Ernie Image and LongCat rewrite prompts with a language model
    "enable_prompt_rewrite": False,
    "skip_text_cleaning": True,  # PRX
    "guidance_schedule": None,  # Ideogram 4
}


class Generator:
    """Holds one pipeline, and generates for any clone of its model.

    Images do not depend on their neighbors: each has a noise generator of its own, on the CPU, and batches keep one
    shape.

    Args:
        spec: of one of the clones.
        models: by component, in the place of all of the checkpoint's, whose weights are then not read.
    """

    def __init__(self, spec: CloneSpec, models: dict[str, Any] | None = None) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        diffusers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self.pipeline_key = spec.pipeline_key
        device = find_device(takes_mps=True)
        options: dict[str, Any] = {
            "dtype": getattr(torch, spec.dtype),
            "use_safetensors": True,
            "local_files_only": True,
            "variant": spec.model.variant if models is None else None,
        }
        if spec.family.has_safety_checker and not spec.safety_checker:
            options |= {"safety_checker": None, "requires_safety_checker": False}
        lora_files = [lora.find_here() for lora in spec.loras]
        folder = spec.model.find_here() if models is None else spec.model.find_configs_here()
        pipeline = DiffusionPipeline.from_pretrained(folder, **options, **(models or {})).to(device)
        pipeline.set_progress_bar_config(disable=True)
        for lora, file in zip(spec.loras, lora_files, strict=True):
            fuse_lora(pipeline, spec.family.denoiser, lora, file)
        self.denoiser = getattr(pipeline, spec.family.denoiser)
        self.weak_denoiser = None
        if (weak := spec.guiding.weak_model) is not None:
            self.weak_denoiser = load_weak_denoiser(weak, self.denoiser, spec.family.denoiser, options["dtype"])
            self.weak_denoiser.to(device)
        denoisers = [each for each in (self.denoiser, self.weak_denoiser) if each is not None]
        if device.type == "cuda" and spec.family.denoiser == "unet":
            for denoiser in denoisers:
                denoiser.to(memory_format=torch.channels_last)
        self.pipeline, self.own_scheduler = pipeline, pipeline.scheduler
        self.held: tuple[tuple[str, ...], Entropy | Nearness] | None = None
        self.arguments = set(signature(pipeline.__call__).parameters)
        self.embeddings = PromptEmbeddings(pipeline) if type(pipeline).__name__ in EMBEDDINGS else None
        if spec.compile:
            for denoiser in denoisers:
                self._compile(spec, denoiser)

    def generate(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> GeneratedBatch:
        """Generate one batch.

        Raises:
            ValueError: when the spec belongs to another pipeline.
        """
        if spec.pipeline_key != self.pipeline_key:
            raise ValueError(f"this generator holds {self.pipeline_key}, the clone wants {spec.pipeline_key}")
        self._set_slicing(spec)
        self._set_guider(spec)
        groups = [[image] for image in images] if spec.family.known.one_by_one else [images]
        outputs = [self._call(spec, group) for group in groups]
        pixels, finite = (np.concatenate([output[part] for output in outputs]) for part in (0, 1))
        unsafe = [flag for output in outputs for flag in output[2]]
        return finish_pixels(pixels, finite, unsafe, spec.stored_size, spec.color)

    def _call(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> tuple[np.ndarray, np.ndarray, list[bool]]:
        """Call the pipeline. Return images as uint8 [B, H, W, 3], which of them have no NaN, and which are unsafe."""
        self._set_scheduler(spec)
        cache = spec.step_cache
        with nullcontext() if cache is None else cached_steps(self.denoiser, cache.interval, cache.depth):
            output = self._call_guided(spec, images)
        pixels, finite = _rounded(output.images)
        self._check_size(spec, pixels)
        return pixels, finite, getattr(output, "nsfw_content_detected", None) or [False] * len(images)

    def _call_guided(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> Any:
        """Call the pipeline, with a guider in the place of the denoiser where guidance is not plain."""
        original, steps = self.denoiser.forward, self._latent_steps(spec, images)
        self.denoiser.forward = self._guider(spec, images, original) or original
        try:
            if steps is None:
                with torch.inference_mode():
                    return self.pipeline(**self._arguments(spec, images))
            with torch.no_grad(), steps.watching():  # what inference mode makes has no gradient later
                return self.pipeline(**self._arguments(spec, images), callback_on_step_end=steps)
        finally:
            self.denoiser.forward = original

    def _latent_steps(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> LatentSteps | None:
        """Return what moves the latents of a batch; None for nothing."""
        guide = spec.latent_guide
        if guide is None:
            return None
        at_once = 1 if spec.image_size >= SLICED_SIZE else len(images)
        settings = (guide.weight, guide.every, len(images), guide.through_denoiser, at_once)
        return LatentSteps(self.pipeline, self.denoiser, self._objective(spec, guide, images), *settings)

    def _objective(self, spec: CloneSpec, guide: LatentGuide, images: Sequence[PlannedImage]) -> Objective:
        """Return what the images of a batch move towards; the classifier of the last one is held."""
        key = (*guide.key, spec.color)
        if self.held is None or self.held[0] != key:
            for part in self.pipeline.components.values():
                if isinstance(part, torch.nn.Module):
                    part.requires_grad_(False)
            self.held = key, _load_guide(guide, self.pipeline.device, spec.color)
        found = self.held[1]
        if isinstance(found, Entropy):
            return found
        return found.of([image.label for image in images], [spec.first_image + image.index for image in images])

    def _guider(self, spec: CloneSpec, images: Sequence[PlannedImage], forward: Any) -> Guider | None:
        """Return the guider of a batch; None where guidance is plain."""
        guiding, seeds = spec.guiding, [image.seed for image in images]
        asked: dict[str, Any] = guiding.settings()
        if spec.guidance_interval != WHOLE and spec.guidance_scale > 1:
            asked["guidance_interval"] = list(spec.guidance_interval)
        if not asked:
            return None
        scales = [image_guidance_scale(guiding.scales or (spec.guidance_scale,) * 2, seed) for seed in seeds]
        field, value = next(iter(asked.items()))
        return Guider(
            forward,
            len(images),
            lambda: len(self.pipeline.scheduler.timesteps),
            (f"generation.{field}", value),
            is_guided=spec.guidance_scale > 1,
            interval=spec.guidance_interval,
            weights=[scale - 1 for scale in scales] if guiding.mixes else None,
            schedule=guiding.schedule,
            weaker=self._weaker(spec, forward),
            noise=None if guiding.cads is None else ConditionNoise(seeds, **guiding.cads.model_dump()),
        )

    def _weaker(self, spec: CloneSpec, forward: Any) -> Any:
        """Return a forward that predicts less well from the same conditions; None for the unconditional pass."""
        if self.weak_denoiser is not None and spec.guiding.weak_model is not None:
            return self.weak_denoiser.forward
        if not spec.guiding.skip_blocks:
            return None
        blocks = transformer_blocks(self.denoiser)
        return without_blocks(forward, [blocks[number] for number in spec.guiding.skip_blocks])

    def _arguments(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> dict[str, Any]:
        """Return the arguments of the pipeline's call.

        Raises:
            UserError: the pipeline does not take one that the clone asks for.
        """
        asked = {
            **self._prompt_arguments(spec, images),
            "num_inference_steps": spec.num_inference_steps,
            "height": spec.image_size,
            "width": spec.image_size,
            "generator": [torch.Generator("cpu").manual_seed(image.seed) for image in images],
            "output_type": "pt",
        }
        convention = spec.family.known
        if convention.one_by_one:
            asked |= {name: value[0] for name, value in asked.items() if isinstance(value, list)}
        if convention.argument is not None:
            asked[convention.argument] = convention.scale(spec.guidance_scale)
        if missing := sorted(asked.keys() - self.arguments):
            why = f"{spec.family.pipeline} of this version of diffusers takes no {missing[0]}; use another version"
            raise UserError("generation.model", spec.model.name, why)
        fixed: dict[str, Any] = {**FIXED_ARGUMENTS, "max_area": spec.image_size**2}
        if spec.num_inference_steps != 2:
            fixed["intermediate_timesteps"] = None  # Sana Sprint's own, which are for two steps alone
        if self.embeddings is not None:
            fixed |= {"prompt": None, "negative_prompt": None}  # the default of some is an empty text
        return {name: value for name, value in fixed.items() if name in self.arguments} | asked

    def _prompt_arguments(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> dict[str, Any]:
        """Return the arguments for the prompts: embeddings where they are kept, else texts."""
        prompts, negative_prompts = [image.prompt for image in images], [image.negative_prompt for image in images]
        if self.embeddings is not None:
            return dict(self.embeddings.batch(prompts, negative_prompts, guided=spec.guidance_scale > 1))
        arguments: dict[str, Any] = {"prompt": prompts}
        convention = spec.family.known
        if not convention.takes_negative_prompt or not convention.makes_two_passes(spec.guidance_scale):
            return arguments
        nothing = convention.no_negative_prompt
        if any(negative_prompts) or nothing is not None:
            arguments["negative_prompt"] = [text or nothing or "" for text in negative_prompts]
        return arguments

    def _set_guider(self, spec: CloneSpec) -> None:
        """Mix both passes in the plain way, in the place of a component of the checkpoint that has a way of its own."""
        convention = spec.family.known
        if not convention.replaces_guider:
            return
        from diffusers.guiders import ClassifierFreeGuidance

        is_mixed = convention.guidance == "classifier_free"
        self.pipeline.guider = ClassifierFreeGuidance(guidance_scale=spec.guidance_scale) if is_mixed else None
        self.pipeline.ocr_guider = None

    def _check_size(self, spec: CloneSpec, generated: np.ndarray) -> None:
        """Refuse images of another size than the clone's: some pipelines round it.

        Raises:
            UserError: naming the size that the pipeline generates.
        """
        height, width = generated.shape[1:3]
        if height != spec.image_size or width != spec.image_size:
            remedy = f"{spec.family.pipeline} generates {height} x {width} px instead; set it to a size that it takes"
            raise UserError("generation.image_size", spec.image_size, remedy)

    def _set_scheduler(self, spec: CloneSpec) -> None:
        """Set the clone's own scheduler; some keep state from one call to the next."""
        import diffusers

        kind = type(self.own_scheduler) if spec.scheduler is None else getattr(diffusers, spec.scheduler)
        self.pipeline.scheduler = kind.from_config(self.own_scheduler.config, **dict(spec.scheduler_options))

    def _set_slicing(self, spec: CloneSpec) -> None:
        """Decode large images one by one: together they would take many times the memory of all else. Only their size
        decides, since slicing changes the bytes of images."""
        vae: Any = getattr(self.pipeline, "vae", None)
        if hasattr(vae, "use_slicing"):
            vae.use_slicing = spec.image_size >= SLICED_SIZE

    def _compile(self, spec: CloneSpec, denoiser: Any) -> None:
        """Compile a denoiser's own `forward`, which serves all clones: functions that replace it while a batch is
        generated call it and stay outside. Or compile the blocks that it repeats: those of one kind and shape share a
        graph.

        Each shape has a graph of its own, so that bytes do not depend on which shapes came before. Where prompts have
        as many tokens as they need, this would never end, and torch generalizes instead.
        """
        config: Any = torch._dynamo.config
        config.recompile_limit = MAX_GRAPHS
        dynamic = None if self.embeddings is None else False
        if spec.compile != "regional":
            denoiser.forward = torch.compile(denoiser.forward, dynamic=dynamic)
            return
        config.recompile_limit = config.accumulated_recompile_limit = MAX_GRAPHS * MAX_KINDS
        for block in denoiser.modules():
            if type(block).__name__ in spec.family.regions:
                block.compile(dynamic=dynamic)


def _load_guide(guide: LatentGuide, device: torch.device, color: str) -> Entropy | Nearness:
    if isinstance(guide, ExemplarGuide):
        return Nearness(guide, device, color)
    return Entropy(Location(guide.folder), device, color)


def _rounded(images: torch.Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 [B, H, W, 3] of float [B, 3, H, W] in 0..1, and which images have no NaN. A GPU does it, so that a
    quarter of the bytes leave it. Some pipelines give NumPy's [B, H, W, 3] whatever they are asked for; a fourth
    channel, which says how opaque an image is, is left out."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
    images = images[:, :3].float()
    finite = images.isfinite().flatten(1).all(dim=1)
    pixels = (images.nan_to_num(nan=0.0) * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy(), finite.cpu().numpy()
