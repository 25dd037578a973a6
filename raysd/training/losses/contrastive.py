"""The multi-positive contrastive loss: images of one group are each other's positives.

Its denominator is SINCERE's (Feeney and Hughes 2023, arXiv:2309.14277): the one positive and the negatives. With that
of supervised contrastive learning, which also holds the other positives, images of one class would repel each other.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import softplus

from raysd.classifier.model import Classifier


class WithProjections(torch.nn.Module):
    """A classifier that also returns the projections of the images, for the loss."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, *views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [sum of all B, K] and normalized projections [sum of all B, D] of batches [B, 3, S, S]."""
        return self.model.logits_and_projections(*views)


def contrastive_losses(
    anchors: torch.Tensor,
    groups: torch.Tensor,
    others: torch.Tensor,
    other_groups: torch.Tensor,
    first: int,
    temperature: float,
    views: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each anchor, float32 [A], and whether another image is a positive of it, bool [A].

    For each positive p of an anchor a it is -log(e^(a.p/T) / (e^(a.p/T) + sum over negatives n of e^(a.n/T))), and of
    several positives their mean. An anchor without a positive has loss 0.

    Args:
        anchors: of unit length, float32 [A, D].
        groups: of the anchors, int64 [A].
        others: what the anchors are compared with, float32 [N, D]; the anchors themselves are among them.
        other_groups: of these, int64 [N].
        first: place of the first anchor among the others.
        temperature: T.
        views: of each image among the others, which are positives of each other.
    """
    similar = anchors @ others.T / temperature
    same = groups[:, None] == other_groups[None]
    negatives = similar.masked_fill(same, torch.finfo(similar.dtype).min).logsumexp(dim=1, keepdim=True)
    places = torch.arange(len(anchors), device=anchors.device)
    positives = same.index_put((places, places + first), torch.tensor(False, device=same.device))
    count = positives.sum(dim=1)
    # -log(e^s / (e^s + e^n)) = log(1 + e^(n - s))
    losses = torch.where(positives, softplus(negatives - similar), 0).sum(dim=1) / count.clamp_min(1)
    return losses, count >= views


def contrastive_loss(
    projections: torch.Tensor, groups: torch.Tensor, counts: list[int], rank: int, temperature: float, views: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean loss of this worker's projections, each compared with those of all workers, and the share of them
    of which another image is a positive. All workers call this equally often.

    The gradient is that of the sum of all workers' losses, as far as it goes through this worker's projections.

    Args:
        projections: of unit length, [n, D].
        groups: of the projections, int64 [n].
        counts: projections of each worker; n is that of this one.
        rank: this worker's rank.
        temperature: of the similarities.
    """
    with torch.autocast(projections.device.type, enabled=False):
        own = projections.float()
        others, other_groups = (gathered(values, counts, rank) for values in (own, groups))
        losses, have_one = contrastive_losses(own, groups, others, other_groups, sum(counts[:rank]), temperature, views)
        return losses.mean(), have_one.float().mean()


def gathered(values: torch.Tensor, counts: list[int], rank: int) -> torch.Tensor:
    """Return the rows of all workers, one worker's after the other's, through which the gradients of all workers flow.

    Args:
        values: this worker's rows, [n, ...].
        counts: rows of each worker.
        rank: this worker's rank.
    """
    if len(counts) == 1:
        return values
    rows: torch.Tensor = _Gather.apply(values, counts, rank)
    return rows


class _Gather(torch.autograd.Function):
    """Rows of all workers, which may have unequal numbers of them; those of torch need equal ones."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, counts: list[int], rank: int) -> torch.Tensor:
        ctx.counts, ctx.rank = counts, rank
        padded = values.new_zeros((max(counts), *values.shape[1:]))
        padded[: len(values)] = values
        rows = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(rows, padded)
        return torch.cat([each[:count] for each, count in zip(rows, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.split(ctx.counts)[ctx.rank], None, None
