"""Checkpoints that were distilled to few steps, by the files and names that they have on the hub."""

import json
from pathlib import Path

import pytest
import torch
from lora_files import write_lora
from plans import spec_of
from safetensors.torch import save_file

from raysd.commands.checks import check_prompts
from raysd.config import Experiment
from raysd.diffusion.family import few_step_word
from raysd.generation.few_steps import few_step_findings
from raysd.progress import shown_lines

EULER = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon", "timestep_spacing": "leading"}
SD_TURBO = EULER | {"timestep_spacing": "trailing"}
SDXL_TURBO = SD_TURBO | {"_class_name": "EulerAncestralDiscreteScheduler"}
ZERO_SNR = SD_TURBO | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def checkpoint(folder, scheduler, pipeline="StableDiffusionPipeline", **index):
    """A checkpoint's JSON files, beside weights of one number; returns its path."""
    denoiser = "transformer" if pipeline == "StableDiffusion3Pipeline" else "unet"
    parts = {name: ["diffusers", "Model"] for name in (denoiser, "vae", "text_encoder")}
    parts |= {"scheduler": ["diffusers", scheduler["_class_name"]], "tokenizer": ["transformers", "CLIPTokenizer"]}
    for name in parts:
        (folder / name).mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **parts, **index}))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    for name in (denoiser, "vae", "text_encoder"):
        (folder / name / "config.json").write_text(json.dumps({"sample_size": 64}))
        save_file({"weight": torch.zeros(1)}, folder / name / "diffusion_pytorch_model.safetensors")
    return str(folder)


def said(*changes, **common):
    return [str(finding) for finding in few_step_findings([spec_of(**common, **each) for each in changes or ({},)])]


@pytest.mark.parametrize("scheduler", [SD_TURBO, SDXL_TURBO])
def test_the_schedulers_of_sd_turbo_and_sdxl_turbo_are_known_under_any_name(tmp_path, scheduler):
    (line,) = said(model=checkpoint(tmp_path / "mine", scheduler))
    assert line.startswith(
        f"few-steps: its scheduler is {scheduler['_class_name']} with trailing timesteps, and such models are "
        "made for 1 to 8 steps"
    )
    assert (
        ": 20 steps, guidance scale 2, " in line
        and "Fix: generation.num_inference_steps=4 generation.guidance_scale=1" in line
    )


@pytest.mark.parametrize(
    "scheduler", [EULER, ZERO_SNR, FLOW, {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}]
)
def test_models_that_take_many_steps_are_not_warned_of(tmp_path, scheduler):
    assert said(model=checkpoint(tmp_path / "stable-diffusion-3.5-medium", scheduler)) == []
    assert said({"model": "embedded"}, {"model": "dummy"}, {"num_inference_steps": 100}) == []


def test_a_name_tells_where_the_files_do_not(tmp_path):
    (line,) = said(model=checkpoint(tmp_path / "stable-diffusion-3.5-medium-turbo", FLOW, "StableDiffusion3Pipeline"))
    assert "few-steps: its name says 'turbo'" in line
    (line,) = said(model=checkpoint(tmp_path / "mine", EULER, _name_or_path="Lykon/dreamshaper-xl-v2-turbo"))
    assert "few-steps: it was saved from 'Lykon/dreamshaper-xl-v2-turbo'" in line


@pytest.mark.parametrize("scheduler", ["LCMScheduler", "TCDScheduler", "SCMScheduler"])
def test_models_whose_scheduler_says_it_get_few_steps_and_are_warned_of_many(tmp_path, scheduler):
    model = checkpoint(tmp_path / "mine", {"_class_name": scheduler})
    assert spec_of(model=model).num_inference_steps == spec_of(model=model, sampler="paper").num_inference_steps == 4
    assert said(model=model, guidance_scale=1) == []
    (line,) = said({"num_inference_steps": 20, "guidance_scale": 1}, {"guidance_scale": 2}, model=model)
    assert (
        f"its scheduler is {scheduler}" in line
        and "20 steps, guidance scale 1, its own scheduler; 4 steps, guidance scale 2, its own scheduler" in line
    )


def test_following_the_advice_ends_the_warning(tmp_path):
    model = checkpoint(tmp_path / "sd-turbo", SD_TURBO)
    (line,) = said(model=model)
    words = [
        word.removeprefix("generation.").split("=") for word in line.partition("Fix: ")[2].partition(",")[0].split()
    ]
    assert [name for name, _ in words] == ["num_inference_steps", "guidance_scale", "sampler"]
    assert said(model=model, **dict(words)) == []
    for name, value in words:
        rest = {other: setting for other, setting in words if other != name}
        assert said(model=model, **rest), f"{name}={value} is not asked for"


