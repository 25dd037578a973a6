"""What a clone will cost, before it is drawn: device hours, time, bytes, and money where its price is known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysd.clone.plan import Plan
from raysd.clone.rates import CPU, Rate, same_device
from raysd.clone.spec import CloneSpec
from raysd.nodes import processes_on

PNG_BYTES_PER_PIXEL = 0.85
JPEG_BYTES_PER_PIXEL = 0.4
CHANNELS = {"grey": 1, "rgb": 3}


@dataclass(frozen=True)
class Pool:
    """The actors that draw, and the devices of each; an actor may have a part of a GPU, or several cores."""

    num_actors: int
    devices_per_actor: float


@dataclass(frozen=True)
class CostEstimate:
    """What drawing takes on one kind of device; as good as its rate."""

    rate: Rate
    device_seconds: float
    price: float | None
    """In the currency of `cost.price_per_hour`; None when no price is given."""

    def wall_seconds(self, pool: Pool) -> float:
        """Time from the call to the end: start-up + pictures / (rate x actors)."""
        return self.rate.start_seconds + self.device_seconds / (pool.num_actors * pool.devices_per_actor)


def estimate_cost(plan: Plan, rate: Rate, batch_size: int, prices: Mapping[str, float] | None = None) -> CostEstimate:
    """The cost of a whole clone.

    Args:
        plan: of the clone.
        rate: of the device.
        batch_size: shards are drawn in whole batches.
        prices: of an hour, by device; a device's own name may say more.
    """
    device_seconds = num_drawn(plan, batch_size) * rate.seconds_per_image(plan.spec)
    price = next((value for device, value in (prices or {}).items() if same_device(device, rate.device)), None)
    return CostEstimate(rate, device_seconds, None if price is None else device_seconds / 3600 * price)


def num_drawn(plan: Plan, batch_size: int) -> int:
    """Pictures that go through the model: the last batch of a shard is filled up."""
    return int((-(-plan.shard_sizes() // batch_size) * batch_size).sum())


def bytes_per_image(spec: CloneSpec) -> float:
    """What a stored picture takes; an estimate from its size and codec."""
    per_pixel = PNG_BYTES_PER_PIXEL * CHANNELS[spec.color] if spec.codec == "png" else JPEG_BYTES_PER_PIXEL
    return per_pixel * spec.stored_size**2


def num_bytes(plan: Plan, shards: np.ndarray | None = None) -> float:
    """Storage of a whole clone, or of some of its shards, in bytes; an estimate."""
    count = len(plan) if shards is None else int(plan.shard_sizes()[shards].sum())
    return count * bytes_per_image(plan.spec)


def devices_per_actor(cpus: float, gpus: float) -> float:
    """Devices that an actor holds: its GPUs, or the part of one that no other actor can have, or its cores; a thread that draws counts as a whole core
    unless two actors share one."""
    if gpus:
        return gpus if gpus >= 1 else 1 / processes_on(1, gpus)
    return cpus if cpus < 1 else math.floor(cpus)


def runs_on(rate: Rate, accelerators: set[str], gpus: float) -> bool:
    """Whether a rate's device is one that actors with so many GPUs draw on; without GPUs that is any CPU core."""
    if not gpus:
        return same_device(rate.device, CPU)
    return any(same_device(rate.device, accelerator) for accelerator in accelerators)
