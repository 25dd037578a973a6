"""The workers that train a classifier together: those of Ray Train, or this process alone.

They give the train loop its rank, its device and the last checkpoint, and store the next one.
"""

import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from timm.utils import AverageMeter

from raysd.data import shared_memory
from raysd.data.images import ImageArrays
from raysd.device import find_device
from raysd.progress import say
from raysd.storage.location import Location
from raysd.training.checkpoint import load_state, save_state
from raysd.training.loader import Ingest


def totals_over_workers(meter: AverageMeter, device: torch.device) -> torch.Tensor:
    """Return sum and count of the meters of all workers, float64 [2]. All workers call this equally often."""
    totals = torch.tensor([float(meter.sum), meter.count], dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(totals)
    return totals


def mean_over_workers(meter: AverageMeter, device: torch.device) -> float:
    """Return the mean over the meters of all workers; not a number when they are empty."""
    total, count = totals_over_workers(meter, device).tolist()
    return total / count if count else float("nan")


def least_over_workers(value: int, device: torch.device) -> int:
    """Return the least of the values of all workers. All workers call this equally often."""
    least = torch.tensor(value, device=device)
    if dist.is_initialized():
        dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least)


def resume_meter(meter: AverageMeter, totals: torch.Tensor) -> None:
    """Set a meter to the sums that `totals_over_workers` returned, on one worker only, since they are those of all."""
    meter.sum, meter.count = (float(value) for value in totals)


STATE = "state.pt"  # in a checkpoint of Ray Train; one that an older raysd wrote lacks it, and its training begins anew
SUFFIX = ".pt"


class Workers(Protocol):
    """Interface of the workers for the train loop."""

    rank: int
    world_size: int
    device: torch.device

    def resume(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint, or None."""

    def read_once(self, ingest: Ingest) -> list[ImageArrays]:
        """Return all images of each pool, of which the workers of a node share one copy where they can. All workers
        call this equally often."""

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return a model whose gradients are averaged over all workers."""

    def report(self, metrics: dict[str, Any], state: dict[str, Any] | None = None) -> None:
        """Report the metrics; all workers call this equally often, and the first one adds the state of a checkpoint."""


class RayTrainWorkers:
    """The workers of the Ray Train run in which this is called."""

    def __init__(self) -> None:
        import ray.train
        from ray.train.torch import get_device

        context = ray.train.get_context()
        self.rank, self.world_size, self.device = context.get_world_rank(), context.get_world_size(), get_device()
        self.shared: shared_memory.SharedMemory | None = None
        """The images that are held in memory, as long as the training lasts."""

    def resume(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint, or None."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            file = Path(folder, STATE)
            state: dict[str, Any] | None = load_state(file) if file.is_file() else None
        return state

    def read_once(self, ingest: Ingest) -> list[ImageArrays]:
        """Return all images of each pool: the first worker of each node reads them into shared memory, and the others
        see its copy. Where they cannot, each reads its own."""
        import ray.train

        if self.world_size == 1:
            return ingest.read_into_memory()
        context = ray.train.get_context()
        node, is_first = context.get_node_rank(), context.get_local_rank() == 0
        arrays, why = None, "the first worker of this node has none to share"
        try:
            if is_first:
                self.shared = shared_memory.create(ingest.num_bytes)
        except OSError as error:
            why = str(error)
        if self.shared is not None:
            arrays = ingest.read_into_memory(memory=self.shared.bytes)
        address = (0, -1) if self.shared is None else self.shared.address
        for other, pid, file in self._gathered(node, *address):
            if arrays is None and other == node and file >= 0:
                try:
                    self.shared = shared_memory.attach((pid, file), ingest.num_bytes)
                    arrays = ingest.arrays_in(self.shared.bytes)
                except OSError as error:
                    why = str(error)
        if arrays is None:
            say(f"worker {self.rank} holds a copy of the images of its own: {why}")
            arrays = ingest.read_into_memory()
        return arrays

    def _gathered(self, *values: int) -> list[list[int]]:
        """Return the values of each worker, once all have come here."""
        own = torch.tensor(values, device=self.device)
        found = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(found, own)
        return [each.tolist() for each in found]

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return a model whose gradients are averaged over all workers.

        After its first step DDP would lay the gradients out anew, and the rounding of sums over three or more CPU
        workers depends on the layout: a resumed training, with another first step, would differ from an undisturbed
        one. The search for unused parameters prevents that.
        """
        from ray.train.torch import prepare_model

        options = {
            "broadcast_buffers": False,
            "find_unused_parameters": self.device.type == "cpu" and self.world_size > 2,
        }
        wrapped: torch.nn.Module = prepare_model(model, parallel_strategy_kwargs=options)
        return wrapped

    def report(self, metrics: dict[str, Any], state: dict[str, Any] | None = None) -> None:
        """Report the metrics to Ray Train, with a checkpoint if there is a state."""
        import ray.train

        if state is None:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_state(Path(folder, STATE), state)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


class OneProcess:
    """This process alone, where starting Ray Train's workers would take longer than the training.

    Args:
        folder: of the run; checkpoints lie in it, the last one counts. What an older raysd left there is not read, and
            deleted in the end.
    """

    def __init__(self, folder: Location) -> None:
        self.rank, self.world_size = 0, 1
        self.device = find_device()
        self.folder = folder.child("checkpoints")

    def _numbers(self) -> list[int]:
        return sorted(int(name.removesuffix(SUFFIX)) for name in self.folder.list_files(SUFFIX))

    def resume(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint, or None."""
        if not (numbers := self._numbers()):
            return None
        state: dict[str, Any] = load_state(BytesIO(self.folder.read(_name(numbers[-1]))))
        return state

    def read_once(self, ingest: Ingest) -> list[ImageArrays]:
        """Return all images of each pool, decoded in this process."""
        return ingest.read_into_memory(by_tasks=False)

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the model as it is."""
        return model

    def report(self, metrics: dict[str, Any], state: dict[str, Any] | None = None) -> None:
        """Write the state as the last checkpoint, if there is one; the metrics are not used."""
        if state is None:
            return
        numbers = self._numbers()
        written = BytesIO()
        save_state(written, state)
        self.folder.write(_name(numbers[-1] + 1 if numbers else 0), written.getvalue())
        for number in numbers:
            self.folder.delete(_name(number))

    def close(self) -> None:
        """Delete the checkpoints of a training that is done."""
        self.folder.delete_folder()


def _name(number: int) -> str:
    return f"{number:06d}{SUFFIX}"
