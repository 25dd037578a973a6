import json

import numpy as np
import pytest
import torch
from lora_files import write_lora
from plans import plan_of, spec_of

from raysd.clone.clone import Clone
from raysd.diffusion.checkpoint import EMBEDDED, find_model
from raysd.errors import UserError
from raysd.generation.actor import GenerationActor
from raysd.generation.batch import finish_images, is_black
from raysd.generation.pipeline import Generator
from raysd.storage.location import Location

SPEC = spec_of(num_inference_steps=3)


@pytest.fixture(scope="module")
def generator():
    return Generator(SPEC)


def generate(generator, positions, spec=SPEC):
    plan = plan_of(10, 16, spec)
    return generator.generate(spec, [plan.image(position) for position in positions]).pixels


def test_an_image_does_not_depend_on_its_batch(generator):
    torch.set_num_threads(1)
    together = generate(generator, [0, 1, 2, 3])
    assert np.array_equal(generate(generator, [0, 25, 26, 27])[0], together[0])
    assert np.array_equal(generate(generator, [40, 41, 2, 43])[2], together[2])
    assert np.array_equal(generate(generator, [3, 1, 0, 2]), together[[3, 1, 0, 2]])


def test_guidance_and_prompt_change_the_image_and_not_the_noise(generator):
    other = spec_of(num_inference_steps=3, guidance_scale=7.5)
    assert not np.array_equal(generate(generator, [0, 1]), generate(generator, [0, 1], other))


def test_switching_the_scheduler_back_and_forth_changes_nothing(generator):
    before = generate(generator, [0, 1])
    generate(generator, [0, 1], spec_of(num_inference_steps=3, sampler="paper"))
    assert np.array_equal(generate(generator, [0, 1]), before)


def test_large_images_are_decoded_one_at_a_time_and_small_ones_together(generator, monkeypatch):
    together = generate(generator, [0, 1, 2])
    sizes, decode = [], generator.pipeline.vae._decode
    monkeypatch.setattr(
        generator.pipeline.vae,
        "_decode",
        lambda latents, *args, **kwargs: sizes.append(len(latents)) or decode(latents, *args, **kwargs),
    )
    assert np.array_equal(generate(generator, [0, 1, 2]), together) and sizes == [3]
    monkeypatch.setattr("raysd.generation.pipeline.SLICED_SIZE", 32)
    one_by_one = generate(generator, [0, 1, 2])
    assert sizes == [3, 1, 1, 1]
    assert np.abs(one_by_one.astype(int) - together).max() <= 1
    assert np.array_equal(generate(generator, [0, 25, 26])[0], one_by_one[0])


def test_an_autoencoder_that_cannot_decode_one_at_a_time_decodes_all_together(generator, monkeypatch):
    together = generate(generator, [0, 1, 2])
    monkeypatch.setattr("raysd.generation.pipeline.SLICED_SIZE", 32)
    monkeypatch.delattr(generator.pipeline.vae, "use_slicing")
    monkeypatch.setattr(
        generator.pipeline.vae,
        "decode",
        lambda latents, *args, **kwargs: [generator.pipeline.vae._decode(latents).sample],
    )
    assert np.array_equal(generate(generator, [0, 1, 2]), together)


def test_gray_and_color_shapes(generator):
    assert generate(generator, [0, 1]).shape == (2, 32, 32)
    assert generate(generator, [0, 1], spec_of(num_inference_steps=3, color="rgb")).shape == (2, 32, 32, 3)


def test_a_generator_refuses_a_clone_of_another_model(generator):
    with pytest.raises(ValueError, match="this generator holds"):
        generate(generator, [0], spec_of(dtype="bfloat16"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file, _: file.unlink(), "is not on .*; put it where all nodes see it"),
        (lambda file, _: file.write_bytes(b"WEIGHTS"), "is another file on .* than where the job began"),
        (
            lambda _, monkeypatch: monkeypatch.setattr("raysd.diffusion.checkpoint.has_peft", lambda: False),
            "needs the package peft, which is absent on",
        ),
    ],
)
def test_lora_weights_that_are_not_those_of_the_clone_are_refused_before_the_model_is_loaded(
    tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr("raysd.diffusion.checkpoint.has_peft", lambda: True)
    monkeypatch.setattr(
        "diffusers.DiffusionPipeline.from_pretrained", lambda *_, **__: pytest.fail("the model was loaded")
    )
    file = tmp_path / "style.safetensors"
    write_lora(file)
    spec = spec_of(lora=[{"path": str(file)}])
    change(file, monkeypatch)
    with pytest.raises(UserError, match=f"generation.lora.path = '{file}': {message}") as raised:
        Generator(spec)
    row = GenerationActor(spec, 4, 1).try_shard(Clone.of(plan_of(1, 10, spec), Location(str(tmp_path))), 0)
    assert str(UserError(*json.loads(row["error"]))) == str(raised.value), (
        "the actor lives, and its row says it in one line"
    )


def test_images_with_nan_are_flagged_and_come_out_black():
    generated = np.full((3, 16, 16, 3), 0.5)
    generated[1, 2, 3, 0] = np.nan
    generated[2] = 0
    batch = finish_images(generated, [False] * 3, 8, "rgb")
    assert batch.flags == ["", "nan", "black"]
    assert batch.pixels.shape == (3, 8, 8, 3) and batch.pixels[0].min() == 128


def test_a_gpu_would_round_images_as_numpy_does(generator, monkeypatch):
    """There is no GPU here, but its code is: that of a pipeline's tensors, against that of its arrays."""
    decode = generator.pipeline.vae.decode

    def broken(*args, **kwargs):
        (images,) = decode(*args, **kwargs)
        images[1, 0, 0, 0], images[2, 0, 0, 0] = float("nan"), float("inf")
        return (images,)

    monkeypatch.setattr(generator.pipeline.vae, "decode", broken)
    batches, arguments = [], generator._arguments
    for kind in ("pt", "np"):
        monkeypatch.setattr(
            generator, "_arguments", lambda *given, kind=kind: {**arguments(*given), "output_type": kind}
        )
        batches.append(generator.generate(SPEC, [plan_of(4, 40).image(position) for position in range(4)]))
    assert np.array_equal(batches[0].pixels, batches[1].pixels)
    assert batches[0].flags == batches[1].flags == ["", "nan", "", ""]


def test_black_images_are_found():
    assert is_black(np.zeros((8, 8), dtype=np.uint8))
    assert not is_black(np.full((8, 8), 3, dtype=np.uint8))


def test_the_embedded_model_is_small_and_loads_with_plain_diffusers():
    from diffusers import StableDiffusionPipeline

    size = sum(path.stat().st_size for path in EMBEDDED.rglob("*.safetensors"))
    assert size <= 6 * 2**20
    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("sneaker", num_inference_steps=2).images[0].size == (32, 32)


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_model(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no model_index\.json"):
        find_model(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="no safetensors"):
        find_model(str(tmp_path / "."))
