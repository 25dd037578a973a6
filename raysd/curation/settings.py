"""Scoring and filter settings, as they stand in an experiment file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, le=1)]

Correlation = Annotated[float, Field(ge=-1, le=1)]


class ScoringSettings(BaseModel):
    """What `raysd score` measures of each image."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = None
    """An image-text model of transformers (CLIP, SigLIP): a folder or a hub id. Without one, only near-duplicates
    are looked for."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    template: Annotated[str, Field(min_length=1)] = "a photo of a {name}"
    """The text of a class, over the columns of the class table."""
    against: list[str] = []
    """Real data sets whose test images the clone must not repeat: names or paths, as in `evaluation.test_set`."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64


class FilterSettings(BaseModel):
    """Which images of a scored clone are left out when it is read. A clone is never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_similarity: Correlation | None = None
    """Cosine similarity of an image to its class's text."""
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of its own class among all classes, by the image-text model."""
    best_share: Share | None = None
    """Keep this share of each class, the most similar to its text."""
    max_duplicate: Correlation | None = None
    """Correlation with the thumbnail of an earlier image of its class."""
    max_test_match: Correlation | None = None
    """Correlation with the thumbnail of a test image."""

    def __bool__(self) -> bool:
        """True when anything is filtered."""
        return any(value is not None for value in self.model_dump().values())
