"""One data-parallel training loop for both parts of the tiny Stable Diffusion.

Every batch is a pure function of (seed, step, rank), and a checkpoint holds weights, average, optimizer and step. So a
killed and restarted run ends as an undisturbed one does.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from ray.train.torch import prepare_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raysd.device import cpu_has_bfloat16
from raysd.training.order import epoch_order
from raysd.training.workers import RayTrainWorkers

Batch = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Schedule:
    """Length, batch size and rates of the training of one part."""

    num_steps: int
    batch_size: int
    """Images per step, over all workers."""
    learning_rate: float
    ema_decay: float
    warmup_steps: int = 200
    checkpoint_every: int = 500
    seed: int = 0


@cache
def mixed_precision() -> torch.autocast:
    """Return autocast to bfloat16 where the CPU has it in hardware, else one that changes nothing.

    Emulated, two steps of the denoiser took 28 s instead of 2.5 s.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16())


def shuffled_indices(step: int, num_items: int, batch_size: int, rank: int, world_size: int, seed: int) -> np.ndarray:
    """Return the items of one worker's share of batch `step`.

    Each epoch is one permutation, cut into full batches, rank-strided.
    """
    per_epoch = num_items // batch_size
    epoch, position = divmod(step, per_epoch)
    order = epoch_order(num_items, epoch, seed)
    return order[position * batch_size + rank : (position + 1) * batch_size : world_size]


def fit(module: torch.nn.Module, make_batch: Callable[[int, int, int], Batch], schedule: Schedule) -> torch.nn.Module:
    """Train `module` inside a Ray Train worker and return its averaged copy.

    Args:
        module: its forward takes a batch and returns the loss.
        make_batch: function that returns this worker's share of the batch for a step, a rank and a world size.
        schedule: steps, rates and the checkpoint interval.
    """
    workers = RayTrainWorkers()
    rank, world_size = workers.rank, workers.world_size
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema_decay), use_buffers=False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    start = 0
    if (state := workers.resume()) is not None:
        module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    parallel = prepare_model(module)
    began, losses = time.monotonic(), []
    for step in range(start, schedule.num_steps):
        rate = _cosine_rate(step, schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(hash((schedule.seed, step, rank)) % 2**31)
        loss = parallel(*make_batch(step, rank, world_size))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(module)
        losses.append(loss.item())
        done = step + 1
        if done % schedule.checkpoint_every == 0 or done == schedule.num_steps:
            images_per_s = (done - start) * schedule.batch_size / (time.monotonic() - began)
            metrics = {"step": done, "loss": float(np.mean(losses)), "images_per_s": images_per_s}
            losses = []
            state = {
                "module": module.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": done,
            }
            workers.report(metrics, state if rank == 0 else None)
            if rank == 0:
                left = (schedule.num_steps - done) * schedule.batch_size / images_per_s
                speed = f"{images_per_s:.0f} images/s  {left / 60:.1f} min left"
                print(f"step {done}/{schedule.num_steps}  loss {metrics['loss']:.4f}  {speed}", flush=True)
    return average.module


def _cosine_rate(step: int, schedule: Schedule) -> float:
    """Return the rate at a step: linear warm-up, then half a cosine to 1 % of the rate."""
    warm = min(1.0, (step + 1) / schedule.warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * step / schedule.num_steps))
    return schedule.learning_rate * warm * (0.01 + 0.99 * fall)
