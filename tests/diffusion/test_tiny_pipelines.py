"""The tiny pipelines that other tests generate with: each loads from its folder and reads its prompt."""

import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

ALWAYS = {"qwenimage", "z_image", "chroma"}
PROMPTS = ["a red bag", "a dark shirt"]


def as_pixels(images):
    assert np.isfinite(images).all()
    return (np.asarray(images) * 255).round().astype(int)


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.soak) for name in tiny_pipelines.FAMILIES]
)
def test_each_loads_from_its_folder_and_reads_its_prompt_and_seed(tmp_path, name):
    if package := tiny_pipelines.NEEDS.get(name):
        pytest.importorskip(package)
    torch.set_num_threads(1)
    built = tiny_pipelines.FAMILIES[name]()
    loaded = DiffusionPipeline.from_pretrained(tiny_pipelines.save_tiny(name, tmp_path))
    assert type(loaded) is type(built)

    def generate(pipeline, prompts, seeds):
        return as_pixels(tiny_pipelines.generate(pipeline, name, prompts, seeds))

    pixels = generate(loaded, PROMPTS, [1, 1])
    assert np.abs(pixels - generate(built, PROMPTS, [1, 1])).max() <= 1
    assert pixels.std() > 5 and np.abs(pixels[0] - pixels[1]).max() > 1
    again = generate(loaded, PROMPTS[:1] * 2, [1, 2])
    assert np.abs(again[0] - again[1]).max() > 1


@pytest.mark.soak
def test_every_text_to_image_pipeline_of_diffusers_is_built_or_listed():
    built = {type(tiny_pipelines.MAKERS[name]()).__name__ for name in tiny_pipelines.MAKERS}
    listed = {*tiny_pipelines.UNBUILT, *tiny_pipelines.NEEDS_IMAGE}
    assert built.isdisjoint(listed)
    assert {kind.__name__ for kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()} <= built | listed
