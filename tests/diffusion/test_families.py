"""Each architecture, with tiny random checkpoints."""

import json

import numpy as np
import pytest
import tiny_models
import torch
from plans import plan_of, spec_of
from safetensors.torch import save_file

from raysd.clone.spec import resolve_clone_spec
from raysd.diffusion.conventions import CONVENTIONS
from raysd.diffusion.family import read_family
from raysd.errors import UserError
from raysd.generation.pipeline import Generator
from raysd.prompts.settings import VariantSettings
from raysd.prompts.table import load_class_table

GUIDED = ["sd1", "sd2", "sdxl", "sd3", "pixart", "pixart_alpha", "sana"]
STEPS = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    made = {}

    def get(name):
        if name not in made:
            made[name] = tiny_models.save_tiny(name, root)
        return made[name]

    return get


def spec_for(folder, name, **changes):
    size = {"image_size": 32} if name.startswith("flux") else {}
    scale = 1 if name == "flux_schnell" else 3
    return spec_of(
        **{
            "model": str(folder),
            "dtype": "float32",
            "num_inference_steps": STEPS,
            "guidance_scale": scale,
            **size,
            **changes,
        }
    )


def planned(spec, count=3):
    plan = plan_of(4, 8, spec)
    return [plan.image(position) for position in range(count)]


@pytest.mark.parametrize("name", tiny_models.FAMILIES)
def test_each_family_generates_what_its_pipeline_generates_from_the_plain_prompts(checkpoint, name):
    spec = spec_for(checkpoint(name), name)
    generator = Generator(spec)
    images = planned(spec)
    generated = generator.generate(spec, images)
    assert generator.embeddings is not None and generated.pixels.shape == (3, spec.image_size, spec.image_size, 3)
    plain = generator.pipeline(
        prompt=[image.prompt for image in images],
        guidance_scale=spec.guidance_scale,
        num_inference_steps=STEPS,
        height=spec.image_size,
        width=spec.image_size,
        generator=[torch.Generator("cpu").manual_seed(image.seed) for image in images],
        output_type="np",
        **({"use_resolution_binning": False, "clean_caption": False} if name.startswith(("pixart", "sana")) else {}),
        **({"complex_human_instruction": None} if name.startswith("sana") else {}),
        **({"intermediate_timesteps": None} if name == "sana_sprint" else {}),
    ).images
    assert np.abs(generated.pixels.astype(int) - (plain * 255).round().astype(int)).max() <= 1
    assert len({image.tobytes() for image in generated.pixels}) == 3


@pytest.mark.parametrize("name", GUIDED)
def test_without_a_guided_step_the_images_are_those_of_guidance_one(checkpoint, name):
    never = spec_for(checkpoint(name), name, guidance_interval=(0.99, 1.0))
    generator, unguided = Generator(never), spec_for(checkpoint(name), name, guidance_scale=1)
    seen = []
    forward = generator.denoiser.forward
    generator.denoiser.forward = lambda *args, **kwargs: (
        seen.append(len((*args, *kwargs.values())[0])) or forward(*args, **kwargs)
    )
    images = [generator.generate(spec, planned(spec)).pixels.astype(int) for spec in (never, unguided)]
    assert np.abs(images[0] - images[1]).max() <= 1
    assert set(seen) == {3}, "an unconditional pass was made"


@pytest.mark.parametrize("name", ["sd1", "sana"])
def test_guiding_a_part_of_the_steps_gives_images_in_between(checkpoint, name):
    def images(interval):
        spec = spec_for(checkpoint(name), name, guidance_scale=9, guidance_interval=interval)
        return Generator(spec).generate(spec, planned(spec)).pixels.astype(int)

    none, some, all_steps = images((0.99, 1.0)), images((0.3, 0.6)), images((0.0, 1.0))
    assert (some != none).any() and (some != all_steps).any()


def test_each_family_that_takes_an_interval_is_tried(checkpoint):
    assert {read_family(checkpoint(name)).pipeline for name in GUIDED} == {
        name for name, convention in CONVENTIONS.items() if convention.one_call
    } - {"Dummy"}


@pytest.mark.parametrize("negative_prompt", ["", "dark, b"])
@pytest.mark.parametrize("name", GUIDED)
def test_with_an_interval_no_image_depends_on_its_neighbors(checkpoint, name, negative_prompt):
    torch.set_num_threads(1)
    spec = spec_for(
        checkpoint(name), name, guidance_scale=9, guidance_interval=(0.3, 0.6), negative_prompt=negative_prompt
    )
    generator, (first, second, third, other) = Generator(spec), planned(spec, 4)
    sizes, forward = [], generator.denoiser.forward
    generator.denoiser.forward = lambda *args, **kwargs: (
        sizes.append(len((*args, *kwargs.values())[0])) or forward(*args, **kwargs)
    )
    together = generator.generate(spec, [first, second, third]).pixels
    assert sizes == [3, 6, 3], "one call a step, and only those in the interval have both halves"
    assert np.array_equal(generator.generate(spec, [first, other, third]).pixels[[0, 2]], together[[0, 2]])
    for place, image in enumerate((first, second, third)):
        padded, alone = (generator.generate(spec, [image] * count).pixels.astype(int) for count in (3, 1))
        assert np.array_equal(padded[place], together[place])
        assert all(np.abs(pixels - together[place]).max() <= 1 for pixels in (*padded, *alone)), "beyond rounding"


