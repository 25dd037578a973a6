"""What a guidance scale means to each pipeline: the table, what is refused, and images of tiny pipelines."""

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from plans import plan_of, spec_of
from safetensors.torch import save_file

from raysd.diffusion.conventions import CONVENTIONS, REFUSED, REFUSED_KINDS, find_convention
from raysd.errors import UserError
from raysd.generation.cost import UNGUIDED_SHARE, guided_steps
from raysd.generation.pipeline import Generator

IN_TABLE = sorted(CONVENTIONS.keys() - {"Dummy"})
QUICK = ("sd1", "flux", "sana_sprint", "qwenimage", "qwenimage21", "z_image", "krea2", "cogview4", "lumina")
REFUSED_TINY = {name for name in tiny_pipelines.FAMILIES if name.endswith("_pag")} | {
    "kandinsky",
    "kandinsky22",
}
TRIED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.soak)
    for name in tiny_pipelines.FAMILIES
    if name not in REFUSED_TINY
]
NEGATIVE = {"lumina": "light"}  # the tiny tokenizer gives no token for an empty text, and Lumina no number for none
# Those whose mix gets the length of the conditional prediction.
RESCALED = ("qwenimage", "lumina2", "nucleusmoe_image", "longcat_image")
STEPS = 2
LONG = "a photograph of a very long woolen winter coat, and a striped silk scarf on a wooden table"


def named(folder, pipeline, **config):
    """A checkpoint's JSON files; returns the settings that name it."""
    folder.mkdir(exist_ok=True)
    index = {key: value for key, value in config.items() if key == "is_distilled"}
    index |= {"transformer": ["diffusers", "SomeTransformer"]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **index}))
    (folder / "transformer").mkdir(exist_ok=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(1)}, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    only = CONVENTIONS[pipeline].only_size if pipeline in CONVENTIONS else None
    return {"model": str(folder), "image_size": only or 64}


def test_every_text_to_image_pipeline_of_diffusers_is_in_the_table_or_refused_on_purpose():
    for kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values():
        name = kind.__name__
        is_refused = name in REFUSED or any(word in name for word in REFUSED_KINDS)
        assert (name in CONVENTIONS) != is_refused, (
            f"{name} of this diffusers is new: read its __call__, and add it to raysd/diffusion/conventions.py"
        )


def rows_of_the_docs():
    """By pipeline: guidance, negative prompt, interval and tried, as the docs say."""
    lines = (Path(__file__).parents[2] / "docs" / "clones.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "Pipeline` |" in line]
    return {pipeline.strip("`"): rest for _, pipeline, *rest in cells}


def test_the_docs_list_each_generator_as_it_is():
    rows = rows_of_the_docs()
    assert sorted(rows) == IN_TABLE
    words = {"classifier_free": "two passes", "embedded": "input of the model", "none": "1 only"}
    for pipeline, (guidance, negative_prompt, interval, _) in rows.items():
        convention = CONVENTIONS[pipeline]
        assert guidance.startswith(words[convention.guidance]), pipeline
        assert ("¹" in guidance) == convention.one_by_one, pipeline
        assert ("at 1 too" in guidance) == convention.always_two_passes, pipeline
        assert (negative_prompt == "yes") == convention.takes_negative_prompt, pipeline
        assert (interval == "yes") == convention.one_call, pipeline


@pytest.mark.soak
def test_the_docs_say_which_generators_are_tried():
    made = {type(make()).__name__ for name, make in tiny_pipelines.FAMILIES.items() if name not in REFUSED_TINY}
    assert {pipeline for pipeline, (*_, is_tried) in rows_of_the_docs().items() if is_tried == "yes"} == made


@pytest.mark.parametrize("pipeline", IN_TABLE)
def test_each_call_takes_what_a_clone_asks_for(pipeline):
    parameters = signature(getattr(diffusers, pipeline).__call__).parameters
    configs = [{}, {"guidance_embeds": True}]
    conventions = [find_convention(pipeline, {"is_distilled": is_on}, config) for config in configs for is_on in (0, 1)]
    asked = {"prompt", "num_inference_steps", "height", "width", "generator", "output_type"}
    for convention in conventions:
        asked |= {convention.argument} - {None}
        asked |= {"negative_prompt"} if convention.takes_negative_prompt else set()
        assert convention.argument is not None or convention.guidance == "none" or convention.replaces_guider
    assert asked <= parameters.keys()
    required = {name for name, each in parameters.items() if each.default is each.empty and each.kind.name[:3] != "VAR"}
    assert required <= {"self", "prompt"}, "it needs more than a prompt"


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [
        ("StableDiffusionControlNetPipeline", "needs an image beside the prompt"),
        ("FluxControlPipeline", "needs an image beside the prompt"),
        ("StableDiffusionPAGPipeline", "adds perturbed-attention guidance, .*"),
        ("StableCascadeCombinedPipeline", "guides two models, .*"),
        ("HeliosPipeline", "generates videos"),
    ],
)
@pytest.mark.parametrize("guidance_scale", [1, 7.5])
def test_a_pipeline_that_no_guidance_scale_fits_is_refused_in_one_line(tmp_path, pipeline, why, guidance_scale):
    message = rf"^generation.model = '{tmp_path}': {pipeline} {why}; use a generator that docs/clones.md lists$"
    with pytest.raises(UserError, match=message):
        spec_of(**named(tmp_path, pipeline), guidance_scale=guidance_scale)


