"""How many images each round of an adaptive clone adds to each class.

All numbers follow from the settings and the classifier's accuracies by arithmetic alone, so a loop that is started
again comes to the same ones, and the sum over all rounds is the images that were asked for.

Worked example: 3 classes, 100 images each, 3 rounds, first_share 0.4. After the rounds a class has 40, 70 and 100
images on average. The second round adds 90 images. With floor 0.5, 15 of each class are fixed; 45 are divided in
proportion to errors of 10, 20 and 30 %, which counted with one more are 11, 21 and 31: 8, 15 and 22 images.
"""

from collections.abc import Sequence

import numpy as np

LEAST_ERROR = 1.0  # percent, added to each error, so that a class without errors is not forgotten


def images_after(round_number: int, images_per_class: int, num_rounds: int, first_share: float) -> int:
    """Return the images that a class has on average after a round, 1 to `images_per_class`.

    Args:
        round_number: from 0.
        images_per_class: after the last round.
        num_rounds: 2 or more.
        first_share: of the images, of round 0.
    """
    share = first_share + (1 - first_share) * round_number / (num_rounds - 1)
    return max(1, round(images_per_class * share))


def all_goals(images_per_class: int, num_rounds: int, first_share: float) -> list[int]:
    """Return the images that a class has on average after each round."""
    return [images_after(number, images_per_class, num_rounds, first_share) for number in range(num_rounds)]


def divide(total: int, errors: Sequence[float | None], floor: float) -> np.ndarray:
    """Divide images among classes by their errors; int64 [K], whose sum is `total`.

    Args:
        total: images of the round.
        errors: of each class in percent; one that is unknown counts as the mean of the others.
        floor: share of the images that is divided evenly.
    """
    known = [error for error in errors if error is not None]
    mean = float(np.mean(known)) if known else 0.0
    weights = np.array([mean if error is None else error for error in errors]) + LEAST_ERROR
    shares = floor / len(weights) + (1 - floor) * weights / weights.sum()
    exact = total * shares
    counts = np.floor(exact).astype(np.int64)
    rest = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:rest]] += 1  # those that lost most by rounding down
    return counts
