"""The memory of an actor, counted without one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from plans import SPEC, plan_of, spec_of
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import CLIPTextConfig, CLIPTextModel

from raysd.diffusion.checkpoint import Model, weight_bytes
from raysd.generation.fake_run import run_on_fake_tensors
from raysd.generation.memory import PROCESS_BYTES, ActorMemory, actor_memory
from raysd.generation.pipeline import Generator

FULL_SIZE = Path(__file__).parent.parent.parent / "benchmarks" / "results" / "full_size.json"
SIZED = ("flux", "flux_schnell")  # whose checkpoints do not say their size


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("checkpoints"), {}
    return lambda name: made.get(name) or made.setdefault(name, tiny_models.save_tiny(name, root))


def spec_for(folder, **changes):
    size = {"image_size": 32} if folder.name in SIZED else {}
    scale = 1 if folder.name == "flux_schnell" else 3
    return spec_of(
        **{
            "model": str(folder),
            "dtype": "float32",
            "num_inference_steps": 1,
            "guidance_scale": scale,
            **size,
            **changes,
        }
    )


def size_of(tensors):
    return sum(tensor.nbytes for tensor in tensors if torch.is_tensor(tensor))


def activations_of_a_real_batch(spec, batch_size):
    """By torch's own tracker, while the pipeline calls its denoiser and its VAE with real tensors."""
    generator, found, inputs = Generator(spec), {}, {}

    def watch(name, part, method):
        function = getattr(part, method)

        def call(*args, **kwargs):
            tracker, held = MemTracker(), [*args, *kwargs.values()]
            tracker.track_external(part, *filter(torch.is_tensor, held))
            with tracker:
                output = function(*args, **kwargs)
            most = max(snapshot["Total"] for snapshot in tracker.get_tracker_snapshot("peak").values())
            found[name] = (
                most - size_of(part.parameters()) - size_of(part.buffers()) + sum(inputs.values())
            )  # those of the denoiser live until the end
            inputs.setdefault(name, size_of(held))
            return output

        setattr(part, method, call)

    watch(spec.family.denoiser, generator.denoiser, "forward")
    watch("vae", generator.pipeline.vae, "decode")
    plan = plan_of(4, 40, spec)
    generator.generate(spec, [plan.image(position) for position in range(batch_size)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3", "flux", "pixart", "sana"])
def test_a_run_on_fake_tensors_counts_what_a_real_batch_takes(checkpoint, name, monkeypatch):
    spec = spec_for(checkpoint(name))
    weights, activations = run_on_fake_tensors(spec, 3)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # torch's tracker knows no other
    assert weights == pytest.approx(weight_bytes(spec.model.folder, "float32"), rel=0.02)
    for part, num_bytes in activations_of_a_real_batch(spec, 3).items():
        assert activations[part] == pytest.approx(num_bytes, rel=0.05), part


@pytest.mark.parametrize("name", tiny_models.FAMILIES)
def test_every_family_runs_on_fake_tensors_in_its_own_precision(checkpoint, name):
    spec = spec_for(checkpoint(name), dtype="auto")
    memory = actor_memory(spec, 4)
    assert {spec.family.denoiser, "vae", "text_encoder"} <= set(memory.activations)
    assert memory.weights == pytest.approx(weight_bytes(spec.model.folder, spec.dtype), rel=0.1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_count_as_they_are_loaded(checkpoint, dtype):
    spec = spec_for(checkpoint("sd3"), dtype=dtype)  # T5 keeps a part of its own in float32 where the rest is float16
    loaded = [part for part in Generator(spec).pipeline.components.values() if isinstance(part, torch.nn.Module)]
    expected = sum(size_of(part.parameters()) + size_of(part.buffers()) for part in loaded)
    assert run_on_fake_tensors(spec, 1)[0] == pytest.approx(expected, rel=0.01)


def test_batch_size_image_size_and_guidance_count(checkpoint):
    def unet(batch_size, **changes):
        return run_on_fake_tensors(spec_for(checkpoint("sd1"), **changes), batch_size)[1]["unet"]

    assert unet(32) == pytest.approx(4 * unet(8), rel=0.02)
    assert unet(32) == pytest.approx(2 * unet(32, guidance_scale=1), rel=0.02)
    assert unet(8, image_size=64) == pytest.approx(4 * unet(8, image_size=32), rel=0.02)


def test_a_safety_checker_counts_where_it_is_used(tmp_path):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    tower = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "projection_dim": 32,
    }
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(text_config=tower, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=32)
    )
    pipeline = tiny_models.sd1()
    pipeline.register_modules(safety_checker=checker, feature_extractor=CLIPImageProcessor())
    pipeline.save_pretrained(tmp_path)
    without, with_checker = (
        run_on_fake_tensors(spec_for(tmp_path, safety_checker=is_used), 2)[0] for is_used in (False, True)
    )
    assert with_checker - without == size_of(checker.parameters()) + size_of(checker.buffers())


def test_a_vae_that_computes_in_float32_counts_so(checkpoint):
    halves = [run_on_fake_tensors(spec_for(checkpoint(name), dtype="float16"), 4)[1]["vae"] for name in ("sd1", "sdxl")]
    assert halves[1] > 1.8 * halves[0], "both have the same one, which only the pipeline of SDXL takes to float32"


def test_large_images_are_decoded_one_at_a_time(checkpoint):
    def vae(batch_size, image_size):
        return run_on_fake_tensors(spec_for(checkpoint("sd1"), image_size=image_size), batch_size)[1]["vae"]

    assert vae(32, 128) > 30 * vae(1, 128)
    assert vae(32, 256) < vae(32, 128)


def test_a_driver_with_a_gpu_counts_the_same_and_uses_none(checkpoint, monkeypatch):
    spec = spec_for(checkpoint("sdxl"), dtype="float16")
    expected = run_on_fake_tensors(spec, 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # there is none here, so that its use would fail
    assert run_on_fake_tensors(spec, 2) == expected


@pytest.mark.parametrize(
    "failure", [lambda sample: sample.sum().item(), lambda sample: torch.nn.functional.linear(sample, sample[0])]
)
def test_a_pipeline_that_does_not_run_on_fake_tensors_counts_by_its_weights_without_noise(
    checkpoint, monkeypatch, capfd, failure
):
    monkeypatch.setattr(UNet2DConditionModel, "forward", lambda self, sample, *args, **kwargs: failure(sample))
    spec, _ = spec_for(checkpoint("sd1")), capfd.readouterr()
    memory = actor_memory(spec, 4)
    assert capfd.readouterr().err == ""
    assert memory.weights == weight_bytes(checkpoint("sd1"), "float32") and memory.activations == {}
    assert memory.on_gpu == pytest.approx(PROCESS_BYTES + 1.33 * memory.weights, rel=0.01)
    assert "more with large batches" in memory.describe(has_gpu=True)


def test_it_is_said_which_component_takes_the_most():
    memory = ActorMemory(7 * 10**9, {"unet": 10 * 10**9, "vae": 4 * 10**9}, 2 * 10**9)
    assert memory.describe(has_gpu=True) == "about 18.7 GB of a GPU: weights 7.0 GB, 10.0 GB while unet works"
    assert memory.describe(has_gpu=False) == "about 27.7 GB of memory: weights 7.0 GB, 10.0 GB while unet works"
    assert memory.on_node(has_gpu=True) == pytest.approx(9.7e9)


def test_the_dummy_model_needs_no_torch():
    memory = actor_memory(spec_of(model="dummy"), 32)
    assert memory.weights == 0 and memory.on_gpu < 10**9


@pytest.mark.slow
def test_the_estimate_is_near_the_measured_peak_of_stable_diffusion(tmp_path):
    with FakeTensorMode():
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
        text = CLIPTextModel(CLIPTextConfig(**{**tiny_models.clip_config().to_dict(), **sizes, "vocab_size": 49408}))
    rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text,
        tokenizer=tiny_models.clip_tokenizer(),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        **rest,
    )
    pipeline.save_config(tmp_path)
    for name, part in pipeline.components.items():
        if part is not None:
            (
                part.config.save_pretrained
                if name == "text_encoder"
                else part.save_config
                if name in ("unet", "vae")
                else part.save_pretrained
            )(tmp_path / name)
    spec = replace(SPEC, model=Model("sd1", None, tmp_path, "0" * 16), image_size=512, scheduler=None)
    measured = (
        next(row["value"] for row in json.loads(FULL_SIZE.read_text()) if row["metric"] == "actor_peak_mb") * 2**20
    )
    assert actor_memory(spec, 1).on_node(has_gpu=False) == pytest.approx(measured, rel=0.1)