def test_lora_weights_tell_it_by_their_file_or_its_folder(tmp_path):
    pytest.importorskip("peft")
    for path in (
        "sdxl_lightning_4step_lora.safetensors",
        "lcm-lora-sdv1-5/pytorch_lora_weights.safetensors",
        "style.safetensors",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        write_lora(tmp_path / path)
    (line,) = said(
        lora=[
            {"path": str(tmp_path / "style.safetensors")},
            {"path": str(tmp_path / "sdxl_lightning_4step_lora.safetensors")},
        ]
    )
    assert "its LoRA 'sdxl_lightning_4step_lora.safetensors' says 'lightning'" in line
    (line,) = said(lora=[{"path": str(tmp_path / "lcm-lora-sdv1-5")}])
    assert "its LoRA 'pytorch_lora_weights.safetensors' says 'lcm'" in line
    assert said(lora=[{"path": str(tmp_path / "style.safetensors")}]) == []


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("sd-turbo", "turbo"),
        ("sdxlTurbo_v10", "turbo"),
        ("SDXLTurbo", "turbo"),
        ("SDXL-Lightning", "lightning"),
        ("LCM_Dreamshaper_v7", "lcm"),
        ("PixArt-LCM-XL-2-1024-MS", "lcm"),
        ("Hyper-SD", "hyper-sd"),
        ("Hyper-SD15-8steps-lora", "hyper-sd"),
        ("Hyper-SDXL-1step-lora", "hyper-sdxl"),
        ("FLUX.1-schnell", "schnell"),
        ("Sana_Sprint_1.6B_1024px_diffusers", "sprint"),
        ("Z-Image-Turbo", "turbo"),
        ("DMD2", "dmd2"),
        ("Segmind-VegaRT", "vega-rt"),
        ("my_sdxl_8step", "8step"),
        ("stable-diffusion-v1-5", None),
        ("stable-diffusion-xl-base-1.0", None),
        ("FLUX.1-dev", None),
        ("checkpoint-20000-steps", None),
        ("hyperrealism-v8", None),
        ("turbocharged", None),
        ("PixArt-Sigma-XL-2-1024-MS", None),
    ],
)
def test_words_that_tell_of_few_steps(name, word):
    assert few_step_word(name) == word


def test_plan_and_generate_say_it_once_and_lint_error_refuses_it(run_here, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # of a cluster that other tests started
    monkeypatch.setattr("raysd.cluster.session.ensure_ray", lambda: pytest.fail("Ray was started"))
    words = [f"generation.model={checkpoint(tmp_path / 'sd-turbo', SD_TURBO)}", "classes=[a cat]"]
    monkeypatch.setattr("raysd.diffusion.tokenizers.prompt_tokenizers", lambda model: [])
    finished = run_here("plan", *words)
    assert finished.returncode == 0 and finished.stdout.count("few-steps: its name says 'turbo'") == 1, finished.stderr
    assert "few-steps" not in run_here("plan", *words, "lint_ignore=[few-steps]").stdout
    assert "few-steps" not in run_here("plan", *words, "lint=off").stdout
    finished = run_here("generate", *words, "lint=error")
    assert (
        finished.returncode == 2
        and finished.stderr.startswith("error: generation.model = ")
        and "lint_ignore=[few-steps]" in finished.stderr
    )


def test_a_sweep_says_it_once_for_each_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("raysd.diffusion.tokenizers.prompt_tokenizers", lambda model: [])
    models = [checkpoint(tmp_path / name, EULER) for name in ("sd-turbo", "sdxl-lightning", "stable-diffusion-v1-5")]
    for number, model in enumerate(models):
        (Path(model) / "number.json").write_text(str(number))  # so that their weights differ
    specs = [spec_of(model=model, guidance_scale=scale) for model in models for scale in (1, 2, 4)]
    with shown_lines():
        check_prompts(Experiment(), specs)
    lines = [line for line in capsys.readouterr().out.splitlines() if "few-steps" in line]
    assert [line.split(": ")[1] for line in lines] == models[:2]
    assert all("guidance scale 1, " in line and "guidance scale 4, " in line for line in lines)
