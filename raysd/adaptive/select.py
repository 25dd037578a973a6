"""The choice of images from a pool, by the entropy of a classifier's answer.

Of each class, as many images as a round adds are taken from several times as many. Those with little entropy teach
little, and those with the most are often no images of their class; so the window of quantiles in between comes first,
from its upper end on, then what lies below it, then what lies above.

Worked example: 4 of 10 images, entropies 0.0, 0.1, ..., 0.9, window 0.5 to 0.95: the quantile of the image with 0.9 is
0.95, so 0.9, 0.8, 0.7 and 0.6 are chosen; with a window from 0.5 to 0.8 it is 0.7, 0.6, 0.5 and then 0.4. With
agreement, images that the classifier takes for another class come after all that it takes for their own, and the
quantiles are those among the latter.
"""

from dataclasses import dataclass

import numpy as np

from raysd.adaptive.settings import AdaptiveSettings
from raysd.clone.clone import Clone
from raysd.config import Experiment
from raysd.curation.scores import read_scores
from raysd.data.images import LeftOut
from raysd.resolve import resolve_scoring, score_images
from raysd.storage.location import Location


@dataclass(frozen=True)
class Answers:
    """What a classifier says of the images of a pool."""

    labels: np.ndarray
    index: np.ndarray
    entropies: np.ndarray
    """In nats, float [N]."""
    agrees: np.ndarray
    """Whether the likeliest class is the image's own, bool [N]."""


def ask(experiment: Experiment, pool: Clone, classifier: Location) -> Answers:
    """Score the images of a complete pool by a classifier, on Ray where scores are missing.

    Raises:
        UserError: the pool is not complete, or the cluster has no room.
    """
    scoring = experiment.scoring.model_copy(update={"teachers": [classifier.uri], "model": None, "against": []})
    scored = experiment.model_copy(update={"scoring": scoring})
    score_images(scored, pool)
    spec, _ = resolve_scoring(scored)
    table = read_scores(pool, spec)
    columns = ("label", "index", "entropy", "teacher_guess")
    labels, index, entropies, guesses = (table[name].to_numpy() for name in columns)
    planned = pool.is_planned(labels, index)
    return Answers(labels[planned], index[planned], entropies[planned], (guesses == labels)[planned])


def choose(
    answers: Answers, left_out: LeftOut, size: int, first: int, count: int, settings: AdaptiveSettings
) -> LeftOut:
    """Return what is left out of a pool once `count` images of each class were chosen among those from number `first`
    on; what was left out of the earlier ones stays so, and what was dropped is left out. A class with fewer images
    gives all.

    Args:
        answers: of all images of the pool.
        left_out: of the images before `first`.
        size: planned images of each class of the pool.
        first: number of the first image of each class that may be chosen.
        count: images to choose of each class.
        settings: the window of quantiles of the entropy of a class, and whether those of their own class come first.
    """
    num_classes = left_out.num_classes
    places = answers.index * num_classes + answers.labels
    mask = np.ones(size * num_classes, dtype=np.uint8)
    earlier = answers.index < first
    mask[places[earlier]] = left_out.contains(answers.labels[earlier], answers.index[earlier])
    for label in range(num_classes):
        mine = np.flatnonzero((answers.labels == label) & (answers.index >= first))
        order = mine[np.lexsort((answers.index[mine], answers.entropies[mine]))]
        groups = [order]
        if settings.agreement:
            groups = [order[answers.agrees[order]], order[~answers.agrees[order]]]
        ranked = np.concatenate([group[preferred(len(group), settings.window)] for group in groups])
        mask[places[ranked[:count]]] = 0
    return LeftOut(num_classes, np.packbits(mask).tobytes())


def preferred(size: int, window: tuple[float, float]) -> np.ndarray:
    """Return the ranks of `size` images, rising by entropy, in the order in which they are chosen; int64 [size]."""
    ranks = np.arange(size)
    quantiles = (ranks + 0.5) / max(1, size)
    below, above = quantiles < window[0], quantiles > window[1]
    inside = ranks[~below & ~above]
    return np.concatenate([inside[::-1], ranks[below][::-1], ranks[above]])
