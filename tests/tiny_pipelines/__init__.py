"""A tiny pipeline with random weights for each text-to-image pipeline of diffusers; none needs a download."""

from collections.abc import Callable

import numpy as np
import tiny_models
import torch
from diffusers import DiffusionPipeline

from tiny_pipelines import cascades, language, others, perturbed, qwen, t5
from tiny_pipelines.parts import spread_weights

MODULES = (qwen, language, t5, cascades, others, perturbed)
MAKERS = {**tiny_models.FAMILIES, **{make.__name__: make for module in MODULES for make in module.PIPELINES}}

# Height and width to ask for, where 32 is not legal.
SIZES: dict[str, int] = {"kandinsky3": 64, "glm_image": 96}

# Further options of a call, without which it fails or takes long.
OPTIONS: dict[str, dict[str, object]] = {
    name: {"use_resolution_binning": False}
    for name in ("pixart", "pixart_alpha", "sana", "hunyuan_dit", "prx", "prx_pixel", "pixart_pag", "sana_pag")
}
OPTIONS["hunyuan_dit_pag"] = {"use_resolution_binning": False}
OPTIONS["sana_sprint"] = {"use_resolution_binning": False, "intermediate_timesteps": None}
OPTIONS |= {name: {"prior_num_inference_steps": 2} for name in ("kandinsky", "kandinsky22")}
OPTIONS["flux_kontext"] = {"max_area": 32 * 32}
OPTIONS["ideogram4"] = {"guidance_schedule": None, "guidance_scale": 4.0, "max_sequence_length": 96}
OPTIONS["longcat_image"] = {"enable_prompt_rewrite": False}

# Those that take one prompt a call: PRX with guidance, DreamLite always.
ONE_IMAGE = {"prx", "prx_pixel", "dreamlite"}

# Class names of text-to-image pipelines for which there is none here, and why.
UNBUILT: dict[str, str] = {
    "HeliosPipeline": "generates videos: 33 frames at the least, under `frames`",
    "HeliosPyramidPipeline": "generates videos: 33 frames at the least, under `frames`",
    "HiDreamImagePipeline": "generates 128 latents a side whatever size is asked for: too slow",
    "Kandinsky5T2IPipeline": "knows seven sizes, each of about a million pixels",
    "StableCascadeCombinedPipeline": "diffusers 0.42 saves its PaellaVQModel and cannot load it again",
    "WuerstchenCombinedPipeline": "diffusers 0.42 saves its PaellaVQModel and cannot load it again",
}

# Pipelines of diffusers' list of text to image that take an image beside the prompt.
NEEDS_IMAGE = {
    "CogView4ControlPipeline",
    "FluxControlNetPipeline",
    "FluxControlPipeline",
    "QwenImageControlNetPipeline",
    "StableDiffusion3ControlNetPipeline",
    "StableDiffusionControlNetPAGPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionXLControlNetPAGPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLControlNetUnionPipeline",
    "ZImageControlNetInpaintPipeline",
    "ZImageControlNetPipeline",
}

# Packages without which a pipeline does not run, beyond those of raysd.
NEEDS = {"prx": "ftfy", "prx_pixel": "ftfy"}


def _family(name):
    def build():
        torch.manual_seed(0)
        return spread_weights(MAKERS[name]())

    build.__name__ = name
    return build


FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {name: _family(name) for name in MAKERS}


def save_tiny(name, folder):
    """Write a checkpoint in diffusers format; returns its folder."""
    path = folder / name
    FAMILIES[name]().save_pretrained(path, safe_serialization=True)
    return path


def generate(pipeline, name, prompts, seeds, steps=2, **options):
    """The images of prompts as a float array, with a legal size of a family."""
    if name in ONE_IMAGE and len(prompts) > 1:
        calls = zip(prompts, seeds, strict=True)
        return np.concatenate([generate(pipeline, name, [text], [seed], steps, **options) for text, seed in calls])
    size = SIZES.get(name, 32)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    called = {"height": size, "width": size, "num_inference_steps": steps, **OPTIONS.get(name, {}), **options}
    prompt, generator = (prompts[0], generators[0]) if name in ONE_IMAGE else (list(prompts), generators)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(prompt=prompt, generator=generator, output_type="np", **called).images
