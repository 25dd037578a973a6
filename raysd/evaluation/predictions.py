"""What is kept of a classifier's logits."""

import numpy as np
import torch

from raysd.errors import UserError


def predict(
    logits: torch.Tensor, labels: torch.Tensor, groups: tuple[tuple[int, ...], ...] = (), shared: tuple[int, ...] | None = None
) -> dict[str, np.ndarray]:
    """What is kept of the logits float32 [B, K] of pictures with labels int64 [B].

    `prediction` int64, its softmax `confidence` float32, and the `rank` int64 of the right class: how many classes come before it.
    With `shared`, the same as `shared_prediction` and so on, with all other classes masked.

    Args:
        logits: over the class table.
        labels: the right class of each picture.
        groups: classes that count as one; the first of each is the one that labels name.
        shared: classes that are not masked in the second reading.

    Raises:
        UserError: logits that are no numbers.
    """
    if not torch.isfinite(logits).all():
        raise UserError("classifier", "logits", "are not all numbers, so its training went astray; train it again with a lower learning rate")
    for first, *others in groups:  # one logit for the group: the sum of its probabilities would favour large groups
        logits = logits.clone()
        logits[:, first] = logits[:, [first, *others]].amax(1)
        logits[:, others] = -torch.inf
    result = _predict(logits, labels)
    if shared is not None:
        masked = torch.full_like(logits, -torch.inf)
        masked[:, list(shared)] = logits[:, list(shared)]
        result |= {f"shared_{name}": values for name, values in _predict(masked, labels).items()}
    return result


def _predict(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    right, classes = logits.gather(1, labels[:, None]), torch.arange(logits.shape[1])
    before = (logits > right) | ((logits == right) & (classes < labels[:, None]))  # of equal logits the first class wins: constant ones are no hit
    prediction = logits.argmax(1)
    confidence = logits.softmax(1).gather(1, prediction[:, None])[:, 0]
    return {"prediction": prediction.numpy(), "confidence": confidence.numpy(), "rank": before.sum(1).numpy()}
