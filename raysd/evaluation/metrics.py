"""What is counted of predictions: accuracies, calibration and mix-ups.

It starts from what is stored of each picture: its label, the predicted class, the confidence (softmax of the predicted class) and the
rank of the right class among the sorted logits, 0 for the highest one.
"""

import numpy as np

from raysd.errors import UserError


def top_k(rank: np.ndarray, k: int) -> float:
    """Top-k accuracy in percent: how often the right class is among the k highest logits, by its rank [N].

    Raises:
        UserError: when k is below 1, or there is no picture.
    """
    if k < 1:
        raise UserError("top_k", k, "give at least 1")
    _need_pictures(rank)
    return 100 * float(np.mean(rank < k))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error in percent (Naeini et al. 2015): how far confidence and accuracy lie apart.

    The sum over equally wide bins of confidence of (share of the pictures in the bin) x |accuracy in the bin - mean confidence in the bin|.

    Args:
        confidence: of the predicted class, 0 to 1 [N]; rounding above 1 is cut off.
        correct: whether the prediction is right, bool [N].
        bins: number of bins.

    Raises:
        UserError: when there is no picture, or fewer bins than 1.
    """
    import torch
    from torchmetrics.functional.classification import binary_calibration_error  # takes seconds to import

    if bins < 1:
        raise UserError("bins", bins, "give at least 1")
    _need_pictures(confidence)
    shares = torch.from_numpy(np.clip(np.asarray(confidence, dtype=np.float64), 0, 1))
    right = torch.from_numpy(np.asarray(correct, dtype=np.int64))
    return 100 * float(binary_calibration_error(shares, right, n_bins=bins, norm="l1"))


def per_class(labels: np.ndarray, correct: np.ndarray, num_classes: int) -> list[float | None]:
    """Accuracy of each class in percent; None for a class without pictures. labels [N], correct bool [N]."""
    counts = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels, weights=correct, minlength=num_classes)
    return [100 * float(hits) / int(count) if count else None for hits, count in zip(right, counts, strict=True)]


def mean_per_class(labels: np.ndarray, correct: np.ndarray, num_classes: int) -> float:
    """Mean in percent of the accuracies of those classes that have pictures. labels [N], correct bool [N].

    Raises:
        UserError: when there is no picture.
    """
    _need_pictures(labels)
    return float(np.mean([value for value in per_class(labels, correct, num_classes) if value is not None]))


def confusion_pairs(labels: np.ndarray, predictions: np.ndarray, most: int = 10) -> list[tuple[int, int, int]]:
    """The mix-ups as (right class, predicted class, number of pictures), most frequent first, then by class; labels [N], predictions [N]."""
    wrong = labels != predictions
    pairs, counts = np.unique(np.stack([labels[wrong], predictions[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def _need_pictures(values: np.ndarray) -> None:
    if len(values) == 0:
        raise UserError("pictures", 0, "give at least one")
