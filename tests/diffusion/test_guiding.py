"""The guider and what it may guide away from, with stand-ins for a denoiser and with tiny random checkpoints."""

import json
import shutil

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_of, spec_of
from safetensors.torch import save_file

from raysd.diffusion.guiding.condition_noise import ConditionNoise
from raysd.diffusion.guiding.guider import SCHEDULES, Guider
from raysd.diffusion.guiding.image_numbers import derived_seed, image_guidance_scale
from raysd.diffusion.guiding.weaker import num_blocks, transformer_blocks, without_blocks
from raysd.errors import UserError
from raysd.generation.cost import UNGUIDED_SHARE, guided_steps
from raysd.generation.pipeline import Generator

ONE_CALL = ["sd1", "sdxl", "sd3", "pixart", "sana"]
STEPS = 3
KINDS = {
    "scale of its own": {"guidance_range": (1, 9)},
    "schedule": {"guidance_schedule": "falling_cosine"},
    "noise": {"cads": {"scale": 1}},
    "noise and interval": {"cads": {"tau1": 0.2}, "guidance_interval": (0.3, 0.6), "guidance_range": (2, 9)},
    "weak model": {"weak_model": "weak"},
    "skipped blocks": {"skip_blocks": [0]},
}
SEEDS = st.integers(0, 2**63 - 1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Tiny checkpoints of two blocks at least, and others of the same shape to be the weaker ones."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def save(name, folder, seed):
        torch.manual_seed(seed)
        pipeline = getattr(tiny_models, name)()
        if name in ("sd3", "sana"):
            kind, config = type(pipeline.transformer), dict(pipeline.transformer.config)
            pipeline.transformer = kind.from_config({**config, "num_layers": 2})
        pipeline.save_pretrained(folder, safe_serialization=True)
        return folder

    def get(name, weak=False):
        if (name, weak) not in made:
            made[name, weak] = save(name, root / name / ("weak" if weak else "model"), int(weak))
        return made[name, weak]

    return get


def spec_for(checkpoint, name, **changes):
    if changes.get("weak_model") == "weak":
        changes["weak_model"] = str(checkpoint(name, weak=True))
    options = {"dtype": "float32", "num_inference_steps": STEPS, "guidance_scale": 5}
    return spec_of(model=str(checkpoint(name)), **{**options, **changes})


def planned(spec, count=3):
    plan = plan_of(4, 8, spec)
    return [plan.image(position) for position in range(count)]


def pixels_of(spec, images=None, generator=None):
    return (generator or Generator(spec)).generate(spec, images or planned(spec)).pixels.astype(int)


# --- the guider, without a model


def denoised(sample, encoder_hidden_states):
    """A denoiser that does the same to each row."""
    return (torch.tanh(sample * encoder_hidden_states.mean(dim=(1, 2), keepdim=False)[:, None]),)


def weaker(sample, encoder_hidden_states):
    return (denoised(sample, encoder_hidden_states)[0] * 0.5,)


def guided(seeds, num_calls=4, guides=True, **options):
    """What a guider makes of a batch in each call, [calls, images, values]; images have the numbers of their seeds."""
    rows = [np.random.default_rng(seed).standard_normal((12, 3)) for seed in seeds]
    numbers = torch.tensor(np.stack(rows), dtype=torch.float32)
    sample, positive, negative = numbers[:, :4].flatten(1), numbers[:, 4:8], numbers[:, 8:]
    scales = options.pop("scales", None)
    noise = options.pop("cads", None)
    guider = Guider(
        denoised,
        len(seeds),
        lambda: num_calls,
        ("generation.cads", None),
        weights=None if scales is None else [image_guidance_scale(scales, seed) - 1 for seed in seeds],
        noise=None if noise is None else ConditionNoise(seeds, **noise),
        **options,
    )
    both, texts = torch.cat([sample, sample]), torch.cat([negative, positive])
    outputs = [guider(both, encoder_hidden_states=texts)[0].chunk(2) for _ in range(num_calls)]
    return torch.stack([u + 7.5 * (c - u) for u, c in outputs])  # as a pipeline mixes


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "interval": st.sampled_from([(0.0, 1.0), (0.25, 0.75), (0.5, 1.0)]),
        "scales": st.tuples(st.floats(1, 3), st.floats(3, 20)),
        "schedule": st.sampled_from(sorted(SCHEDULES)),
        "weaker": st.sampled_from([None, weaker]),
        "cads": st.fixed_dictionaries(
            {
                "scale": st.floats(0.01, 2),
                "tau1": st.floats(0, 0.5),
                "tau2": st.floats(0.5, 1),
                "mixing": st.floats(0, 1),
            }
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SEEDS, min_size=2, max_size=5, unique=True), OPTIONS, st.randoms())
def test_no_image_depends_on_its_neighbors_their_number_or_the_order(seeds, options, random):
    together = guided(seeds, **options)
    order = random.sample(range(len(seeds)), random.randint(1, len(seeds)))
    assert torch.equal(guided([seeds[place] for place in order], **options), together[:, order])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.floats(1, 20), st.floats(0, 10), st.sampled_from(sorted(SCHEDULES)), st.booleans())