@pytest.mark.parametrize(("pipeline", "named_as"), [("SomeNewPipeline", "SomeNewPipeline"), ("", "its pipeline, .*")])
def test_an_unknown_pipeline_is_refused_since_nobody_knows_what_a_scale_means_there(tmp_path, pipeline, named_as):
    message = (
        rf"raysd does not know what a guidance scale means to {named_as}; use a generator that docs/clones.md lists$"
    )
    with pytest.raises(UserError, match=message):
        spec_of(**named(tmp_path, pipeline))


def test_a_missing_package_is_said_before_anything_is_generated(tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.clone.spec.find_spec", lambda name: None)
    message = r"PRXPipeline needs the package ftfy; pip install ftfy$"
    with pytest.raises(UserError, match=message):
        spec_of(**named(tmp_path, "PRXPipeline"))


@pytest.mark.parametrize(
    ("pipeline", "config", "settings", "message"),
    [
        (
            "Kandinsky3Pipeline",
            {},
            {"guidance_scale": 2},
            r"2.0: .* not guide up to 2; set it to 1, or above 2$",
        ),
        (
            "Flux2KleinPipeline",
            {"is_distilled": True},
            {"guidance_scale": 4},
            r"was distilled without guidance",
        ),
        (
            "Flux2KleinPipeline",
            {},
            {"negative_prompt": "dark"},
            r"Flux2KleinPipeline takes no negative prompt; leave it",
        ),
        ("Ideogram4Pipeline", {}, {"negative_prompt": "dark"}, r"Ideogram4Pipeline takes no negative prompt; leave it"),
        ("FluxKontextPipeline", {"guidance_embeds": True}, {"negative_prompt": "dark"}, r"no unconditional pass"),
        ("QwenImagePipeline", {"guidance_embeds": True}, {"negative_prompt": "dark"}, r"no unconditional pass"),
        (
            "HiDreamImagePipeline",
            {},
            {"image_size": 512},
            r"size = 512: .* 1024 px alone; set it to 1024$",
        ),
        ("QwenImagePipeline", {}, {"guidance_interval": (0.2, 0.8)}, r"is not known to make both passes in one call"),
    ],
)
def test_what_a_pipeline_would_ignore_is_refused(tmp_path, pipeline, config, settings, message):
    common = named(tmp_path, pipeline, **config)
    with pytest.raises(UserError, match=message):
        spec_of(**common | settings)


@pytest.mark.parametrize(
    ("pipeline", "asked"),
    [
        ("StableDiffusionPipeline", {1: 1, 4: 4}),
        ("ZImagePipeline", {1: 0, 4: 3}),
        ("Krea2Pipeline", {1: 0, 4: 3}),
        ("Kandinsky3Pipeline", {1: 0, 4: 3}),
        ("QwenImagePipeline", {1: 1, 4: 4}),
    ],
)
def test_the_scale_of_a_call_counts_from_the_zero_of_its_pipeline(pipeline, asked):
    assert {scale: CONVENTIONS[pipeline].scale(scale) for scale in asked} == asked


def test_only_families_whose_images_have_changed_have_a_version_in_their_fingerprint(tmp_path):
    old, new = (spec_of(**named(tmp_path / name, name)) for name in ("ChromaPipeline", "ZImagePipeline"))
    assert "guidance_version" not in old.identity() and new.identity()["guidance_version"] == 2
    assert replace(new, guidance_version=1).fingerprint != new.fingerprint


def test_the_size_of_a_pipeline_without_latents_is_that_of_its_denoiser(tmp_path):
    settings = named(tmp_path, "IFPipeline", sample_size=64)
    assert spec_of(model=settings["model"]).image_size == 64


def test_the_cost_counts_the_passes_that_a_pipeline_makes(tmp_path):
    def steps(pipeline, scale, **config):
        settings = named(tmp_path / f"{pipeline}{config}", pipeline, **config)
        return guided_steps(spec_of(**settings, guidance_scale=scale, num_inference_steps=10))

    assert steps("ZImagePipeline", 1) == pytest.approx(10 * UNGUIDED_SHARE) and steps("ZImagePipeline", 3) == 10
    assert steps("Ideogram4Pipeline", 1) == steps("OmniGenPipeline", 1) == 10, "both passes are made anyway"
    assert steps("Flux2KleinPipeline", 4) == 10
    assert steps("QwenImagePipeline", 4, guidance_embeds=True) == pytest.approx(10 * UNGUIDED_SHARE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Returns a function: a family's generator, and a function that makes its specs."""
    kept = {}

    def get(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp(name)
            pipeline = tiny_pipelines.FAMILIES[name]()
            pipeline.save_pretrained(folder, safe_serialization=True)
            if package := CONVENTIONS[type(pipeline).__name__].package:
                pytest.importorskip(package)

            def spec(guidance_scale, negative_prompt=None):
                return spec_of(
                    model=str(folder),
                    dtype="float32",
                    num_inference_steps=STEPS,
                    guidance_scale=guidance_scale,
                    image_size=tiny_pipelines.SIZES.get(name, 32),
                    negative_prompt=negative_prompt or NEGATIVE.get(name),
                )

            kept[name] = Generator(spec(1)), spec
            if length := tiny_pipelines.OPTIONS.get(name, {}).get("max_sequence_length"):
                shorten(kept[name][0].pipeline, max(length, 256))
        return kept[name]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield get
    torch.set_num_threads(threads)


@pytest.mark.soak
def test_the_tiny_pipelines_that_are_not_tried_are_refused():
    kinds = {type(tiny_pipelines.FAMILIES[name]()).__name__ for name in REFUSED_TINY}
    assert len(kinds) == len(REFUSED_TINY)
    assert all(kind in REFUSED or any(word in kind for word in REFUSED_KINDS) for kind in kinds)


def shorten(pipeline, length):
    """Make a pipeline that pads its prompts to thousands of tokens pad them to less."""
    kind = type(pipeline)
    call = {"__call__": lambda self, **arguments: kind.__call__(self, max_sequence_length=length, **arguments)}
    pipeline.__class__ = type(kind.__name__, (kind,), call)


def planned(spec):
    plan = plan_of(4, 8, spec)
    return [plan.image(position) for position in (0, 5, 11)]


def generated(generator, spec, images=None):
    batch = generator.generate(spec, images or planned(spec))
    assert set(batch.flags) == {""}
    return batch.pixels


def counted_rows(generator, spec):
    """The images, and the rows that the denoiser worked on, of all its calls together."""
    rows, forward = [], generator.denoiser.forward
    generator.denoiser.forward = lambda *args, **kwargs: (
        rows.append(len((*args, *kwargs.values())[0])) or forward(*args, **kwargs)
    )
    try:
        return generated(generator, spec), sum(rows)
    finally:
        generator.denoiser.forward = forward


@pytest.mark.parametrize("name", TRIED)
def test_guidance_and_a_negative_prompt_change_the_images_and_an_unguided_step_is_one_pass(tiny, name):
    generator, spec = tiny(name)
    convention = spec(1).family.known
    unguided, once = counted_rows(generator, spec(1))
    assert convention.always_two_passes or once <= len(unguided) * len(generator.pipeline.scheduler.timesteps)
    if convention.guidance == "none":
        return
    guided, rows = counted_rows(generator, spec(4))
    assert (guided != unguided).any()
    assert convention.always_two_passes or rows == once * (2 if convention.makes_two_passes(4) else 1)
    if convention.takes_negative_prompt:
        assert (generated(generator, spec(4, "dark, and blurry")) != guided).any()


@pytest.mark.parametrize("name", TRIED)
def test_no_image_depends_on_its_neighbors(tiny, name):
    generator, spec = tiny(name)
    scales = (1,) if spec(1).family.guidance == "none" else (1, 4)
    for each in map(spec, scales):
        first, second, third = planned(each)
        together = generated(generator, each)
        others = generated(generator, each, [first, replace(second, prompt=LONG, seed=7), third])
        assert np.array_equal(others[[0, 2]], together[[0, 2]])
        assert np.array_equal(generated(generator, each, [first] * 3)[0], together[0])


def first_prediction(generator, spec):
    """The first prediction that the scheduler gets: both passes, mixed."""
    seen, set_scheduler = [], generator._set_scheduler

    def set_and_watch(spec):
        set_scheduler(spec)
        scheduler, step = generator.pipeline.scheduler, generator.pipeline.scheduler.step
        scheduler.step = lambda *args, **kwargs: (
            seen.append((*args, *kwargs.values())[0].double()) or step(*args, **kwargs)
        )

    generator._set_scheduler = set_and_watch
    try:
        generated(generator, spec)
    finally:
        del generator._set_scheduler
    return seen[0]


@pytest.mark.parametrize("name", TRIED)
def test_a_guidance_scale_has_one_meaning(tiny, name):
    generator, spec = tiny(name)
    if spec(1).family.guidance != "classifier_free" or name in RESCALED:
        return
    one, three, five = (first_prediction(generator, spec(scale)) for scale in (1, 3, 5))
    assert (three != one).any()
    assert torch.allclose(five - one, 2 * (three - one), rtol=1e-3, atol=1e-3 * float((three - one).abs().max()))


def test_what_a_call_does_not_take_is_an_error_and_is_not_left_out(tiny):
    generator, spec = tiny("qwenimage")
    known = generator.arguments
    for name in ("true_cfg_scale", "negative_prompt", "height"):
        generator.arguments = known - {name}
        message = rf"^generation.model = .*: QwenImagePipeline of this version of diffusers takes no {name}; use"
        with pytest.raises(UserError, match=message):
            generator.generate(spec(4), planned(spec(4)))
    generator.arguments = known


def test_images_of_another_size_than_asked_for_are_an_error(tiny):
    generator, spec = tiny("qwenimage")
    rounded = replace(spec(1), image_size=34)
    with pytest.raises(UserError, match=r"image_size = 34: QwenImagePipeline generates 32 x 32 px instead; set it to"):
        generator.generate(rounded, planned(rounded))
