"""Scoring and filter settings of an experiment file."""

from typing import Annotated

from pydantic import Field

from raysd.settings import Section, Unit

Share = Annotated[float, Field(gt=0, le=1)]

Correlation = Annotated[float, Field(ge=-1, le=1)]


class ScoringSettings(Section):
    """Scores that `raysd score` measures of each image."""

    model: str | None = None
    """Image-text model of transformers (CLIP, SigLIP), a folder or a hub id; when null, only near-duplicates are
    found."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; its default branch when null."""
    template: Annotated[str, Field(min_length=1)] = "a photo of a {name}"
    """Text of a class that its images are compared with, over the columns of the class table."""
    against: list[str] = []
    """Real data sets whose test images the clone must not repeat: names or paths, as in `evaluation.test_set`."""
    batch_size: Annotated[int, Field(ge=1, le=4096), Unit("images")] = 64
    """Images that the image-text model encodes at once."""


class FilterSettings(Section):
    """Limits for the images of a scored clone when it is read. The clone is never changed."""

    min_similarity: Correlation | None = None
    """Least cosine similarity of an image to its class's text."""
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least probability of an image's own class among all classes, by the image-text model."""
    best_share: Share | None = None
    """Share of each class to keep, namely the images that are most similar to its text."""
    max_duplicate: Correlation | None = None
    """Largest correlation with the thumbnail of an earlier image of the class; above it, an image is a
    near-duplicate."""
    max_test_match: Correlation | None = None
    """Largest correlation with the thumbnail of a test image; above it, an image repeats one of `scoring.against`."""

    def __bool__(self) -> bool:
        """Return whether anything is filtered."""
        return any(value is not None for value in self.model_dump().values())
