"""One diffusion pipeline that draws planned pictures."""

import os
from collections.abc import Sequence

import numpy as np
import torch

from raysd.clone.plan import PlannedImage
from raysd.clone.spec import CloneSpec

BLACK_LEVEL = 2  # a picture whose brightest value is at most this is black


class Generator:
    """Holds one pipeline, and draws for any clone of its model.

    Pictures do not depend on their batch: each has a noise generator of its own, on the CPU, and batches keep one shape.
    """

    def __init__(self, spec: CloneSpec) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        diffusers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self.model_digest, self.dtype = spec.model.digest, spec.dtype
        device = "cuda" if torch.cuda.is_available() else "cpu"
        pipeline = DiffusionPipeline.from_pretrained(spec.model.folder, dtype=getattr(torch, spec.dtype), use_safetensors=True, local_files_only=True)
        self.pipeline = pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.own_scheduler = self.pipeline.scheduler

    def draw(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> np.ndarray:
        """Draw one batch: uint8 [B, H, W, 3], or [B, H, W] for a grey clone.

        Raises:
            ValueError: when the spec belongs to another model.
        """
        if (spec.model.digest, spec.dtype) != (self.model_digest, self.dtype):
            raise ValueError(f"this generator holds model {self.model_digest}, the clone wants {spec.model.digest}")
        self._set_scheduler(spec)
        with torch.inference_mode():
            drawn = self.pipeline(
                prompt=[image.prompt for image in images],
                negative_prompt=[image.negative_prompt for image in images],
                guidance_scale=spec.guidance_scale,
                num_inference_steps=spec.num_inference_steps,
                height=spec.image_size,
                width=spec.image_size,
                generator=[torch.Generator("cpu").manual_seed(image.seed) for image in images],
                output_type="np",
            ).images
        if not np.isfinite(drawn).all():
            drawn = np.nan_to_num(drawn, nan=0.0)  # a NaN picture comes out black, and black pictures are flagged
        pixels = (drawn * 255).round().clip(0, 255).astype(np.uint8)
        return pixels.astype(np.float32).mean(axis=3).round().astype(np.uint8) if spec.color == "grey" else pixels

    def _set_scheduler(self, spec: CloneSpec) -> None:
        import diffusers

        if spec.scheduler is None:
            self.pipeline.scheduler = self.own_scheduler
        elif type(self.pipeline.scheduler).__name__ != spec.scheduler:
            self.pipeline.scheduler = getattr(diffusers, spec.scheduler).from_config(self.own_scheduler.config)


def is_black(image: np.ndarray) -> bool:
    """True for a picture without content (a safety checker's answer, or a numeric failure)."""
    return int(image.max()) <= BLACK_LEVEL
