"""Which schedulers generate, and which are refused before anything is generated."""

import subprocess
import sys

import diffusers
import numpy as np
import pytest
import tiny_models
import torch
from plans import plan_of, spec_of

from raysd.diffusion.trial import _generate, _noise_denoiser, _pattern, try_scheduler
from raysd.errors import UserError
from raysd.generation.pipeline import Generator

ALL = sorted(name for name in dir(diffusers) if name.endswith("Scheduler"))
CLIPPING = ["DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler"]  # by default
FITTING = [
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}


@pytest.fixture(scope="module")
def generate():
    """Generates an image of each class without guidance; all from the same noise."""
    torch.set_num_threads(1)
    generator = Generator(spec_of(guidance_scale=1))

    def images(**changes):
        spec = spec_of(guidance_scale=1, **changes)
        plan = plan_of(1, 10, spec)
        pixels = generator.generate(spec, [plan.image(position) for position in range(10)]).pixels
        return pixels.reshape(10, -1).astype(float)

    return images


@pytest.fixture(scope="module")
def reference(generate):
    return generate(sampler="paper")


def correlations(first, second):
    return np.array([np.corrcoef(one, other)[0, 1] for one, other in zip(first, second, strict=True)])


@pytest.mark.parametrize("name", ALL)
def test_each_scheduler_of_diffusers_generates_the_images_of_the_checkpoints_own_or_is_refused(
    name, generate, reference
):
    options = {"clip_sample": False} if name in CLIPPING else {}
    if name not in FITTING + CLIPPING:
        with pytest.raises(UserError, match=rf"^generation.scheduler = '{name}': .*(use|set) ") as refused:
            spec_of(scheduler=name)
        assert "\n" not in str(refused.value)
        return
    images = generate(scheduler=name, scheduler_options=options)
    found = correlations(images, reference)
    assert np.median(found) > 0.7 and found.min() > 0.4, found  # those that add noise give other images of the class
    assert 0.9 < images.std() / reference.std() < 1.1


@pytest.mark.parametrize("name", CLIPPING)
def test_a_scheduler_that_would_clip_latents_is_refused_with_the_option_that_helps(name):
    with pytest.raises(UserError, match=r"another contrast.*; set generation.scheduler_options=\{clip_sample: false\}"):
        spec_of(scheduler=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inference_steps": 500}, "num_inference_steps = 500: .* another contrast .*; use 200 or fewer"),
        ({"num_inference_steps": 1000}, r"num_inference_steps = 1000: .*fails \(IndexError: .*; use 200 or fewer"),
        ({"sampler": "paper", "num_inference_steps": 1}, "num_inference_steps = 1: is too few for PNDMScheduler"),
        ({"scheduler_options": {"algorithm_type": "dpm++"}}, "algorithm_type = 'dpm\\+\\+': .* takes dpmsolver or"),
        ({"scheduler_options": {"use_karras_sigmas": "yes"}}, "use_karras_sigmas = 'yes': .* takes true or false"),
        ({"scheduler_options": {"solver_order": "two"}}, "solver_order = 'two': .* takes a number"),
        ({"scheduler_options": {"beta_schedule": "linaer"}}, "'linaer'.*fails .*; leave out beta_schedule"),
        (
            {"scheduler_options": {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}},
            "fails .*; leave out beta_schedule or use_karras_sigmas",
        ),
        ({"scheduler_options": {"prediction_type": "epsilon"}}, "generates noise .*; leave out prediction_type"),
        ({"scheduler_options": {"use_flow_sigmas": True}}, "another contrast .*; leave out use_flow_sigmas"),
        ({"sampler": "paper", "scheduler_options": {"bets": 1}}, "'bets': PNDMScheduler has no such option"),
        ({"scheduler": "DPMSolverSDEScheduler"}, "needs the package torchsde"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        spec_of(**changes)


def save(folder, scheduler, make=tiny_models.sd1):
    pipeline = make()
    pipeline.register_modules(scheduler=scheduler)
    pipeline.save_pretrained(folder)
    return {"model": str(folder), "dtype": "float32"}


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize(
    "own",
    [
        diffusers.PNDMScheduler(**STABLE_DIFFUSION),
        diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="leading", steps_offset=1),
        diffusers.DDIMScheduler(**STABLE_DIFFUSION, prediction_type="v_prediction", clip_sample=False),
        diffusers.DDIMScheduler(**STABLE_DIFFUSION, **ZERO_SNR, clip_sample=False),
        diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION, **ZERO_SNR),
    ],
    ids=["epsilon", "euler", "v", "zero_snr", "zero_snr_euler"],
)
def test_the_fast_sampler_gives_mean_and_deviation_of_the_data_for_what_checkpoints_predict(own, steps):
    """The data are normally distributed, so the best denoiser and what must come out are known exactly."""
    fast = diffusers.DPMSolverMultistepScheduler.from_config(own.config)
    outcome = try_scheduler(fast, own, "StableDiffusionPipeline", steps)
    assert outcome.mean == pytest.approx(1, abs=0.07) and outcome.repeats
    assert outcome.spread == pytest.approx(1, abs=0.13 if steps == 20 else 0.55)
    samples = _generate(fast, _noise_denoiser(own), "noise", "StableDiffusionPipeline", steps, range(40))
    assert float((samples.mean(dim=0) - _pattern()).abs().mean()) < 0.12


