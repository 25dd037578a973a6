"""How fast a device generates, and what a clone will cost before it is generated: device hours, time, bytes and money.

Rates come from a table of what is known, and from the user's own measurements, which come first. They are kept per
guided denoising step of one image, and scaled to other numbers of steps and, in the table, to other sizes. Where there
is none, the model's operations and the GPU's data sheet give an estimate.
"""

import logging
import math
import platform
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from raysd.clone.clone import Clone
from raysd.clone.plan import Plan
from raysd.clone.spec import CloneSpec
from raysd.cluster.resources import processes_on
from raysd.diffusion.guiding.weaker import pass_share
from raysd.storage.location import Location
from raysd.storage.row_types.measured import GenerationCost
from raysd.storage.row_types.rates import RateRow
from raysd.storage.rows import RATE, read_rows

TABLE = Path(__file__).parent.parent / "assets" / "device_rates.yaml"
GPUS = TABLE.parent / "gpu_flops.yaml"
ESTIMATED = "estimated from FLOPs"
UNGUIDED_SHARE = 0.58  # of a guided step's time, without the unconditional pass
CACHED_SHARES = {
    "embedded": (0.21, 0.46, 0.79),
    "StableDiffusionPipeline": (0.22, 0.38, 0.43, 0.56, 0.67, 0.72, 0.85, 0.94, 0.95, 0.97, 0.99),
    "StableDiffusionXLPipeline": (0.04, 0.07, 0.11, 0.21, 0.31, 0.42, 0.66, 0.88),
}
"""Share of a whole step's time that a step takes with 1, 2, ... layers on the way down: of the embedded model as
measured, of Stable Diffusion 1.x and XL by the number of multiplications."""
DECODED_SHARES = {
    "embedded": 1.5,
    "StableDiffusionPipeline": 3.15,
    "StableDiffusionXLPipeline": 1.59,
    "StableDiffusion3Pipeline": 1.21,
    "SanaPipeline": 2.82,
}
"""Cost in guided steps of moving the latents along a gradient that passes the decoder: of the embedded model as
measured with the demo's classifier, of others that of the decoder alone, by the number of multiplications
(benchmarks/moves.py)."""
THROUGH_DENOISER = 1.07  # guided steps more, where the gradient also passes the denoiser; as counted
START_SECONDS = 10.0  # until actors generate and after they have generated, where nobody measured it
CPU = "CPU core"


@dataclass(frozen=True)
class Rate:
    """How fast one device generates."""

    device: str
    """Name of the device: `A100`, `NVIDIA A100-SXM4-80GB` or `CPU core, AMD EPYC`."""
    seconds_per_step: float
    """Seconds of one device for a guided step of one image at `image_size`."""
    image_size: int
    source: str
    start_seconds: float = START_SECONDS
    """From the call until actors generate, beside what is generated."""

    def seconds_per_image(self, spec: CloneSpec) -> float:
        """Return the device seconds for an image of a clone."""
        return self.seconds_per_step * guided_steps(spec) * (spec.image_size / self.image_size) ** 2


def guided_steps(spec: CloneSpec) -> float:
    """Return the cost of an image in guided steps: those without the unconditional pass count in part, and moves of the
    latents by what they cost."""
    return _denoising_steps(spec) + _moving_steps(spec)


def _denoising_steps(spec: CloneSpec) -> float:
    first, last = spec.guidance_interval
    share = last - first if spec.family.known.makes_two_passes(spec.guidance_scale) else 0.0
    if not spec.guiding.has_weaker_pass:
        return _whole_steps(spec) * (share + (1 - share) * UNGUIDED_SHARE)
    return UNGUIDED_SHARE * (_whole_steps(spec) + spec.num_inference_steps * share * _weaker_pass(spec))


def _moving_steps(spec: CloneSpec) -> float:
    """Return the cost of guidance by exemplars or by entropy, in guided steps."""
    guide = spec.latent_guide
    if guide is None or not guide.weight:
        return 0.0
    share = DECODED_SHARES[_family(spec)] + (THROUGH_DENOISER if guide.through_denoiser else 0)
    return (spec.num_inference_steps - 1) // guide.every * share


def _weaker_pass(spec: CloneSpec) -> float:
    """Return the cost of a weaker prediction in whole passes of the denoiser. One without some blocks counts as whole:
    a few are skipped. That of a weak model never takes features from a cache."""
    weak = spec.guiding.weak_model
    return 1.0 if weak is None or spec.model.is_dummy else pass_share(weak, spec.model, spec.family)


def _whole_steps(spec: CloneSpec) -> float:
    """Return the cost of an image's steps in whole runs of the denoiser: cached ones count in part."""
    if spec.step_cache is None:
        return spec.num_inference_steps
    whole = math.ceil(spec.num_inference_steps / spec.step_cache.interval)
    shares = CACHED_SHARES.get(_family(spec), CACHED_SHARES["StableDiffusionPipeline"])
    share = shares[min(spec.step_cache.depth, len(shares)) - 1]
    return whole + (spec.num_inference_steps - whole) * share


