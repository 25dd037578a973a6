"""Means over pictures and over all workers, with timm's meters; torchmetrics takes longer to import than a small training takes."""

import torch
import torch.distributed as dist
from timm.utils import AverageMeter


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
