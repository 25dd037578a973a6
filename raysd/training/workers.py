"""The workers that train a classifier together: those of Ray Train, or this process alone.

The train loop asks them for its place, its device, and the last checkpoint, and hands them the next one.
"""

import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from timm.utils import AverageMeter

from raysd.device import find_device
from raysd.storage.location import Location
from raysd.training.checkpoint import load_state, save_state


def totals_over_workers(meter: AverageMeter, device: torch.device) -> torch.Tensor:
    """Sum and number of what the meters of all workers have taken: float64 [2]. All workers call this equally often."""
    totals = torch.tensor([float(meter.sum), meter.count], dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(totals)
    return totals


def mean_over_workers(meter: AverageMeter, device: torch.device) -> float:
    """The mean; not a number when nothing was taken."""
    total, count = totals_over_workers(meter, device).tolist()
    return total / count if count else float("nan")


def resume_meter(meter: AverageMeter, totals: torch.Tensor) -> None:
    """Go on from what `totals_over_workers` said; for one of the workers, since these are the sums of all."""
    meter.sum, meter.count = (float(value) for value in totals)


STATE = "state.pt"  # in a checkpoint of Ray Train; one that an older raysd wrote lacks it, and its training begins anew
SUFFIX = ".pt"


class Workers(Protocol):
    """What the train loop needs of the workers."""

    rank: int
    world_size: int
    device: torch.device

    def resume(self) -> dict[str, Any] | None:
        """The state of the last checkpoint, or None."""

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model whose gradients are those of all workers."""

    def report(self, metrics: dict[str, Any], state: dict[str, Any] | None = None) -> None:
        """All workers call this equally often; the first one brings the state of a checkpoint."""


class RayTrainWorkers:
    """The workers of the Ray Train run in which this is called."""

    def __init__(self) -> None:
        import ray.train
        from ray.train.torch import get_device

        context = ray.train.get_context()
        self.rank, self.world_size, self.device = context.get_world_rank(), context.get_world_size(), get_device()

    def resume(self) -> dict[str, Any] | None:
        """See `Workers`."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            file = Path(folder, STATE)
            state: dict[str, Any] | None = load_state(file) if file.is_file() else None
        return state

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """See `Workers`.

        After its first step DDP would lay the gradients out anew, and sums over three and more CPU workers round by
        their layout: a resumed training, whose first step is another one, would stray from an undisturbed one. Looking
        for unused parameters prevents that.
        """
        from ray.train.torch import prepare_model

        options = {
            "broadcast_buffers": False,
            "find_unused_parameters": self.device.type == "cpu" and self.world_size > 2,
        }
        wrapped: torch.nn.Module = prepare_model(model, parallel_strategy_kwargs=options)
        return wrapped

    def report(self, metrics: dict[str, Any], state: dict[str, Any] | None = None) -> None:
        """See `Workers`."""
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
        """See `Workers`."""
        if not (numbers := self._numbers()):
            return None
        state: dict[str, Any] = load_state(BytesIO(self.folder.read(_name(numbers[-1]))))
        return state

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """See `Workers`."""
        return model

    def report(self, metrics: dict[str, Any], state: dict[str, Any] | None = None) -> None:
        """See `Workers`."""
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