def same_device(one: str, other: str) -> bool:
    """Return whether two names can mean the same device, as `A100` and `NVIDIA A100-SXM4-80GB`: one has all words of
    the other."""
    words = [set(re.split(r"[\s,-]+", name.casefold())) for name in (one, other)]
    return words[0] <= words[1] or words[1] <= words[0]


def find_rates(spec: CloneSpec, measured: list[RateRow], batch_size: int | None = None) -> list[Rate]:
    """Return the best known rate of each device for a clone: the user's own of this pipeline and size, nearest in
    steps, and then in `batch_size`; else the table's."""
    own = own_rates(spec, measured, batch_size)
    known = [rate for rate in _table(_family(spec)) if not any(same_device(rate.device, device) for device in own)]
    return [*own.values(), *known]


def own_rates(spec: CloneSpec, measured: list[RateRow], batch_size: int | None = None) -> dict[str, Rate]:
    """Return the user's own rate of each device for a clone's pipeline and size, nearest in steps, and then in
    `batch_size`."""
    own: dict[str, Rate] = {}
    mine = [
        row for row in measured if row["pipeline_key"] == spec.pipeline_key and row["image_size"] == spec.image_size
    ]

    def distance(row: RateRow) -> tuple[float, float]:
        batches = 0.0 if batch_size is None else abs(math.log(row["batch_size"] / batch_size))
        return abs(math.log(row["guided_steps"] / guided_steps(spec))), batches

    for row in sorted(mine, key=distance, reverse=True):  # the nearest comes last, and stays
        own[row["device"]] = _own_rate(row)
    return own


def estimate_rates(spec: CloneSpec) -> list[Rate]:
    """Estimate the rates of known GPUs from a model's floating-point operations. This loads torch and takes some
    seconds.

    Solvers that call the denoiser twice a step take twice as long. Nothing is known of a model whose code does not run
    on fake tensors, and of the models that ship, which are too small to keep a GPU busy.
    """
    if spec.model.is_dummy or spec.model.is_embedded:
        return []
    logging.disable()  # torch would log what is no failure here
    try:
        from raysd.generation.fake_run import count_flops

        with warnings.catch_warnings(action="ignore"):
            step, decoding = count_flops(spec)
    except Exception:  # code of any model may ask for a value, and fails in its own way
        return []
    finally:
        logging.disable(logging.NOTSET)
    is_guided = spec.family.known.makes_two_passes(spec.guidance_scale)
    num_steps = guided_steps(spec) if is_guided else _whole_steps(spec) + 2 * _moving_steps(spec)
    per_step = (step * num_steps + decoding) / guided_steps(spec)
    table = yaml.safe_load(GPUS.read_text(encoding="utf-8"))
    return [
        Rate(row["device"], per_step / (table["utilization"] * row["tflops"] * 1e12), spec.image_size, ESTIMATED)
        for row in table["gpus"]
    ]


def read_rates(root: Location) -> list[RateRow]:
    """Return the measurements below a storage root."""
    return read_rows(root, RATE)


def _own_rate(row: RateRow) -> Rate:
    source = f"measured {row['date']}, {row['num_inference_steps']} steps at guidance {row['guidance_scale']:g}"
    per_step = row["device_seconds_per_image"] / row["guided_steps"]
    return Rate(row["device"], per_step, row["image_size"], source, row["start_seconds"])


def _family(spec: CloneSpec) -> str:
    return "embedded" if spec.model.is_embedded else spec.family.pipeline


@cache
def _table(family: str) -> tuple[Rate, ...]:
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return tuple(
        Rate(row["device"], row["seconds_per_step"], row["image_size"], row["source"])
        for row in rows
        if row["family"] == family
    )


PNG_BYTES_PER_PIXEL = 0.85
JPEG_BYTES_PER_PIXEL = 0.4
CHANNELS = {"gray": 1, "rgb": 3}


@dataclass(frozen=True)
class Pool:
    """The actors that generate, and the devices of each; an actor may have a part of a GPU, or several cores."""

    num_actors: int
    devices_per_actor: float


@dataclass(frozen=True)
class CostEstimate:
    """The cost of generating on one kind of device; as accurate as its rate."""

    rate: Rate
    device_seconds: float
    price: float | None
    """In the currency of `cost.price_per_hour`; None when no price is given."""

    def wall_seconds(self, pool: Pool) -> float:
        """Return the time from the call to the end in seconds: start-up + images / (rate x actors)."""
        return self.rate.start_seconds + self.device_seconds / (pool.num_actors * pool.devices_per_actor)


