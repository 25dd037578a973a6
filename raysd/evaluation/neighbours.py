"""Classes by nearest neighbours."""

import numpy as np
import torch

TEMPERATURE = 0.07
CHUNK = 2**24  # similarities that are held at a time


def predict_by_neighbours(train: tuple[np.ndarray, np.ndarray], features: np.ndarray, neighbours: int) -> np.ndarray:
    """Classes int64 [M] of features [M, D] by the nearest of others, as in Wu et al. 2018 and DINO.

    The `neighbours` with the largest cosine similarity s vote for their class with the weight exp(s / 0.07).

    Args:
        train: features [N, D] and labels int64 [N] from 0.
        features: what is to be told.
        neighbours: that vote; all N where there are fewer.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    known, asked = (torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(part, np.float32)).to(device)) for part in (train[0], features))
    labels = torch.from_numpy(train[1]).to(device)
    found = []
    for chunk in asked.split(max(1, CHUNK // len(known))):
        similarity, places = (chunk @ known.T).topk(min(neighbours, len(known)))
        votes = torch.zeros(len(chunk), int(labels.max()) + 1, device=device)
        votes.scatter_add_(1, labels[places], (similarity / TEMPERATURE).exp())
        found.append(votes.argmax(1))
    return torch.cat(found).cpu().numpy()
