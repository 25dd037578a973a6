"""Statistics of predictions: accuracies, calibration and mix-ups.

They are computed from the stored values of each image: its label, the predicted class, the confidence (softmax of the
predicted class) and the rank of the right class among the sorted logits, 0 for the highest one.
"""

import numpy as np
import torch

from raysd.errors import UserError


def predict(
    logits: torch.Tensor,
    labels: torch.Tensor,
    groups: tuple[tuple[int, ...], ...] = (),
    shared: tuple[int, ...] | None = None,
) -> dict[str, np.ndarray]:
    """Return the values to store for the logits float32 [B, K] of images with labels int64 [B].

    `prediction` int64, its softmax `confidence` float32, and the `rank` int64 of the right class: how many classes come
    before it. With `shared`, the same as `shared_prediction` and so on, with all other classes masked.

    Args:
        logits: over the class table.
        labels: the right class of each image.
        groups: classes that count as one; the first of each is the one that labels name.
        shared: classes that are not masked in the second reading.

    Raises:
        UserError: logits that are not finite.
    """
    if not torch.isfinite(logits).all():
        raise UserError(
            "classifier",
            "logits",
            "are not all numbers, so its training went astray; train it again with a lower learning rate",
        )
    for first, *others in groups:  # one logit for the group: the sum of its probabilities would favor large groups
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
    before = (logits > right) | (
        (logits == right) & (classes < labels[:, None])
    )  # of equal logits the first class wins: constant ones are no hit
    prediction = logits.argmax(1)
    confidence = logits.softmax(1).gather(1, prediction[:, None])[:, 0]
    return {"prediction": prediction.numpy(), "confidence": confidence.numpy(), "rank": before.sum(1).numpy()}


def top_k(rank: np.ndarray, k: int) -> float:
    """Return the top-k accuracy in percent: how often the right class is among the k highest logits, by its rank [N].

    Raises:
        UserError: when k is below 1, or there is no image.
    """
    if k < 1:
        raise UserError("top_k", k, "give at least 1")
    _need_images(rank)
    return 100 * float(np.mean(rank < k))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error in percent (Naeini et al. 2015): how far confidence and accuracy differ.

    The sum over equally wide bins of confidence of (share of the images in the bin) x |accuracy in the bin - mean
    confidence in the bin|.

    Args:
        confidence: of the predicted class, 0 to 1 [N]; rounding above 1 is cut off.
        correct: whether the prediction is right, bool [N].
        bins: number of bins.

    Raises:
        UserError: when there is no image, or fewer bins than 1.
    """
    import torch
    from torchmetrics.functional.classification import binary_calibration_error  # takes seconds to import

    if bins < 1:
        raise UserError("bins", bins, "give at least 1")
    _need_images(confidence)
    shares = torch.from_numpy(np.clip(np.asarray(confidence, dtype=np.float64), 0, 1))
    right = torch.from_numpy(np.asarray(correct, dtype=np.int64))
    return 100 * float(binary_calibration_error(shares, right, n_bins=bins, norm="l1"))


def per_class(labels: np.ndarray, correct: np.ndarray, num_classes: int) -> list[float | None]:
    """Return the accuracy of each class in percent; None for a class without images. labels [N], correct bool [N]."""
    counts = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels, weights=correct, minlength=num_classes)
    return [100 * float(hits) / int(count) if count else None for hits, count in zip(right, counts, strict=True)]


def mean_per_class(labels: np.ndarray, correct: np.ndarray, num_classes: int) -> float:
    """Return the mean accuracy in percent over the classes that have images. labels [N], correct bool [N].

    Raises:
        UserError: when there is no image.
    """
    _need_images(labels)
    return float(np.mean([value for value in per_class(labels, correct, num_classes) if value is not None]))


def confusion_pairs(labels: np.ndarray, predictions: np.ndarray, most: int = 10) -> list[tuple[int, int, int]]:
    """Return the mix-ups as (right class, predicted class, number of images), most frequent first, then by class.
    labels [N], predictions [N]."""
    wrong = labels != predictions
    pairs, counts = np.unique(np.stack([labels[wrong], predictions[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def _need_images(values: np.ndarray) -> None:
    if len(values) == 0:
        raise UserError("images", 0, "give at least one")
