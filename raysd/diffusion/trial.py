"""A trial of a scheduler, before anything is generated: does it turn noise into samples of what a checkpoint knows?

The trial puts numbers in the place of latents, normally distributed around a pattern. For these the best denoiser is a
formula, so no weights are needed, and what has to come out is known. The denoiser follows the checkpoint: its noise
schedule, and what it predicts (noise, v, the sample, or the velocity of flow matching). A scheduler that calls it with
another amount of noise than it says, or takes its answer for something else, gives another pattern or noise.

Sources: Song et al., Score-based generative modeling through stochastic differential equations (ICLR 2021); Salimans
    and Ho, Progressive distillation (ICLR 2022), for v; Lipman et al., Flow matching (ICLR 2023).
"""

import inspect
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

Kind = Literal["noise", "flow", "other"]
Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

SHAPE = (3, 8, 8)
LEVELS, SPREAD = (-1.2, -0.4, 0.4, 1.2), 0.45  # of the pattern, and the deviation from it; together about 1, as latents
SEEDS, OTHERS = (1, 2, 3, 4), (3, 5, 1, 6)  # the second time, two seeds have other places and neighbors
LEAST_MEAN, MOST_MEAN, MOST_SPREAD = 0.8, 1.2, 2.0  # of what has to come out
LEARNED = ("learned", "learned_range")  # variances, which denoisers return beside their prediction
SCHEDULE_OPTIONS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
MOST_DIFFERENCE = 0.05  # of the share of signal; to rescale a schedule to zero terminal signal changes it by less
FOR_FLOW = "by flow matching, and it follows a noise schedule"
FOR_NOISE = "on a noise schedule, and it is for flow matching"
PREDICTIONS = ("epsilon", "v_prediction", "sample")
# Flow-matching pipelines that leave the times to their scheduler; others pass sigmas. Those that pass the images'
# random generators to it, so that it may add noise.
OWN_TIMES, PASS_GENERATORS = ("StableDiffusion3Pipeline", "SanaPipeline"), ("SanaPipeline",)


@dataclass(frozen=True)
class Outcome:
    """What a scheduler made of noise; `mean` and `spread` are 1 where the samples are exact."""

    mean: float
    spread: float
    repeats: bool
    """Whether samples depend on their own seeds alone."""


@cache
def find_problem(
    folder: Path, pipeline: str, name: str, options: tuple[tuple[str, Any], ...], num_steps: int
) -> str | None:
    """Return why a checkpoint cannot be generated with a scheduler, as a clause; None if it can.

    Args:
        folder: the checkpoint's.
        pipeline: its pipeline class.
        name: a scheduler class of diffusers.
        options: over those in the checkpoint.
        num_steps: of denoising.
    """
    try:
        with _quiet():
            return _problem(folder, pipeline, name, options, num_steps)
    except Exception as error:  # schedulers raise many kinds, and each keeps it from generating
        lines = str(error).strip().splitlines()
        return f"it fails ({type(error).__name__}: {lines[0].rstrip('.')})" if lines else f"it fails ({error!r})"


def _problem(
    folder: Path, pipeline: str, name: str, options: tuple[tuple[str, Any], ...], num_steps: int
) -> str | None:
    own = own_scheduler(folder)
    kind, scheduler = kind_of(own), _make(own, name, options)
    if kind == "other":
        if not options and type(own) is type(scheduler):
            return None
        if type(own) is not type(scheduler):
            return f"the checkpoint is made for {type(own).__name__} alone"
        return _first_step(scheduler, num_steps)
    if (kind == "flow") != (kind_of(scheduler) == "flow"):
        return f"the checkpoint was trained {FOR_FLOW if kind == 'flow' else FOR_NOISE}"
    if kind == "noise" and _has_other_schedule(scheduler, own, options):
        return "it follows another noise schedule than the checkpoint"
    if kind == "noise" and own.config.get("prediction_type", "epsilon") == "epsilon" and _has_zero_snr(scheduler):
        return "a checkpoint that predicts noise knows no image where a noise schedule ends in noise alone"
    return _judge(try_scheduler(scheduler, own, pipeline, num_steps))


def _judge(outcome: Outcome) -> str | None:
    if not math.isfinite(outcome.mean) or not math.isfinite(outcome.spread):
        return "it gives values that are not finite"
    if outcome.spread > MOST_SPREAD or outcome.mean < LEAST_MEAN / 2:
        return "it generates noise with this checkpoint"
    if not LEAST_MEAN <= outcome.mean <= MOST_MEAN:
        return "it generates images of another contrast than the checkpoint's"
    return None if outcome.repeats else "its noise does not come from the image's seed, so images would not repeat"


def own_scheduler(folder: Path) -> Any:
    """Return the scheduler of a checkpoint."""
    import diffusers

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return getattr(diffusers, index["scheduler"][1]).from_pretrained(folder / "scheduler", local_files_only=True)


def kind_of(own: Any) -> Kind:
    """Return what a checkpoint learned, by its own scheduler: to follow a noise schedule, a flow, or something else."""
    prediction = own.config.get("prediction_type", "epsilon")
    if type(own).__name__.startswith("FlowMatch") or prediction == "flow_prediction":
        return "flow"
    return "noise" if hasattr(own, "alphas_cumprod") and prediction in PREDICTIONS else "other"


