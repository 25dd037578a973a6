"""Deep features that serve several steps, with tiny random checkpoints."""

import json

import numpy as np
import pytest
import tiny_models
import torch
from plans import plan_of, spec_of

from raysd.diffusion.family import read_family
from raysd.diffusion.step_cache import PIPELINES, cached_steps, skipped_parts
from raysd.errors import UserError
from raysd.generation.pipeline import Generator

CACHED = ["sd1", "sdxl", "lcm"]
STEPS = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def get(name):
        if name not in made:
            made[name] = tiny_models.save_tiny(name, root)
        return made[name]

    return get


def spec_for(folder, **changes):
    return spec_of(**{"model": str(folder), "dtype": "float32", "num_inference_steps": STEPS, **changes})


def planned(spec, count=3):
    plan = plan_of(4, 8, spec)
    return [plan.image(position) for position in range(count)]


def full_unet(**options):
    """A U-Net with blocks and layers as those of Stable Diffusion 1.x, though thin."""
    torch.manual_seed(0)
    return tiny_models.unet(
        **{
            "block_out_channels": (8, 8, 16, 16),
            "layers_per_block": 2,
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "attention_head_dim": 4,
            "norm_num_groups": 4,
            **options,
        }
    ).eval()


def replaced_layers(unet):
    return [module for module in list(unet.modules())[1:] if "forward" in vars(module)]


def call(unet, sample, time=1):
    tokens = torch.full((len(sample), 5, tiny_models.WIDTH), 0.5)
    with torch.inference_mode():
        return unet(sample, torch.tensor(time), encoder_hidden_states=tokens).sample


def counted(unet):
    """Which residual blocks run, as names, for each call of the U-Net."""
    seen, names = [], {module: name for name, module in unet.named_modules() if name.split(".")[-2:-1] == ["resnets"]}
    for module in names:
        module.conv1.register_forward_hook(lambda *_, name=names[module]: seen[-1].append(name))
    unet.conv_in.register_forward_hook(lambda *_: seen.append([]))
    return seen


@pytest.mark.parametrize(
    ("depth", "running"),
    [
        (1, ["down_blocks.0.resnets.0", "up_blocks.3.resnets.1", "up_blocks.3.resnets.2"]),
        (3, [*(f"down_blocks.0.resnets.{layer}" for layer in range(2)), "up_blocks.2.resnets.2"]
         + [f"up_blocks.3.resnets.{layer}" for layer in range(3)]),
    ],
)  # fmt: skip
def test_cached_calls_run_the_ends_alone(depth, running):
    unet = full_unet()
    seen, sample = counted(unet), torch.randn(2, 4, 16, 16)
    with cached_steps(unet, 3, depth):
        for _ in range(4):
            call(unet, sample)
    assert seen[1] == seen[2] == running and seen[0] == seen[3] and len(seen[0]) == 8 + 2 + 12


# 18 / 2 is odd, so a block is told the size to upsample to.
@pytest.mark.parametrize(("depth", "size"), [(1, 16), (1, 18), (2, 18), (3, 18), (5, 18), (8, 18), (11, 18)])
def test_with_the_same_input_a_cached_call_returns_what_the_full_one_did(depth, size):
    unet, sample = full_unet(), torch.randn(2, 4, size, size)
    plain = call(unet, sample)
    with cached_steps(unet, 2, depth):
        full, cached = call(unet, sample), call(unet, sample)
        other = call(unet, 2 * sample), call(unet, sample)
    assert torch.equal(full, plain) and torch.equal(cached, plain)
    assert not torch.equal(other[1], plain), "deep features of another input made no difference"
    assert torch.equal(call(unet, sample), plain)


def test_at_the_largest_depth_only_the_middle_is_left_out():
    unet = full_unet()
    assert [part.module for part in skipped_parts(unet, 11)] == [unet.mid_block]
    assert len(skipped_parts(unet, 10)) == 3, "the last layer down, the middle, and the first one up"


@pytest.mark.parametrize("name", CACHED)
def test_an_interval_of_one_gives_the_plain_images(checkpoint, name):
    plain = spec_for(checkpoint(name))
    assert spec_for(checkpoint(name), step_cache={"interval": 1}).fingerprint == plain.fingerprint
    generator = Generator(plain)
    images = generator.generate(plain, planned(plain)).pixels
    with cached_steps(generator.denoiser, 1, 1):
        assert np.array_equal(generator.generate(plain, planned(plain)).pixels, images)