@pytest.mark.parametrize(
    "pipeline",
    [
        "ChromaPipeline",
        "CogView4Pipeline",
        "Lumina2Pipeline",
        "OvisImagePipeline",
        "QwenImagePipeline",
        "ZImagePipeline",
        "HunyuanDiTPipeline",
    ],
)
@pytest.mark.parametrize("negative_prompt", ["", "dark"])
def test_a_family_that_is_not_known_to_make_one_call_takes_no_interval(tmp_path, pipeline, negative_prompt):
    index = {"_class_name": pipeline, "transformer": ["diffusers", "SomeTransformer"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(1)}, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    settings = {"model": str(tmp_path), "image_size": 64, "negative_prompt": negative_prompt}
    with pytest.raises(
        UserError,
        match=rf"generation.guidance_interval = \[0.2, 0.8\]: {pipeline} is not known .*; leave it at \[0, 1\]$",
    ):
        spec_of(**settings, guidance_interval=(0.2, 0.8))
    assert spec_of(**settings).guidance_interval == (0.0, 1.0)


def test_the_stand_in_takes_an_interval_as_the_model_in_its_place_does():
    assert spec_of(model="dummy", guidance_interval=(0.2, 0.8)).guidance_interval == (0.2, 0.8)


def test_a_distinct_prompt_is_encoded_once(checkpoint):
    spec = spec_for(checkpoint("sd1"), "sd1")
    generator = Generator(spec)
    texts = []
    generator.pipeline.text_encoder.register_forward_pre_hook(lambda _, args: texts.append(args[0]))
    plan = plan_of(4, 8, spec)
    prompts = [plan.image(position).prompt for position in (0, 10, 20, 1)]
    rows = generator.embeddings.batch(prompts, [""] * 4, guided=False)["prompt_embeds"]
    assert prompts == ["T-shirt"] * 3 + ["trouser"] and len(texts) == 2
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[3])


@pytest.mark.parametrize("name", tiny_models.FAMILIES)
def test_a_negative_prompt_is_encoded_once_for_all_prompts_with_the_same_values(checkpoint, name):
    embeddings = Generator(spec_for(checkpoint(name), name)).embeddings
    prompts, negatives = (
        ["bag", "a very long coat, and a dress", "shirt", "bag"],
        ["", "dark, blurry", "", ""] if name in GUIDED else [""] * 4,
    )
    encode, calls = embeddings._encode, []
    together = [encode(prompt, negative, True) for prompt, negative in zip(prompts, negatives, strict=True)]
    embeddings._encode = lambda *args: calls.append(args) or encode(*args)
    apart = embeddings.batch(prompts, negatives, guided=True)
    assert apart.keys() == together[0].keys() and ("negative_prompt_embeds" in apart) == (name in GUIDED)
    for key, values in apart.items():
        assert torch.equal(values, torch.cat([row[key] for row in together])), key
    assert [text for _, text, guided in calls if guided] == (["", "dark, blurry"] if name in GUIDED else [])
    assert [text for text, _, guided in calls if not guided] == prompts[:3]


def test_a_negative_prompt_changes_the_images(checkpoint):
    table = load_class_table("fashion_mnist")
    variants = {
        "plain": VariantSettings(templates=["a {name}"]),
        "not": VariantSettings(templates=["a {name}"], negative_prompt="dark"),
    }
    generated = []
    for name in variants:
        settings = {
            "model": str(checkpoint("sd1")),
            "dtype": "float32",
            "num_inference_steps": STEPS,
            "guidance_scale": 5,
            "variant": name,
        }
        from raysd.clone.settings import GenerationSettings

        spec = resolve_clone_spec(GenerationSettings(**settings), table, variants)
        generated.append(Generator(spec).generate(spec, planned(spec)).pixels)
    assert (generated[0] != generated[1]).any()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "flux_schnell",
            {"guidance_scale": 2},
            r"guidance_scale = 2.0: .* distilled without guidance and ignores it; set it to 1",
        ),
        ("flux", {"guidance_interval": (0.1, 0.5)}, r"guidance_interval .* no unconditional pass"),
        ("lcm", {"guidance_interval": (0.1, 0.5)}, r"guidance_interval .* no unconditional pass"),
        ("sana_sprint", {"guidance_interval": (0.1, 0.5)}, r"guidance_interval .* no unconditional pass"),
        ("sana_sprint", {"negative_prompt": "dark"}, r"negative_prompt = 'dark': .* no unconditional pass"),
        ("sana", {"image_size": 40}, r"image_size = 40: use a multiple of 32"),
        ("sd1", {"stored_size": 64}, r"stored_size = 64: is larger than the generated images"),
        ("sd1", {"scheduler": "Nonsense"}, r"scheduler = 'Nonsense': diffusers has no such scheduler"),
        ("sd1", {"scheduler": "UNet2DConditionModel"}, r"diffusers has no such scheduler"),
        (
            "sd1",
            {"scheduler_options": {"bets": 1}},
            r"scheduler_options = 'bets': DPMSolverMultistepScheduler has no such option",
        ),
        ("sd1", {"lora": [{"path": "/nowhere"}]}, r"lora.path = '/nowhere': 0 safetensors files"),
    ],
)
def test_what_a_family_would_ignore_or_cannot_do_is_refused(checkpoint, name, changes, message):
    with pytest.raises(UserError, match=message):
        spec_for(checkpoint(name), name, **changes)