def test_a_checkpoint_whose_schedule_ends_in_noise_alone_takes_the_fast_sampler_where_it_predicts_v(tmp_path):
    good = save(tmp_path / "v", diffusers.DDIMScheduler(**STABLE_DIFFUSION, **ZERO_SNR, clip_sample=False))
    assert spec_of(**good).scheduler == "DPMSolverMultistepScheduler"
    wrong = {**ZERO_SNR, "prediction_type": "epsilon"}
    bad = save(tmp_path / "epsilon", diffusers.DDIMScheduler(**STABLE_DIFFUSION, **wrong, clip_sample=False))
    with pytest.raises(UserError, match=r"generation.sampler = 'fast': .* predicts noise .*; set it to paper"):
        spec_of(**bad)
    assert spec_of(**bad, sampler="paper").scheduler is None


def test_flow_matching_takes_what_follows_flows(tmp_path):
    model = {"model": str(tiny_models.save_tiny("sd3", tmp_path)), "dtype": "float32"}
    assert spec_of(**model, scheduler="FlowMatchHeunDiscreteScheduler").scheduler == "FlowMatchHeunDiscreteScheduler"
    with pytest.raises(
        UserError,
        match=r"trained by flow matching.*; set .*=\{use_flow_sigmas: true, prediction_type: flow_prediction\}",
    ):
        spec_of(**model, scheduler="UniPCMultistepScheduler")
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    assert spec_of(**model, scheduler="UniPCMultistepScheduler", scheduler_options=flow).scheduler is not None
    for name in ("DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "FlowMatchLCMScheduler"):
        with pytest.raises(UserError, match=f"generation.scheduler = '{name}'"):  # the last: other noise each time
            spec_of(**model, scheduler=name)
    assert spec_of(**model, num_inference_steps=1).num_inference_steps == 1


def test_few_step_models_keep_their_own(tmp_path):
    sprint = {"model": str(tiny_models.save_tiny("sana_sprint", tmp_path))}
    with pytest.raises(UserError, match="is made for SCMScheduler alone"):
        spec_of(**sprint, scheduler="EulerDiscreteScheduler")
    turbo = save(tmp_path / "turbo", diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="trailing"))
    assert spec_of(**turbo, sampler="paper", num_inference_steps=1).scheduler is None


def test_usual_settings_are_resolved_without_torch():
    script = "import sys; from plans import spec_of; spec_of(num_inference_steps=1); print('torch' in sys.modules)"
    path = {"PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=path)
    assert run.stdout.strip() == "False"
