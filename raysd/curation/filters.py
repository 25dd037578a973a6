"""Filters, which leave out images of a scored clone when it is read."""

import numpy as np

from raysd.clone.clone import Clone
from raysd.curation.scores import ScoringSpec, read_scores
from raysd.curation.settings import FilterSettings
from raysd.data.images import LeftOut
from raysd.errors import UserError


def filter_images(clone: Clone, spec: ScoringSpec, filters: FilterSettings) -> LeftOut:
    """Return the planned images of a scored clone that the filters leave out.

    Raises:
        UserError: the clone has no scores, or a filter needs a score that was not measured.
    """
    _check_measured(spec, filters)
    scores = read_scores(clone, spec)
    counts = clone.counts.array
    columns = {name: scores[name].to_numpy() for name in scores.schema.names if name not in ("test_match", "guess")}
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
    mask = np.zeros(int(counts.max()) * len(counts), dtype=np.uint8)
    mask[columns["index"][dropped] * len(counts) + columns["label"][dropped]] = 1
    return LeftOut(len(counts), np.packbits(mask).tobytes())


def _check_measured(spec: ScoringSpec, filters: FilterSettings) -> None:
    for name in ("min_similarity", "min_probability", "best_share"):
        if getattr(filters, name) is not None and spec.model is None:
            raise UserError(
                f"training.filters.{name}", getattr(filters, name), "needs an image-text model; set scoring.model"
            )
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
