"""Soft labels of a scored clone for a training."""

from dataclasses import replace
from typing import TYPE_CHECKING

from raysd.clone.clone import Clone
from raysd.curation.scores import ScoringSpec
from raysd.curation.settings import ScoringSettings
from raysd.data.images import ImageSet
from raysd.data.soft_labels import SoftLabels
from raysd.errors import UserError
from raysd.training.recipe import Recipe

if TYPE_CHECKING:
    from raysd.training.settings import TrainingSettings

FIELD = "training.recipe_options.soft_weight"
NO_TEACHERS = "needs teachers; name them in scoring.teachers, and run raysd score with the same configuration"


def check_teachers(training: "TrainingSettings", scoring: ScoringSettings) -> None:
    """Check that what a training wants of teachers can be had, before anything is generated.

    Raises:
        UserError: soft labels or filters without teachers, or soft labels of real images, which have no scores.
    """
    weight = training.resolve_recipe().soft_weight
    real = [training.real, *(source.real for source in training.sources)]
    if weight and (named := next((name for name in real if name is not None), None)):
        remedy = f"the real images of {named} have no scores, and so no teacher; set it to 0, or train on clones alone"
        raise UserError(FIELD, weight, remedy)
    if scoring.teachers:
        return
    if weight:
        raise UserError(FIELD, weight, NO_TEACHERS)
    filters = {"training.filters": training.filters}
    filters |= {f"training.sources.{number}.filters": each.filters for number, each in enumerate(training.sources)}
    for field, each in filters.items():
        if (name := each.of_teachers) is not None:
            raise UserError(f"{field}.{name}", getattr(each, name), NO_TEACHERS)


def with_soft_labels(images: ImageSet, clone: Clone, spec: ScoringSpec, recipe: Recipe) -> ImageSet:
    """Return the images of a scored clone with what the teachers said of them.

    Raises:
        UserError: there are no teachers, or the clone has no scores of theirs.
    """
    if spec.faculty is None:
        raise UserError(FIELD, recipe.soft_weight, NO_TEACHERS)
    spec.check_scored(clone)
    soft = SoftLabels(spec.folder(clone).child("parts"), len(clone.spec.table), spec.fingerprint)
    loss = {"weight": recipe.soft_weight, "temperature": recipe.soft_temperature}
    about = {**images.about, "teacher": {**spec.teachers(), **loss}}
    return replace(images, name=f"{images.name}, soft labels", soft_labels=soft, about=about)
