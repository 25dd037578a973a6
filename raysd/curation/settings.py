"""Scoring and filter settings of an experiment file."""

import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from raysd.settings import Section, Unit

Share = Annotated[float, Field(gt=0, le=1)]

Correlation = Annotated[float, Field(ge=-1, le=1)]

Quantile = Annotated[float, Field(ge=0, le=1)]
Window = tuple[Quantile, Quantile]
TEXTS = "model"
"""Name of the image-text model of `scoring.model` among the teachers."""


def experiment_words(teacher: str) -> list[str]:
    """Return the path and the overrides of an experiment that teaches; nothing where the teacher is something else."""
    try:
        words = shlex.split(teacher)
    except ValueError:
        return []
    return words if words and words[0].endswith((".yaml", ".yml")) else []


class ScoringSettings(Section):
    """Scores that `raysd score` measures of each image."""

    model: str | None = None
    """Image-text model of transformers (CLIP, SigLIP), a folder or a hub id; when null, only near-duplicates are
    found."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; its default branch when null."""
    template: Annotated[str, Field(min_length=1)] = "a photo of a {name}"
    """Text of a class that its images are compared with, over the columns of the class table."""
    teachers: list[Annotated[str, Field(min_length=1)]] = []
    """Classifiers whose mean class distribution is kept of each image: experiment files, as `my.yaml` or `my.yaml
    generation.guidance_scale=2`, with all their classifiers; names or folders of classifiers of raysd; timm classifiers
    as in `evaluation.pretrained`; `model` for the image-text model of `scoring.model`."""
    against: list[str] = []
    """Real data sets whose test images the clone must not repeat: names or paths, as in `evaluation.test_set`."""
    batch_size: Annotated[int, Field(ge=1, le=4096), Unit("images")] = 64
    """Images that the image-text model or a teacher takes at once."""

    @field_validator("teachers")
    @classmethod
    def _in_full(cls, teachers: list[str]) -> list[str]:
        """Return files and folders with their full paths, since trials of a sweep run in folders of their own."""
        found = []
        for teacher in teachers:
            path, *overrides = experiment_words(teacher) or [teacher]
            try:
                is_there = path != TEXTS and "://" not in path and Path(path).expanduser().exists()
            except OSError:
                is_there = False
            path = str(Path(path).expanduser().resolve()) if is_there else path
            found.append(shlex.join([path, *overrides]) if experiment_words(teacher) else path)
        if len(set(found)) < len(found):
            raise ValueError("a teacher is given twice; name each once")
        return found

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier versions did not have while it is at its default, so that fingerprints stay."""
        return {name: value for name, value in dump(self).items() if name != "teachers" or value}


WINDOWS = ("entropy", "margin")


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
    agreement: bool | None = None
    """With true, keep only images whose likeliest class by the teachers is their own."""
    entropy: Window | None = None
    """Window of quantiles of the entropy of the teachers' distribution: [0, 0.8] drops the most uncertain fifth."""
    margin: Window | None = None
    """Window of quantiles of the own class's probability less the largest other one, by the teachers: [0.2, 1] drops
    the worst fifth."""
    over_all_classes: bool | None = None
    """With true, take these quantiles over the whole clone; else in each class, so that all keep the same share."""

    @field_validator(*WINDOWS)
    @classmethod
    def _rising(cls, window: Window | None) -> Window | None:
        if window is not None and window[0] >= window[1]:
            raise ValueError("the first must be less than the second; write it as [0.2, 1]")
        return window

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier versions did not have while it is at its default, so that fingerprints stay."""
        new = {"agreement", *WINDOWS, "over_all_classes"}
        return {name: value for name, value in dump(self).items() if name not in new or value}

    @property
    def of_teachers(self) -> str | None:
        """Name of the first filter that needs teachers; None where none does."""
        return next((name for name in ("agreement", *WINDOWS) if getattr(self, name)), None)

    def __bool__(self) -> bool:
        """Return whether anything is filtered."""
        return any(value is not None for name, value in self.model_dump().items() if name != "over_all_classes")
