"""One diffusion pipeline that generates planned images."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from inspect import signature
from typing import Any

import torch

from raysd.clone.plan import PlannedImage
from raysd.clone.spec import CloneSpec
from raysd.device import find_device
from raysd.diffusion.family import EMBEDDINGS
from raysd.diffusion.guidance import GuidanceInterval
from raysd.diffusion.prompt_embeddings import PromptEmbeddings
from raysd.diffusion.step_cache import cached_steps
from raysd.generation.batch import GeneratedBatch, finish_images

WHOLE = (0.0, 1.0)
SLICED_SIZE = 256  # px; larger images are decoded one at a time
MAX_GRAPHS = 64  # that are compiled of one denoiser: one for each shape of a batch, so two for each image size
# Arguments that some pipelines have and that would change what was asked for: other sizes, other prompts.
FIXED_ARGUMENTS = {"use_resolution_binning": False, "clean_caption": False, "complex_human_instruction": None}


class Generator:
    """Holds one pipeline, and generates for any clone of its model.

    Images do not depend on their neighbors: each has a noise generator of its own, on the CPU, and batches keep one
    shape.

    Args:
        spec: of one of the clones.
        models: by component, in the place of the checkpoint's.
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
        device = find_device()
        options: dict[str, Any] = {
            "dtype": getattr(torch, spec.dtype),
            "use_safetensors": True,
            "local_files_only": True,
        }
        if spec.family.has_safety_checker and not spec.safety_checker:
            options |= {"safety_checker": None, "requires_safety_checker": False}
        lora_files = [lora.find_here() for lora in spec.loras]
        pipeline = DiffusionPipeline.from_pretrained(spec.model.find_here(), **options, **(models or {})).to(device)
        pipeline.set_progress_bar_config(disable=True)
        for lora, file in zip(spec.loras, lora_files, strict=True):
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name, use_safetensors=True)
            pipeline.fuse_lora(lora_scale=lora.scale)
            pipeline.unload_lora_weights()
        self.denoiser = getattr(pipeline, spec.family.denoiser)
        if device.type == "cuda" and spec.family.denoiser == "unet":
            self.denoiser.to(memory_format=torch.channels_last)
        self.pipeline, self.own_scheduler = pipeline, pipeline.scheduler
        self.arguments = set(signature(pipeline.__call__).parameters)
        self.embeddings = PromptEmbeddings(pipeline) if type(pipeline).__name__ in EMBEDDINGS else None
        if spec.compile:
            self._compile()

    def generate(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> GeneratedBatch:
        """Generate one batch.

        Raises:
            ValueError: when the spec belongs to another pipeline.
        """
        if spec.pipeline_key != self.pipeline_key:
            raise ValueError(f"this generator holds {self.pipeline_key}, the clone wants {spec.pipeline_key}")
        self._set_scheduler(spec)
        self._set_slicing(spec)
        cache = spec.step_cache
        with nullcontext() if cache is None else cached_steps(self.denoiser, cache.interval, cache.depth):
            return self._generate(spec, images)

    def _generate(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> GeneratedBatch:
        original = self.denoiser.forward
        if spec.guidance_interval != WHOLE and spec.guidance_scale > 1:
            self.denoiser.forward = GuidanceInterval(
                original, spec.guidance_interval, len(images), lambda: len(self.pipeline.scheduler.timesteps)
            )
        try:
            with torch.inference_mode():
                output = self.pipeline(**self._arguments(spec, images))
        finally:
            self.denoiser.forward = original
        flags = getattr(output, "nsfw_content_detected", None) or [False] * len(images)
        return finish_images(output.images, flags, spec.stored_size, spec.color)

    def _arguments(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> dict[str, Any]:
        prompts, negative_prompts = [image.prompt for image in images], [image.negative_prompt for image in images]
        arguments: dict[str, Any] = {
            "guidance_scale": spec.guidance_scale,
            "num_inference_steps": spec.num_inference_steps,
            "height": spec.image_size,
            "width": spec.image_size,
            "generator": [torch.Generator("cpu").manual_seed(image.seed) for image in images],
            "output_type": "np",
            **FIXED_ARGUMENTS,
        }
        if spec.num_inference_steps != 2:
            arguments["intermediate_timesteps"] = None  # Sana Sprint's own, which are for two steps alone
        if self.embeddings is not None:
            arguments |= {"prompt": None, "negative_prompt": None}
            arguments |= self.embeddings.batch(prompts, negative_prompts, guided=spec.guidance_scale > 1)
        else:
            arguments |= {"prompt": prompts, "negative_prompt": negative_prompts if any(negative_prompts) else None}
        return {name: value for name, value in arguments.items() if name in self.arguments}

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

    def _compile(self) -> None:
        """Compile the denoiser's own `forward`, which serves all clones: functions that replace it while a batch is
        generated call it and stay outside.

        Each shape has a graph of its own, so that bytes do not depend on which shapes came before. Where prompts have
        as many tokens as they need, this would never end, and torch generalizes instead.
        """
        torch._dynamo.config.recompile_limit = MAX_GRAPHS
        self.denoiser.forward = torch.compile(self.denoiser.forward, dynamic=None if self.embeddings is None else False)
