"""A tiny pipeline with random weights for each text-to-image pipeline of diffusers; none needs a download."""

from collections.abc import Callable

import tiny_models
import torch
from diffusers import DiffusionPipeline

from tiny_pipelines import language, qwen, t5
from tiny_pipelines.parts import spread_weights

MODULES = (qwen, language, t5)
MAKERS = {**tiny_models.FAMILIES, **{make.__name__: make for module in MODULES for make in module.PIPELINES}}

# Height and width to ask for, where 32 is not legal or not the least.
SIZES: dict[str, int] = {}

# Further options of a call, without which a tiny pipeline cannot be called.
OPTIONS: dict[str, dict[str, object]] = {
    name: {"use_resolution_binning": False}
    for name in ("pixart", "pixart_alpha", "sana", "hunyuan_dit", "prx", "prx_pixel")
}
OPTIONS["sana_sprint"] = {"use_resolution_binning": False, "intermediate_timesteps": None}


def _family(name):
    def build():
        torch.manual_seed(0)
        return spread_weights(MAKERS[name]())

    build.__name__ = name
    return build


FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {name: _family(name) for name in MAKERS}


def generate(pipeline, name, prompts, seeds, steps=2, **options):
    """The images of prompts as a float array, with the least legal size of a family."""
    size = SIZES.get(name, 32)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    called = {"height": size, "width": size, **OPTIONS.get(name, {}), **options}
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=list(prompts), num_inference_steps=steps, generator=generators, output_type="np", **called
    ).images
