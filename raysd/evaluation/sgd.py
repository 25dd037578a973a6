"""Linear softmax classifiers by SGD, for feature sets that are too large for L-BFGS; several settings are fitted together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from raysd.evaluation.logistic import LinearModel

MOMENTUM = 0.9


@dataclass(frozen=True)
class SgdSetting:
    """A learning rate and a weight decay."""

    learning_rate: float
    weight_decay: float


def fit_sgd(
    features: np.ndarray, labels: np.ndarray, num_classes: int, settings: Sequence[SgdSetting], num_epochs: int, batch_size: int, seed: int
) -> list[LinearModel | None]:
    """A classifier for each setting, or None where the weights grew without bound.

    SGD with momentum 0.9 on shuffled batches, the rate falling to zero along a cosine over all steps. All settings see the same batches.

    Args:
        features: float32 [N, D].
        labels: int64 [N], from 0 to `num_classes - 1`.
        num_classes: K.
        settings: T learning rates and weight decays.
        num_epochs: passes over the features.
        batch_size: pictures in a step; all N where there are fewer.
        seed: of the order.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data, targets = torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(device), torch.from_numpy(labels).to(device)
    count, num_settings = len(data), len(settings)
    rates, decays = (torch.tensor(values, device=device).view(-1, 1, 1) for values in zip(*((s.learning_rate, s.weight_decay) for s in settings), strict=True))
    weights = torch.zeros(num_settings, data.shape[1] + 1, num_classes, device=device)  # the last row is the bias
    momentum = torch.zeros_like(weights)
    generator = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, count)
    steps_per_epoch = count // batch_size
    for step in range(num_epochs * steps_per_epoch):
        if step % steps_per_epoch == 0:
            order = torch.randperm(count, generator=generator).to(device)
        first = step % steps_per_epoch * batch_size
        chosen = order[first : first + batch_size]
        inputs = torch.cat([data[chosen], torch.ones(batch_size, 1, device=device)], 1)
        gradient = _gradient(inputs, targets[chosen], weights) + decays * weights
        momentum.mul_(MOMENTUM).add_(gradient)
        weights -= rates * 0.5 * (1 + math.cos(math.pi * step / (num_epochs * steps_per_epoch))) * momentum
    return [LinearModel(own[:-1].cpu().numpy(), own[-1].cpu().numpy()) if torch.isfinite(own).all() else None for own in weights]


@torch.enable_grad()
def _gradient(inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Of the mean cross-entropy of each setting; inputs [B, D + 1], weights [T, D + 1, K]."""
    leaf = weights.detach().requires_grad_()
    logits = torch.einsum("bd,tdk->tbk", inputs, leaf)
    loss = cross_entropy(logits.flatten(0, 1), targets.repeat(len(weights)), reduction="sum") / len(targets)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient
