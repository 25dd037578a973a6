"""Filters, which leave out images of a scored clone when it is read."""

import numpy as np

from raysd.clone.clone import Clone
from raysd.curation.scores import ScoringSpec, read_scores
from raysd.curation.settings import WINDOWS, FilterSettings
from raysd.data.images import LeftOut
from raysd.errors import UserError

OF_IMAGES = ("similarity", "probability", "duplicate_similarity", "test_similarity")
COLUMNS = ("label", "index", *OF_IMAGES, "teacher_guess", *WINDOWS)
"""What filters read of a score table."""


def filter_images(clone: Clone, spec: ScoringSpec, filters: FilterSettings) -> LeftOut:
    """Return the planned images of a scored clone that the filters leave out.

    Raises:
        UserError: the clone has no scores, or a filter needs a score that was not measured.
    """
    _check_measured(spec, filters)
    scores = read_scores(clone, spec)
    counts = clone.counts.array
    columns = {name: scores[name].to_numpy() for name in COLUMNS if name in scores.schema.names}
    planned = clone.is_planned(columns["label"], columns["index"])
    columns = {name: values[planned] for name, values in columns.items()}
    dropped = np.zeros(len(columns["label"]), dtype=bool)
    if filters.min_similarity is not None:
        dropped |= columns["similarity"] < filters.min_similarity
    if filters.min_probability is not None:
        dropped |= columns["probability"] < filters.min_probability
    if filters.max_duplicate is not None:
        dropped |= columns["duplicate_similarity"] > filters.max_duplicate
    if filters.max_test_match is not None:
        dropped |= columns["test_similarity"] > filters.max_test_match
    if filters.best_share is not None:
        dropped |= _beyond_share(columns["label"], columns["similarity"], filters.best_share)
    if filters.agreement:
        dropped |= columns["teacher_guess"] != columns["label"]
    for name in WINDOWS:
        if (window := getattr(filters, name)) is not None:
            groups = np.zeros_like(columns["label"]) if filters.over_all_classes else columns["label"]
            dropped |= ~_inside(groups, columns[name], *window)
    mask = np.zeros(int(counts.max()) * len(counts), dtype=np.uint8)
    mask[columns["index"][dropped] * len(counts) + columns["label"][dropped]] = 1
    return LeftOut(len(counts), np.packbits(mask).tobytes())


def _check_measured(spec: ScoringSpec, filters: FilterSettings) -> None:
    for name in ("min_similarity", "min_probability", "best_share"):
        if getattr(filters, name) is not None and spec.model is None:
            raise UserError(
                f"training.filters.{name}", getattr(filters, name), "needs an image-text model; set scoring.model"
            )
    if (wanted := filters.of_teachers) and spec.faculty is None:
        remedy = "needs teachers; name them in scoring.teachers, and run raysd score with the same configuration"
        raise UserError(f"training.filters.{wanted}", getattr(filters, wanted), remedy)
    if filters.max_test_match is not None and not spec.references:
        raise UserError(
            "training.filters.max_test_match",
            filters.max_test_match,
            "needs a test set to compare with; set scoring.against",
        )


def _beyond_share(labels: np.ndarray, values: np.ndarray, share: float) -> np.ndarray:
    """Return which values are not among the best `share` of their class, rounded up; bool [N]."""
    beyond = np.zeros(len(labels), dtype=bool)
    order = np.lexsort((-values, labels))
    ends = np.cumsum(np.bincount(labels))
    for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        beyond[order[start + int(np.ceil((end - start) * share)) : end]] = True
    return beyond


def _inside(groups: np.ndarray, values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return which values lie between two quantiles of their group, bool [N]: those of the ranks from `low` to `high`
    of the group's size, rounded so that no image is lost at the ends; of equal values the first come first."""
    inside = np.zeros(len(groups), dtype=bool)
    order = np.lexsort((values, groups))
    ends = np.cumsum(np.bincount(groups))
    for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        size = end - start
        first, last = int(np.floor(size * low + 1e-9)), int(np.ceil(size * high - 1e-9))
        inside[order[start + first : start + last]] = True
    return inside