def test_the_pipeline_gets_c_plus_w_times_c_minus_v(seed, low, width, schedule, is_weak):
    scales, options = (low, low + width), {"weaker": weaker} if is_weak else {}
    found = guided([seed], scales=scales, schedule=schedule, **options)
    conditional, plain = guided([seed], interval=(2.0, 3.0)), guided([seed])
    unconditional = conditional - (plain - conditional) / 6.5  # the pipeline's w is 7.5 - 1
    other = conditional * 0.5 if is_weak else unconditional
    for call, made in enumerate(found):
        weight = (image_guidance_scale(scales, seed) - 1) * SCHEDULES[schedule]((call + 0.5) / 4)
        wanted = conditional[call] + weight * (conditional[call] - other[call])
        assert torch.allclose(made, wanted, atol=2e-4, rtol=1e-4)


@given(st.integers(1, 50))
def test_each_schedule_has_the_mean_one(num_calls):
    for schedule in SCHEDULES.values():
        factors = [schedule((call + 0.5) / num_calls) for call in range(num_calls)]
        assert np.mean(factors) == pytest.approx(1) and min(factors) >= 0


def test_schedules_rise_and_fall_as_they_are_called():
    for name, schedule in SCHEDULES.items():
        early, late = schedule(0.25), schedule(0.75)
        assert (early < late) == name.startswith("rising") and (early > late) == name.startswith("falling")


@settings(max_examples=40, deadline=None)
@given(st.lists(SEEDS, min_size=1, max_size=4, unique=True), st.floats(1, 20))
def test_neutral_values_are_plain_guidance(seeds, scale):
    plain, conditional = guided(seeds), guided(seeds, interval=(2.0, 3.0))
    assert torch.equal(guided(seeds, cads={"scale": 1.0, "tau1": 1.0, "tau2": 1.0, "mixing": 0.5}), plain)
    assert torch.equal(guided(seeds, scales=(1.0, 1.0)), conditional), "a scale of 1 does not guide"
    assert torch.equal(guided(seeds, scales=(scale, scale), weaker=denoised), conditional), "nor does the model itself"
    assert torch.allclose(guided(seeds, scales=(7.5, 7.5)), plain, atol=1e-5)
    nearly = guided(seeds, cads={"scale": 1e-7, "tau1": 0.0, "tau2": 1.0, "mixing": 1.0})
    assert torch.allclose(nearly[1:], plain[1:], atol=1e-3), "without noise, an embedding comes back as it was"


def test_half_precision_rounds_once():
    guider = Guider(
        lambda sample: (sample.half(),),
        1,
        lambda: 1,
        ("", None),
        weights=[99.0],
        weaker=lambda sample: (sample * 0.999,),
    )
    first, second = guider(torch.tensor([[0.0], [3.0]]))[0]
    assert first == second and first == torch.tensor([3 + 99 * (3 - torch.tensor(3.0) * 0.999)]).half()


def test_outside_the_interval_the_unconditional_half_equals_the_conditional_one():
    rows = torch.arange(6)
    guider = Guider(lambda sample: (sample,), 3, lambda: 2, ("generation.guidance_interval", None), interval=(0.5, 1.0))
    assert guider(rows)[0].tolist() == [3, 4, 5, 3, 4, 5]
    assert guider(rows)[0].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("num_rows", [3, 9])
