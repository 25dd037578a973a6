"""Frozen features and logits of a classifier."""

import numpy as np
import torch

from raysd.training.classifier import Classifier, normalise

BATCH = 250


@torch.inference_mode()
def extract(model: Classifier, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features float32 [N, D], without any projector, and logits float32 [N, K] of uint8 pictures [N, 3, S, S]."""
    device = next(model.parameters()).device
    features, logits = [], []
    for start in range(0, len(images), BATCH):
        pooled, scores = model.features_and_logits(normalise(torch.from_numpy(images[start : start + BATCH]).to(device)))
        features.append(pooled.float().cpu().numpy())
        logits.append(scores.float().cpu().numpy())
    return np.concatenate(features), np.concatenate(logits)
