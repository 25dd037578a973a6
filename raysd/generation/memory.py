"""How much memory a generation actor takes, on a GPU or on a node."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from raysd.clone.spec import CloneSpec
from raysd.cluster.probe import NodeReport
from raysd.cluster.resources import ResourceRequest, processes_on, room_for
from raysd.diffusion.checkpoint import DTYPE_BYTES, weight_bytes
from raysd.diffusion.guiding.weaker import denoiser_bytes
from raysd.errors import UserError

PROCESS_BYTES = 0.7e9  # of an actor without a pipeline: libraries, Ray; on a GPU its context
GPU_SHARE = 1.1  # of the activations: blocks that the allocator keeps; assumed
# of the activations: oneDNN copies them into other layouts; Stable Diffusion 1.x, one image
# (benchmarks/results/full_size.json)
CPU_SHARE = 2.0
UNKNOWN_SHARE = 0.3  # of the weights, for activations that are not known
IMAGE_COPIES = 4  # of a batch in float32 while it is made ready to be stored


@dataclass(frozen=True)
class ActorMemory:
    """Peak memory of a generation actor in bytes."""

    weights: int
    """Of the loaded pipeline."""
    activations: dict[str, int] = field(default_factory=dict)
    """Beside the weights, at the most while each component works on a batch; empty when they are not known."""
    images: int = 0
    """Of a generated batch in the node's memory."""

    @property
    def largest(self) -> int:
        """Activations of the component that takes the most."""
        return max(self.activations.values(), default=int(UNKNOWN_SHARE * self.weights))

    @property
    def on_gpu(self) -> float:
        """Bytes of a GPU."""
        return PROCESS_BYTES + self.weights + GPU_SHARE * self.largest

    def on_node(self, has_gpu: bool) -> float:
        """Return the bytes on the node; an actor with a GPU loads the weights there first."""
        return PROCESS_BYTES + self.weights + max(self.images, 0 if has_gpu else CPU_SHARE * self.largest)

    def describe(self, has_gpu: bool) -> str:
        """Return a breakdown of the memory in a few words."""
        where, num_bytes = ("a GPU", self.on_gpu) if has_gpu else ("memory", self.on_node(has_gpu))
        component = max(self.activations, key=self.activations.__getitem__, default=None)
        then = (
            f"{self.largest / 1e9:.1f} GB while {component} works"
            if component
            else "more with large batches, which cannot be counted for this pipeline"
        )
        return f"about {num_bytes / 1e9:.1f} GB of {where}: weights {self.weights / 1e9:.1f} GB, {then}"


def actor_memory(spec: CloneSpec, batch_size: int) -> ActorMemory:
    """Estimate the memory of an actor that generates images of `spec`, by a run of its pipeline on fake tensors. This
    takes some seconds, and no GPU.

    A pipeline whose code does not run on them has unknown activations.
    """
    images = IMAGE_COPIES * batch_size * spec.image_size**2 * 3 * 4
    if spec.model.is_dummy:
        return ActorMemory(0, {"images": images}, images)
    logging.disable()  # torch would log what is no failure here
    try:
        from raysd.generation.fake_run import run_on_fake_tensors

        weights, activations = run_on_fake_tensors(spec, batch_size)
    except Exception:  # code of any model may ask for a value, and fails in its own way
        model = spec.model
        here = weight_bytes(model.find_configs_here(), spec.dtype, model.variant)
        return ActorMemory(here + model.missing_bytes + _weak_bytes(spec), images=images)
    finally:
        logging.disable(logging.NOTSET)
    return ActorMemory(weights + _weak_bytes(spec), activations, images)


def _weak_bytes(spec: CloneSpec) -> int:
    """Return the bytes of the weak model's denoiser; its activations are at most those of the model."""
    weak = spec.guiding.weak_model
    return 0 if weak is None else denoiser_bytes(weak, spec.family, DTYPE_BYTES[spec.dtype]) + weak.missing_bytes


def memory_failures(request: ResourceRequest, reports: Sequence[NodeReport], memory: "ActorMemory") -> list[UserError]:
    """Return errors for generation actors that fit on the nodes, but not in their memory or that of their GPUs.

    Args:
        request: the actors.
        reports: of all nodes; what is unknown of one counts as enough.
        memory: that each actor takes.
    """
    own, on_gpu = memory.on_node(bool(request.gpus)), memory.on_gpu
    failures = []
    for where, num_bytes, rooms in (
        ("memory", own, [_within(report, request, own) for report in reports]),
        ("GPU memory", on_gpu, [_within_gpu(report, request, on_gpu) for report in reports]),
    ):
        if (room := sum(rooms)) < min(
            request.count, room_for([report.node for report in reports], request.cpus, request.gpus)
        ):
            need = (
                f"{request.count} {request.what} x about {num_bytes / 1e9:.1f} GB, and the nodes' {where} has "
                f"room for {room}"
            )
            failures.append(
                UserError(
                    request.field,
                    request.value,
                    f"{need}; ask for fewer, lower generation.batch_size, or use larger nodes",
                )
            )
    return failures


def _within(report: NodeReport, request: ResourceRequest, num_bytes: float) -> int:
    room = report.node.room(request.cpus, request.gpus)
    return room if report.memory is None else min(room, int(report.memory // num_bytes))


def _within_gpu(report: NodeReport, request: ResourceRequest, num_bytes: float) -> int:
    """Return the number of actors that fit in the GPU memory of a node. Actors share a GPU where each asks for a part
    of one."""
    room = report.node.room(request.cpus, request.gpus)
    if not request.gpus or not report.gpus:
        return room
    return min(
        room, sum(min(processes_on(1, min(request.gpus, 1)), int(gpu.num_bytes // num_bytes)) for gpu in report.gpus)
    )