def test_few_step_models_keep_their_scheduler_and_take_few_steps(checkpoint):
    spec = spec_for(checkpoint("lcm"), "lcm", num_inference_steps=None)
    assert (spec.scheduler, spec.num_inference_steps) == (None, 4)
    spec = spec_for(checkpoint("sana_sprint"), "sana_sprint", num_inference_steps=None)
    assert (spec.scheduler, spec.num_inference_steps) == (None, 4)
    assert spec_for(checkpoint("sd1"), "sd1", num_inference_steps=None).num_inference_steps == 20
    assert spec_for(checkpoint("sd1"), "sd1", num_inference_steps=None, sampler="paper").num_inference_steps == 50


def test_two_steps_of_sana_sprint_are_at_its_own_times(checkpoint):
    generator, times = None, []
    for steps in (2, 4):
        spec = spec_for(checkpoint("sana_sprint"), "sana_sprint", num_inference_steps=steps)
        generator = generator or Generator(spec)
        generator.generate(spec, planned(spec))
        times.append(generator.pipeline.scheduler.timesteps[1].item())
    assert times == pytest.approx([1.3, 1.5708 * 3 / 4])


def test_half_precision_is_the_default_of_large_models(checkpoint):
    assert spec_for(checkpoint("sd1"), "sd1", dtype="auto").dtype == "float16"
    assert spec_for(checkpoint("sd3"), "sd3", dtype="auto").dtype == "bfloat16"


@pytest.mark.parametrize(
    "scheduler",
    ["UniPCMultistepScheduler", "DDIMScheduler", "HeunDiscreteScheduler", "EulerAncestralDiscreteScheduler"],
)
def test_schedulers_by_name_repeat(checkpoint, scheduler):
    options = {"clip_sample": False} if scheduler == "DDIMScheduler" else {}
    changes = {"scheduler": scheduler, "scheduler_options": options, "num_inference_steps": 4}
    spec = spec_for(checkpoint("sd1"), "sd1", **changes)
    generator = Generator(spec)
    first, second = generator.generate(spec, planned(spec)).pixels, generator.generate(spec, planned(spec)).pixels
    assert np.array_equal(first, second)
    assert type(generator.pipeline.scheduler).__name__ == scheduler


def test_images_are_stored_smaller(checkpoint):
    spec = spec_for(checkpoint("sd1"), "sd1", stored_size=16)
    assert Generator(spec).generate(spec, planned(spec)).pixels.shape == (3, 16, 16, 3)


def test_lora_weights_change_the_images_by_their_scale(checkpoint, tmp_path):
    peft = pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline
    from peft.utils import get_peft_model_state_dict

    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint("sd1"), safety_checker=None)
    torch.manual_seed(1)
    pipeline.unet.add_adapter(peft.LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipeline.unet))

    def images(*loras):
        spec = spec_for(checkpoint("sd1"), "sd1", lora=list(loras))
        return spec.fingerprint, Generator(spec).generate(spec, planned(spec)).pixels.astype(int)

    (plain_print, plain), (full_print, full) = images(), images({"path": str(tmp_path), "scale": 1})
    _, none = images({"path": str(tmp_path), "scale": 0})
    assert (plain != full).any() and plain_print != full_print
    assert np.abs(plain - none).max() <= 1


def test_the_safety_checker_flags_and_can_be_left_out(tmp_path):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    tower = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "projection_dim": 32,
    }
    config = CLIPConfig(
        text_config=tower, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=32
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(-10)  # every image looks like every concept
    pipeline = tiny_models.sd1()
    pipeline.register_modules(
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )
    pipeline.save_pretrained(tmp_path)
    with_checker, without = spec_for(tmp_path, "sd1"), spec_for(tmp_path, "sd1", safety_checker=False)
    assert with_checker.family.has_safety_checker
    assert Generator(with_checker).generate(with_checker, planned(with_checker)).flags == ["unsafe"] * 3
    assert Generator(without).generate(without, planned(without)).flags == [""] * 3