def test_a_call_without_conditional_and_unconditional_halves_is_refused(num_rows):
    guider = Guider(lambda sample: (sample,), 3, lambda: 2, ("generation.guidance_interval", [0.5, 1.0]))
    with pytest.raises(UserError, match=r"guidance_interval = \[0.5, 1.0\]: this version of diffusers"):
        guider(torch.zeros(num_rows))


def test_more_calls_than_steps_and_embeddings_without_a_name_are_refused():
    guider = Guider(lambda sample: (sample,), 3, lambda: 1, ("generation.guidance_range", [1, 2]))
    guider(torch.zeros(6))
    with pytest.raises(UserError, match=r"guidance_range = \[1, 2\]: .* once a step"):
        guider(torch.zeros(6))
    noise = ConditionNoise([1], 1.0, 0.5, 0.9, 1.0)
    guider = Guider(lambda sample: (sample,), 1, lambda: 1, ("generation.cads", {}), noise=noise)
    with pytest.raises(UserError, match=r"generation.cads .* embeddings"):
        guider(torch.zeros(2))


# --- noise on embeddings


def test_noise_is_on_the_conditional_rows_and_keeps_their_mean_and_deviation():
    texts, pooled = torch.randn(4, 7, 8) * 3 + 1, torch.randn(4, 8)
    noise = ConditionNoise([5, 6], scale=0.5, tau1=0.2, tau2=0.8, mixing=1.0)
    given_ = {"encoder_hidden_states": texts, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": pooled}}
    found = noise.add(given_, 4, time=0.5)
    inner = found["added_cond_kwargs"]
    for was, made in ((texts, found["encoder_hidden_states"]), (pooled, inner["text_embeds"])):
        assert torch.equal(made[:2], was[:2]) and all((made[row] != was[row]).any() for row in (2, 3))
        for row in (2, 3):
            assert made[row].mean() == pytest.approx(was[row].mean().item(), abs=1e-5)
            assert made[row].std() == pytest.approx(was[row].std().item(), rel=1e-5)
    assert inner["time_ids"] is pooled and noise.add(given_, 4, time=0.2)["encoder_hidden_states"] is texts


def test_at_the_beginning_noise_takes_the_place_of_the_embedding():
    texts = torch.randn(2, 50, 64)
    noise = [ConditionNoise([5, 6], 0.5, 0.2, 0.8, mixing=0.0).add({"pooled_projections": each}, 2, time=1.0)
             for each in (texts, -texts)]  # fmt: skip
    rows = noise[0]["pooled_projections"]
    assert torch.equal(rows, noise[1]["pooled_projections"]) and rows.std() == pytest.approx(0.5, rel=0.05)
    assert not torch.equal(rows[0], rows[1])


@given(SEEDS)
def test_the_numbers_of_an_image_follow_from_its_seed_each_by_itself(seed):
    assert 1 <= image_guidance_scale((1, 4), seed) <= 4
    assert len({seed, derived_seed(seed, "cads"), derived_seed(seed, "guidance_range")}) == 3


def test_scales_are_uniform_between_the_ends():
    scales = [image_guidance_scale((1, 4), seed) for seed in range(2000)]
    assert np.quantile(scales, [0.1, 0.5, 0.9]) == pytest.approx([1.3, 2.5, 3.7], abs=0.15)


# --- with models


@pytest.mark.parametrize("name", ONE_CALL)
def test_each_kind_changes_the_images_and_none_depends_on_its_neighbors(checkpoint, name):
    torch.set_num_threads(1)
    plain = spec_for(checkpoint, name)
    generator = Generator(plain)
    before = pixels_of(plain, generator=generator)
    for kind, changes in KINDS.items():
        spec = spec_for(checkpoint, name, **changes)
        assert spec.fingerprint != plain.fingerprint
        own = Generator(spec) if spec.pipeline_key != plain.pipeline_key else generator
        assert (own is generator) == (kind != "weak model")
        first, second, third, other = planned(spec, 4)
        together = pixels_of(spec, [first, second, third], own)
        again = pixels_of(spec, [third, other, first], own)
        assert np.array_equal(again[[2, 0]], together[[0, 2]]), kind
        assert (together != before).any(), kind
    assert np.array_equal(pixels_of(plain, generator=generator), before), "something was left behind"


@pytest.mark.parametrize("name", ONE_CALL)
def test_a_model_that_guides_itself_gives_the_images_of_guidance_one(checkpoint, name):
    itself = spec_for(checkpoint, name, weak_model=str(checkpoint(name)))
    assert np.abs(pixels_of(itself) - pixels_of(spec_for(checkpoint, name, guidance_scale=1))).max() <= 1


def test_neutral_settings_are_the_plain_clone(checkpoint):
    plain = spec_of(guidance_scale=3)
    for neutral in ({"guidance_range": (3, 3)}, {"guidance_schedule": "constant"}, {"skip_blocks": []}):
        assert spec_of(**{"guidance_scale": 3, **neutral}).fingerprint == plain.fingerprint
    at_one = [spec_of(guidance_scale=1, **each) for each in ({}, {"guidance_schedule": "rising"}, {"skip_blocks": [1]})]
    at_one.append(spec_of(guidance_range=(1, 1), weak_model="embedded"))
    assert len({spec.fingerprint for spec in at_one}) == 1
    spec = spec_for(checkpoint, "sd1", cads={"tau1": 1, "tau2": 1})
    assert np.array_equal(pixels_of(spec), pixels_of(spec_for(checkpoint, "sd1")))


def test_noise_works_without_guidance_too(checkpoint):
    plain, noised = (spec_for(checkpoint, "sd1", guidance_scale=1, **each) for each in ({}, {"cads": {"scale": 1}}))
    generator = Generator(plain)
    assert (pixels_of(plain, generator=generator) != pixels_of(noised, generator=generator)).any()


@pytest.mark.parametrize("changes", [{"weak_model": "weak"}, {"guidance_range": (1, 9)}, {"cads": {}}])
def test_cached_steps_go_together_with_it(checkpoint, changes):
    torch.set_num_threads(1)
    whole = spec_for(checkpoint, "sd1", num_inference_steps=4, **changes)
    cached = spec_for(checkpoint, "sd1", num_inference_steps=4, step_cache={"interval": 2}, **changes)
    generator = Generator(whole)
    first, second, third, other = planned(cached, 4)
    together = pixels_of(cached, [first, second, third], generator)
    assert (together != pixels_of(whole, generator=generator)).any()
    assert np.array_equal(pixels_of(cached, [first, other, third], generator)[[0, 2]], together[[0, 2]])


@pytest.mark.parametrize("name", ONE_CALL)
def test_the_blocks_of_a_model_are_known_before_it_is_loaded(checkpoint, name):
    part = "unet" if name.startswith("sd1") or name == "sdxl" else "transformer"
    config = json.loads((checkpoint(name) / part / "config.json").read_text())
    denoiser = getattr(getattr(tiny_models, name)(), part)
    assert len(transformer_blocks(type(denoiser).from_config(config))) == num_blocks(config) >= 2


def test_blocks_are_numbered_as_they_run():
    unet = tiny_models.unet()
    order = []
    for number, block in enumerate(transformer_blocks(unet)):
        block.register_forward_hook(lambda *_, number=number: order.append(number))
    with torch.inference_mode():
        unet(torch.randn(1, 4, 16, 16), torch.tensor(1), torch.randn(1, 5, tiny_models.WIDTH))
    assert order == [0, 1, 2, 3]


def test_skipped_blocks_change_the_prediction_and_come_back():
    unet, given_ = tiny_models.unet().eval(), (torch.randn(1, 4, 16, 16), torch.tensor(1))
    tokens, block = torch.randn(1, 5, tiny_models.WIDTH), transformer_blocks(unet)[1]
    with torch.inference_mode():
        plain, skipped, again = (
            forward(*given_, tokens).sample for forward in (unet, without_blocks(unet.forward, [block]), unet)
        )
    assert torch.equal(plain, again) and not torch.equal(plain, skipped)


# --- costs


def test_passes_that_are_made_and_spared_are_counted(checkpoint):
    plain = guided_steps(spec_for(checkpoint, "sd1", num_inference_steps=10))
    cost = {
        kind: guided_steps(spec_for(checkpoint, "sd1", num_inference_steps=10, **changes)) / plain
        for kind, changes in KINDS.items()
    }
    assert cost["scale of its own"] == cost["schedule"] == cost["noise"] == 1
    assert cost["noise and interval"] == pytest.approx(0.3 + 0.7 * UNGUIDED_SHARE)
    assert cost["weak model"] == cost["skipped blocks"] == pytest.approx(2 * UNGUIDED_SHARE), "of the same size"
    half = spec_for(checkpoint, "sd1", num_inference_steps=10, weak_model="weak", guidance_interval=(0.0, 0.5))
    assert guided_steps(half) / plain == pytest.approx(1.5 * UNGUIDED_SHARE)


def test_a_smaller_weak_model_costs_less(checkpoint, tmp_path):
    torch.manual_seed(2)
    tiny_models.sd1(block_out_channels=(8, 16)).save_pretrained(tmp_path)
    small = spec_for(checkpoint, "sd1", weak_model=str(tmp_path))
    assert UNGUIDED_SHARE * 1.05 < guided_steps(small) / STEPS < UNGUIDED_SHARE * 1.6


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skip_blocks": [4]}, r"skip_blocks = \[4\]: .* has 4 transformer blocks; use numbers from 0 to 3"),
        ({"skip_blocks": [0, 1, 2, 3]}, r"skip_blocks .* leaves no block"),
        ({"skip_blocks": [1], "compile": True}, r"skip_blocks .* compiled code runs all blocks"),
        ({"skip_blocks": [1], "step_cache": {}}, r"skip_blocks .* leave one of them out"),
        ({"skip_blocks": [1], "negative_prompt": "dark"}, r"negative_prompt = 'dark': with skip_blocks there is no"),
        ({"weak_model": "embedded", "negative_prompt": "dark"}, r"negative_prompt .* with weak_model there is no"),
        ({"weak_model": "/nowhere"}, r"generation.weak_model = '/nowhere': no such folder"),
        ({"weak_model": "dummy"}, r"weak_model = 'dummy': is a model for Dummy, and embedded is for StableDiffusion"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as refused:
        spec_of(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"in_channels": 8}, "latent channels 8, and not 4"),
        ("unet", {"cross_attention_dim": 64}, "width of the text embeddings 64, and not 32"),
        (
            "unet",
            {"_class_name": "UNet3DConditionModel"},
            "denoiser UNet3DConditionModel, and not UNet2DConditionModel",
        ),
        ("scheduler", {"prediction_type": "v_prediction"}, "prediction v_prediction, and not epsilon"),
        ("scheduler", {"beta_end": 0.5}, "noise schedule 0.5, and not 0.02"),
    ],
)
def test_a_weak_model_of_another_space_is_refused(checkpoint, tmp_path, part, changes, message):
    folder = shutil.copytree(checkpoint("sd1", weak=True), tmp_path / "weak")
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=rf"generation.weak_model = .*: does not fit .*{message}; name a weaker"):
        spec_for(checkpoint, "sd1", weak_model=str(folder))


def test_a_torn_weak_model_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("sd1", weak=True), tmp_path / "weak")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"generation.weak_model = .*: cannot be read .* is cut off"):
        spec_for(checkpoint, "sd1", weak_model=str(folder))


@pytest.mark.parametrize("pipeline", ["ChromaPipeline", "QwenImagePipeline", "Flux2Pipeline"])
@pytest.mark.parametrize("changes", [each for kind, each in KINDS.items() if "and" not in kind], ids=str)
def test_a_family_without_the_hook_is_refused_by_name(tmp_path, pipeline, changes):
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": pipeline, "transformer": ["diffusers", "Some"]})
    )
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(1)}, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    why = "makes no unconditional pass" if pipeline == "Flux2Pipeline" else f"{pipeline} is not known to make both"
    with pytest.raises(UserError, match=rf"generation.{next(iter(changes))} = .*: .*{why}.*; leave it out$"):
        spec_of(model=str(tmp_path), image_size=64, **changes)


def test_the_stand_in_takes_each_kind():
    for changes in ({"guidance_range": (1, 4)}, {"skip_blocks": [7]}, {"cads": {}}, {"weak_model": "embedded"}):
        assert guided_steps(spec_of(model="dummy", **changes)) > 0
