"""What it saves to run the whole U-Net only in some of the steps: python benchmarks/step_cache.py

Times are CPU seconds of one thread, so other programs on the machine hardly change them. Two parts, some minutes:

- the embedded model, whole batches through raysd's generator, 20 steps: without and with `step_cache`, alternating;
- single calls of the denoiser, whole and cached ones alternating: of the embedded model at each depth, and of the
  architecture of Stable Diffusion 1.x with random weights (3.4 GB), one image of 256 px.
"""

import argparse
import time
from statistics import median

import record
import torch
from full_size import UNET

from raysd.clone.plan import ImageCounts, Plan
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import resolve_clone_spec
from raysd.config import Experiment
from raysd.diffusion.step_cache import cached_steps
from raysd.generation.pipeline import Generator

COMMAND = "python benchmarks/step_cache.py"
INTERVALS = (2, 3, 5)
BATCH, REPEATS, CALLS = 32, 5, 7


def spec_of(**changes):
    experiment = Experiment(generation=GenerationSettings(**changes))
    return resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants)


def cpu_seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


def measure_images():
    """Images of the embedded model for each CPU second."""
    specs = {0: spec_of(), **{interval: spec_of(step_cache={"interval": interval}) for interval in INTERVALS}}
    plan = Plan(specs[0], ImageCounts(len(specs[0].table), BATCH), BATCH)
    images = [plan.image(position) for position in range(BATCH)]
    generator, rates = Generator(specs[0]), {interval: [] for interval in specs}
    generator.generate(specs[0], images)
    for _ in range(REPEATS):
        for interval, spec in specs.items():
            rates[interval].append(BATCH / cpu_seconds(lambda spec=spec: generator.generate(spec, images)))
    about = f"embedded model, 20 guided steps, batches of {BATCH}, one thread, images for each CPU second"
    yield record.metric("plain_images_per_cpu_second", median(rates[0]), "images/s", "higher", COMMAND, about, rates[0])
    for interval in INTERVALS:
        ratios = [ours / plain for ours, plain in zip(rates[interval], rates[0], strict=True)]
        note = f"{about}; over those of no cache"
        yield record.metric(f"speedup_interval_{interval}", median(ratios), "ratio", "higher", COMMAND, note, ratios)


def shares(unet, sample, tokens, depth, calls):
    """Time of each cached call over that of the whole one before it."""
    with torch.inference_mode(), cached_steps(unet, 2, depth):
        unet(sample, torch.tensor(500), encoder_hidden_states=tokens)
        unet(sample, torch.tensor(500), encoder_hidden_states=tokens)
        whole, cached = [], []
        for _ in range(calls):
            for times in (whole, cached):
                times.append(cpu_seconds(lambda: unet(sample, torch.tensor(500), encoder_hidden_states=tokens)))
    return [one / other for one, other in zip(cached, whole, strict=True)]


def measure_calls():
    """A cached call's share of the time of a whole one."""
    unet = Generator(spec_of()).denoiser
    sample, tokens = torch.randn(2 * BATCH, 8, 8, 8), torch.randn(2 * BATCH, 24, 64)
    for depth in (1, 2, 3):
        runs = shares(unet, sample, tokens, depth, 4 * CALLS)
        about = f"embedded model, {len(sample)} rows, a cached call's CPU seconds over those of a whole one"
        yield record.metric(f"embedded_share_depth_{depth}", median(runs), "ratio", "lower", COMMAND, about)
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET).eval()
    runs = shares(unet, torch.randn(1, 4, 32, 32), torch.randn(1, 77, 768), 1, CALLS)
    about = "Stable Diffusion 1.x, random weights, float32, one row of 256 px, likewise; by multiplications 0.18, "
    about += "at 512 px 0.22"
    yield record.metric("stable_diffusion_1_share_depth_1", median(runs), "ratio", "lower", COMMAND, about, runs)
    for interval in INTERVALS:
        speedup = 20 / (-(-20 // interval) + (20 - -(-20 // interval)) * median(runs))
        about = "the same; 20 whole calls over those of 20 steps with a cache, from the share"
        yield record.metric(
            f"stable_diffusion_1_speedup_interval_{interval}", speedup, "ratio", "higher", COMMAND, about
        )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    record.write("step_cache", [*measure_images(), *measure_calls()])