def try_scheduler(scheduler: Any, own: Any, pipeline: str, num_steps: int) -> Outcome:
    """Return what a scheduler makes of noise with the best denoiser for a checkpoint's own scheduler, which follows a
    noise schedule or a flow."""
    kind = kind_of(own)
    denoiser = _flow_denoiser(own) if kind == "flow" else _noise_denoiser(own)
    first, second = (_generate(scheduler, denoiser, kind, pipeline, num_steps, seeds) for seeds in (SEEDS, OTHERS))
    mean = float((first * _pattern()).mean() / _pattern().square().mean())
    spread = float((first - mean * _pattern()).square().mean().sqrt()) / SPREAD
    return Outcome(mean, spread, torch.allclose(first[[0, 2]], second[[2, 0]], rtol=1e-3, atol=1e-3))


def _make(own: Any, name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    import diffusers

    return getattr(diffusers, name).from_config(own.config, **dict(options))


def _has_other_schedule(scheduler: Any, own: Any, options: tuple[tuple[str, Any], ...]) -> bool:
    """Return whether a scheduler brings a noise schedule of its own, which the options do not ask for."""
    asked = any(key in SCHEDULE_OPTIONS for key, _ in options)
    signal: torch.Tensor | None = getattr(scheduler, "alphas_cumprod", None)
    if asked or signal is None:
        return False
    return signal.shape != own.alphas_cumprod.shape or bool((signal - own.alphas_cumprod).abs().max() > MOST_DIFFERENCE)


def _has_zero_snr(scheduler: Any) -> bool:
    """Return whether a scheduler's first step is at noise alone."""
    is_rescaled = bool(scheduler.config.get("rescale_betas_zero_snr"))
    return is_rescaled and scheduler.config.get("timestep_spacing", "linspace") != "leading"


def _generate(
    scheduler: Any, denoiser: Denoiser, kind: Kind, pipeline: str, num_steps: int, seeds: Sequence[int]
) -> torch.Tensor:
    """Run a scheduler as the pipelines of diffusers do; return the samples, one for each seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    samples = torch.stack([torch.randn(SHAPE, generator=generator) for generator in generators])
    scheduler.set_timesteps(num_steps, device="cpu", **_times(scheduler, kind, pipeline, num_steps))
    if kind == "noise":
        samples = samples * scheduler.init_noise_sigma
    passed: dict[str, Any] = {"eta": 0.0}
    if kind == "noise" or pipeline in PASS_GENERATORS:
        passed["generator"] = generators
    taken = inspect.signature(scheduler.step).parameters
    passed = {key: value for key, value in passed.items() if key in taken}
    for time in scheduler.timesteps:
        prediction = denoiser(scheduler.scale_model_input(samples, time) if kind == "noise" else samples, time)
        if scheduler.config.get("variance_type") in LEARNED:
            prediction = torch.cat([prediction, torch.zeros_like(prediction)], dim=1)
        samples = scheduler.step(prediction, time, samples, **passed, return_dict=False)[0]
    return samples


def _times(scheduler: Any, kind: Kind, pipeline: str, num_steps: int) -> dict[str, Any]:
    """Return the arguments that pipelines give to `set_timesteps` beside the number of steps."""
    config = scheduler.config
    times: dict[str, Any] = {}
    if pipeline == "LatentConsistencyModelPipeline":
        times["original_inference_steps"] = None
    if kind == "flow" and pipeline not in OWN_TIMES and not config.get("use_flow_sigmas"):
        times["sigmas"] = [1 - step / num_steps for step in range(num_steps)]
    if config.get("use_dynamic_shifting"):
        times["mu"] = 1.0
    return times


def _first_step(scheduler: Any, num_steps: int) -> str | None:
    """Take one step on zeros; return what is wrong with the result."""
    scheduler.set_timesteps(num_steps, device="cpu")
    zeros = torch.zeros(1, *SHAPE)
    result = scheduler.step(zeros, scheduler.timesteps[0], zeros, return_dict=False)[0]
    return None if bool(torch.isfinite(result).all()) else "it gives values that are not finite"


def _noise_denoiser(own: Any) -> Denoiser:
    """Return the best denoiser for samples a x0 + b n, with a and b by the noise schedule of the checkpoint."""
    signal = own.alphas_cumprod.double().clamp(1e-12, 1 - 1e-12)
    ratios = torch.log(signal) - torch.log1p(-signal)  # of signal and noise, which is what changes evenly between steps
    prediction = own.config.get("prediction_type", "epsilon")

    def denoise(samples: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        place = min(max(float(time), 0.0), len(ratios) - 1.0)
        low = int(place)
        high = min(low + 1, len(ratios) - 1)
        ratio = ratios[low] + (place - low) * (ratios[high] - ratios[low])
        a, b = float(torch.sigmoid(ratio).sqrt()), float(torch.sigmoid(-ratio).sqrt())
        clean = _clean(samples, a, b)
        noise = (samples - a * clean) / b
        return {"epsilon": noise, "sample": clean, "v_prediction": a * noise - b * clean}[prediction]

    return denoise


def _flow_denoiser(own: Any) -> Denoiser:
    """Return the best denoiser for samples (1 - t) x0 + t n."""
    num_times = own.config.get("num_train_timesteps", 1000)

    def denoise(samples: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        b = min(max(float(time) / num_times, 1e-6), 1.0)
        clean = _clean(samples, 1 - b, b)
        return (samples - clean) / b

    return denoise


def _clean(samples: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """Return the expected x0 of samples a x0 + b n."""
    share = a * SPREAD**2 / (a * a * SPREAD**2 + b * b)
    return _pattern() + share * (samples - a * _pattern())


@cache
def _pattern() -> torch.Tensor:
    levels = torch.randint(len(LEVELS), SHAPE, generator=torch.Generator().manual_seed(0))
    return torch.tensor(LEVELS)[levels]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what diffusers warns of from the user, and the random state of this process as it is."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.inference_mode():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
