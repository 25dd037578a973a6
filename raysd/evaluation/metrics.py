"""Accuracies with intervals."""

import math

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_accuracy

Z_95 = 1.959963984540054


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy in percent of logits [N, K] against labels [N]."""
    num_classes = logits.shape[1]
    correct = multiclass_accuracy(torch.from_numpy(logits), torch.from_numpy(labels), num_classes=num_classes, average="micro")
    return 100 * float(correct)


def per_class_accuracy(logits: np.ndarray, labels: np.ndarray) -> list[float]:
    """Accuracy of each class in percent; logits [N, K], labels [N]."""
    num_classes = logits.shape[1]
    correct = multiclass_accuracy(torch.from_numpy(logits), torch.from_numpy(labels), num_classes=num_classes, average="none")
    return [100 * float(value) for value in correct]


def wilson_interval(percent: float, num_images: int) -> tuple[float, float]:
    """95 % interval in percent of an accuracy over `num_images` pictures (Wilson 1927)."""
    p, n, z2 = percent / 100, num_images, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def mean_log_odds(percents: list[float], num_images: list[int]) -> float:
    """Mean over sets of log(p / (1 - p)) (Kornblith et al. 2019); p is kept half a picture away from 0 and 1."""
    odds = []
    for percent, count in zip(percents, num_images, strict=True):
        p = min(max(percent / 100, 0.5 / count), 1 - 0.5 / count)
        odds.append(math.log(p / (1 - p)))
    return float(np.mean(odds))
