"""A linear softmax classifier by SGD, several settings at once.

It is code of our own because scikit-learn's `SGDClassifier` has neither a softmax over all classes nor momentum, and
fits one setting at a time, on CPUs, as its `LogisticRegression` does, whose search takes 10.6 times as long as ours
(`python benchmarks/evaluation.py`, `probe_speedup`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raysd.device import find_device
from raysd.evaluation.probes.logistic import LinearModel
from raysd.training.recipe import cosine_factor

MOMENTUM = 0.9
INITIAL_DEVIATION = 0.01


@dataclass(frozen=True)
class SgdFit:
    """One model for each setting, and which settings diverged: their models are all zeros."""

    models: list[LinearModel]
    diverged: list[bool]


def fit_sgd(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    batch_size: int,
    epochs: int,
    seed: int,
) -> SgdFit:
    """Fit one model for each pair of learning rate and weight decay, on the same batches. On the CPU the seed
    determines the result.

    Plain SGD with momentum 0.9; weights and bias decay, and the learning rate falls to 0 by half a cosine over all
    steps.

    Args:
        features: finite float32 [N, D].
        labels: int [N], 0 to `num_classes` - 1.
        num_classes: K.
        learning_rates: T, above 0.
        weight_decays: T, 0 or above.
        batch_size: images per step; all when there are fewer.
        epochs: passes over the images.
        seed: of the first weights and the order.
    """
    device = find_device()
    data = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(device)
    data = torch.cat([data, torch.ones_like(data[:, :1])], 1)  # the last row of the weights is the bias
    targets = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device)
    generator, count = torch.Generator().manual_seed(seed), len(learning_rates)
    first = torch.randn(data.shape[1], 1, num_classes, generator=generator) * INITIAL_DEVIATION
    first[-1] = 0
    weights = first.repeat(1, count, 1).to(device)  # [D + 1, T, K]
    rates, decays = (
        torch.tensor(values, dtype=torch.float32, device=device)[:, None] for values in (learning_rates, weight_decays)
    )
    velocity = torch.zeros_like(weights)
    steps_per_epoch = -(-len(data) // batch_size)
    for epoch in range(epochs):
        order = torch.randperm(len(data), generator=generator).to(device)
        for step, batch in enumerate(order.split(batch_size)):
            inputs = data[batch]
            errors = (inputs @ weights.flatten(1)).view(len(batch), count, num_classes).softmax(-1)
            errors[torch.arange(len(batch), device=device), :, targets[batch]] -= 1
            gradient = (inputs.T @ errors.flatten(1)).view_as(weights) / len(batch)
            velocity.mul_(MOMENTUM).add_(gradient).add_(weights * decays)
            weights -= (
                rates * cosine_factor(epoch * steps_per_epoch + step, epochs * steps_per_epoch, 0, 0.0) * velocity
            )
    diverged = ~weights.isfinite().all(-1).all(0)
    weights[:, diverged] = 0
    values = weights.cpu().numpy()
    return SgdFit([LinearModel(values[:-1, place], values[-1, place]) for place in range(count)], diverged.tolist())