@pytest.mark.parametrize("name", CACHED)
def test_a_cache_changes_the_images_a_little_and_the_next_batch_not_at_all(checkpoint, name):
    plain, cached = spec_for(checkpoint(name)), spec_for(checkpoint(name), step_cache={"interval": 2})
    assert plain.pipeline_key == cached.pipeline_key and plain.fingerprint != cached.fingerprint
    generator = Generator(plain)
    first, other, again = (generator.generate(spec, planned(spec)).pixels for spec in (plain, cached, plain))
    assert (first != other).any() and np.array_equal(first, again)
    assert not replaced_layers(generator.denoiser)


@pytest.mark.parametrize("guidance_interval", [(0.0, 1.0), (0.25, 0.75)])
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_with_cached_steps_no_image_depends_on_its_neighbors(checkpoint, name, guidance_interval):
    torch.set_num_threads(1)
    spec = spec_for(
        checkpoint(name),
        guidance_scale=9,
        guidance_interval=guidance_interval,
        negative_prompt="dark, b",
        step_cache={"interval": 2},
    )
    generator, (first, second, third, other) = Generator(spec), planned(spec, 4)
    together = generator.generate(spec, [first, second, third]).pixels
    assert np.array_equal(generator.generate(spec, [first, other, third]).pixels[[0, 2]], together[[0, 2]])
    for place, image in enumerate((first, second, third)):
        padded, alone = (generator.generate(spec, [image] * count).pixels.astype(int) for count in (3, 1))
        assert np.array_equal(padded[place], together[place])
        assert all(np.abs(pixels - together[place]).max() <= 1 for pixels in (*padded, *alone)), "beyond rounding"


def test_a_call_runs_in_full_where_guidance_begins_or_ends(checkpoint):
    spec = spec_for(checkpoint("sd1"), num_inference_steps=6, guidance_interval=(0.3, 0.8), step_cache={"interval": 10})
    generator = Generator(spec)
    seen, rows = counted(generator.denoiser), []
    generator.denoiser.conv_in.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    generator.generate(spec, planned(spec))
    assert rows == [3, 3, 6, 6, 6, 3] and [len(names) == len(seen[0]) for names in seen] == [1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("scheduler", "calls"), [("HeunDiscreteScheduler", 7), ("PNDMScheduler", 5)])
def test_calls_are_counted_not_steps(checkpoint, scheduler, calls):
    spec = spec_for(checkpoint("sd1"), scheduler=scheduler, step_cache={"interval": 3})
    generator = Generator(spec)
    seen = counted(generator.denoiser)
    generator.generate(spec, planned(spec))
    assert [len(names) == len(seen[0]) for names in seen] == [call % 3 == 0 for call in range(calls)]


def test_nothing_is_left_behind_by_a_batch_that_fails(checkpoint):
    spec = spec_for(checkpoint("sd1"), step_cache={"interval": 3})
    generator = Generator(spec)
    images = generator.generate(spec, planned(spec)).pixels
    step, broken = generator.denoiser.conv_out.forward, []

    def fail(sample):
        broken.append(True)
        if len(broken) == 2:
            raise RuntimeError("out of memory")
        return step(sample)

    generator.denoiser.conv_out.forward = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        generator.generate(spec, planned(spec))
    del generator.denoiser.conv_out.forward
    assert not replaced_layers(generator.denoiser)
    assert np.array_equal(generator.generate(spec, planned(spec)).pixels, images)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("pixart", {}, "PixArtSigmaPipeline is not known to call a U-Net once a step; leave it out"),
        ("sd1", {"compile": True}, "compiled code runs all layers in every step"),
        ("sd1", {"step_cache": {"depth": 4}}, "has 3 layers on the way down; use at most this depth"),
    ],
)
def test_a_model_that_cannot_skip_layers_is_refused_by_name(checkpoint, name, changes, message):
    with pytest.raises(UserError, match=rf"generation.step_cache = .*{message}"):
        spec_for(checkpoint(name), **{"step_cache": {}, **changes})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "UNetMotionModel"}, "denoiser is a UNetMotionModel"),
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "a block of the kind AttnDownBlock2D"),
        ({"mid_block_type": None}, "a block of the kind None"),
    ],
)
def test_a_u_net_of_another_kind_is_refused_by_name(tmp_path, config, message):
    path = tiny_models.save_tiny("sd1", tmp_path) / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(UserError, match=f"{message}.*; leave it out"):
        spec_for(path.parent.parent, step_cache={})


def test_each_pipeline_that_takes_cached_steps_is_tried(checkpoint):
    assert {read_family(checkpoint(name)).pipeline for name in CACHED} == set(PIPELINES)


def test_the_stand_in_and_the_embedded_model_take_it():
    assert spec_of(model="dummy", step_cache={}).step_cache.interval == 3
    assert spec_of(step_cache={"depth": 3}).describe()["step_cache"] == {"interval": 3, "depth": 3}