def estimate_cost(plan: Plan, rate: Rate, batch_size: int, prices: Mapping[str, float] | None = None) -> CostEstimate:
    """Estimate the cost of a whole clone.

    Args:
        plan: of the clone.
        rate: of the device.
        batch_size: shards are generated in whole batches.
        prices: of an hour, by device; a device's own name may say more.
    """
    device_seconds = num_generated(plan, batch_size) * rate.seconds_per_image(plan.spec)
    price = next((value for device, value in (prices or {}).items() if same_device(device, rate.device)), None)
    return CostEstimate(rate, device_seconds, None if price is None else device_seconds / 3600 * price)


def num_generated(plan: Plan, batch_size: int) -> int:
    """Return the number of images that the model generates: the last batch of a shard is filled up."""
    return int((-(-plan.shard_sizes() // batch_size) * batch_size).sum())


def bytes_per_image(spec: CloneSpec) -> float:
    """Estimate the bytes of a stored image from its size and codec."""
    per_pixel = PNG_BYTES_PER_PIXEL * CHANNELS[spec.color] if spec.codec == "png" else JPEG_BYTES_PER_PIXEL
    return per_pixel * spec.stored_size**2


def num_bytes(plan: Plan, shards: np.ndarray | None = None) -> float:
    """Estimate the bytes of a whole clone, or of some of its shards."""
    count = len(plan) if shards is None else int(plan.shard_sizes()[shards].sum())
    return count * bytes_per_image(plan.spec)


def devices_per_actor(cpus: float, gpus: float) -> float:
    """Return the number of devices that an actor holds: its GPUs, or the part of one that no other actor can have, or
    its cores. A thread that generates counts as a whole core unless two actors share one."""
    if gpus:
        return gpus if gpus >= 1 else 1 / processes_on(1, gpus)
    return cpus if cpus < 1 else math.floor(cpus)


def device_seconds(row: Mapping[str, Any], cpus: float, gpus: float) -> float:
    """Return the seconds of one device that a shard took: of a GPU by the clock, of CPU cores as they computed, so that
    other programs on the machine do not count.

    Args:
        row: of statistics, by a generation actor.
        cpus: of the actor.
        gpus: of the actor.
    """
    taken: float = devices_per_actor(cpus, gpus) * row["generation_seconds"] if gpus else row["cpu_seconds"]
    return taken


def runs_on(rate: Rate, accelerators: set[str], gpus: float) -> bool:
    """Return whether actors with so many GPUs generate on a rate's device; without GPUs that is any CPU core."""
    if not gpus:
        return same_device(rate.device, CPU)
    return any(same_device(rate.device, accelerator) for accelerator in accelerators)


def device_name() -> str:
    """Return the name of the GPU that this process generates with, or of its kind of CPU core. This does not load
    torch."""
    if (torch := sys.modules.get("torch")) is not None:
        from raysd.device import find_device

        if (device := find_device()).type == "cuda":
            return str(torch.cuda.get_device_name(device))
        if find_device(takes_mps=True).type == "mps":
            return f"{CPU}, Apple GPU"  # in the place of the cores, as Ray counts no GPU
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(":")[2].strip()
            for line in info.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("model name")
        ]
        if info.is_file()
        else []
    )
    return f"{CPU}, {names[0] if names else platform.processor() or platform.machine()}"


def clones_cost(clones: Sequence[Clone], measured: list[RateRow]) -> GenerationCost:
    """Return what generating some clones took: by their own records, or by measured rates for those without.

    Args:
        clones: of one setting.
        measured: the rates below the storage root.
    """
    num_images = sum(map(len, clones))
    parts = [_clone_seconds(clone, measured) for clone in clones]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return {"num_images": num_images, "device": None, "seconds_per_image": None, "seconds": None, "source": None}
    seconds = sum(each for each, _, _ in known)
    return {
        "num_images": num_images,
        "device": " + ".join(sorted({device for _, device, _ in known})),
        "seconds_per_image": seconds / num_images,
        "seconds": seconds,
        "source": "clone" if all(source == "clone" for _, _, source in known) else "rate",
    }


def _clone_seconds(clone: Clone, measured: list[RateRow]) -> tuple[float, str, Literal["clone", "rate"]] | None:
    """Return the device seconds of a clone, the devices, and where they are from; None where nobody measured them."""
    spent = clone.read_record().device_seconds
    if num_noted := sum(each.num_images for each in spent.values()):
        per_image = sum(each.seconds for each in spent.values()) / num_noted
        return per_image * len(clone), " + ".join(sorted(spent)), "clone"
    rates = own_rates(clone.spec, measured)
    if not rates:
        return None
    rate = list(rates.values())[-1]  # nearest in steps
    return rate.seconds_per_image(clone.spec) * len(clone), rate.device, "rate"
