"""Frozen features and logits of a classifier."""

import numpy as np
import torch

from raysd.training.classifier import normalise

BATCH = 250


@torch.inference_mode()
def extract(model: torch.nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features float32 [N, D] and logits float32 [N, K] of uint8 pictures [N, 3, S, S]; `model` is a timm model."""
    device = next(model.parameters()).device
    features, logits = [], []
    for start in range(0, len(images), BATCH):
        maps = model.forward_features(normalise(torch.from_numpy(images[start : start + BATCH]).to(device)))
        pooled = model.forward_head(maps, pre_logits=True)
        features.append(pooled.float().cpu().numpy())
        logits.append(model.get_classifier()(pooled).float().cpu().numpy())
    return np.concatenate(features), np.concatenate(logits)
