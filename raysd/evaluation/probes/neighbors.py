"""Classification by the nearest neighbors."""

import numpy as np
import torch
from torch.nn.functional import normalize

from raysd.device import find_device

TEMPERATURE = 0.07
"""Of the votes (Wu et al. 2018)."""
CHUNK = 2**25
"""Similarities that are held at once."""


def predict_by_neighbors(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int, neighbors: int
) -> np.ndarray:
    """Return classes int64 [M] of test features [M, D], by the votes of the most similar training images.

    A vote weighs exp(cosine similarity / 0.07), as in Wu et al. 2018 and DINO; at equal votes the smallest class wins.

    Args:
        train: features [N, D].
        labels: int [N], 0 to `num_classes` - 1.
        test: features [M, D].
        num_classes: K.
        neighbors: that vote; all N when there are fewer.
    """
    device = find_device()
    known, asked = (
        normalize(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)).to(device)) for part in (train, test)
    )
    classes = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device)
    predictions = []
    for rows in asked.split(max(1, CHUNK // len(known))):
        similarities, nearest = (rows @ known.T).topk(min(neighbors, len(known)), dim=1)
        votes = torch.zeros(len(rows), num_classes, device=device)
        votes.scatter_add_(1, classes[nearest], (similarities / TEMPERATURE).exp())
        predictions.append(votes.argmax(1))
    return np.asarray(torch.cat(predictions).cpu().numpy())
