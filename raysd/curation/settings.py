"""Scoring and filter settings of an experiment file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, le=1)]

Correlation = Annotated[float, Field(ge=-1, le=1)]


class ScoringSettings(BaseModel):
    """Scores that `raysd score` measures of each image."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = None
    """An image-text model of transformers (CLIP, SigLIP): folder or hub id; empty: only near-duplicates are found."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    template: Annotated[str, Field(min_length=1)] = "a photo of a {name}"
    """The text of a class, over the columns of the class table."""
    against: list[str] = []
    """Real data sets whose test images the clone must not repeat: names or paths, as in `evaluation.test_set`."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64


class FilterSettings(BaseModel):
    """Limits for the images of a scored clone when it is read. The clone is never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_similarity: Correlation | None = None
    """Least cosine similarity of an image to its class's text."""
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least probability of an image's own class among all classes, by the image-text model."""
    best_share: Share | None = None
    """Share of each class to keep: the images most similar to its text."""
    max_duplicate: Correlation | None = None
    """Largest correlation with the thumbnail of an earlier image of the class."""
    max_test_match: Correlation | None = None
    """Largest correlation with the thumbnail of a test image."""

    def __bool__(self) -> bool:
        """Return whether anything is filtered."""
        return any(value is not None for value in self.model_dump().values())
