"""Checks that no image is used both to train or to choose, and to measure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from raysd.config import Experiment
from raysd.errors import UserError
from raysd.evaluation.settings import RealSource
from raysd.progress import say

if TYPE_CHECKING:
    from raysd.classifier.exemplars import Exemplars
    from raysd.clone.spec import CloneSpec
    from raysd.data.images import ImageSet


@dataclass(frozen=True)
class _Use:
    """Real images, and the setting that names them."""

    field: str
    name: str
    images: "ImageSet"


MOST_SHARED = 0.01
"""The largest share of a set that may also be used otherwise: published sets hold a few images twice."""


def check_apart(experiment: Experiment, sets: "list[ImageSet]", specs: "Sequence[CloneSpec]" = ()) -> None:
    """Check that no image is used both to train or to choose, and to measure. Sets are compared by their images.

    Args:
        experiment: validated settings.
        sets: that classifiers are trained on.
        specs: of the clones among them; the real exemplars of these count as trained on.

    Raises:
        UserError: a set shares more than 1 % of its images with one that classifiers are trained on or chosen by, or an
            image with the exemplars, or the first images of a set that is trained on overlap with those kept for
            validation.
    """
    guides = [spec.exemplar_guide for spec in specs if spec.exemplar_guide is not None]
    exemplars = {guide.exemplars for guide in guides if guide.exemplars.num_real_images}
    trained = [_Use("training", images.name, images) for images in sets if images.about.get("kind") == "real"]
    chosen = _validation(experiment)
    if chosen and trained:
        _check_validation_count(experiment, chosen[0], trained)
    reported = _reported(experiment) if trained or chosen or exemplars else []
    for used, measured in [*product(trained, [*chosen, *reported]), *product(chosen, reported)]:
        _check_pair(used, measured)
    for each, measured in product(exemplars, [*chosen, *reported]):
        _check_exemplars(each, measured)


def _check_exemplars(exemplars: "Exemplars", measured: _Use) -> None:
    from raysd.data.overlap import count_among
    from raysd.evaluation.exemplars import source_hashes

    if count := count_among(source_hashes(exemplars), measured.images):
        what = f"{count:,} of its {exemplars.num_real_images:,} exemplars are also in {measured.field}"
        remedy = f"{what} = {measured.name}; set another seed, or name other images"
        raise UserError("generation.exemplar_guidance.images", exemplars.source, remedy)


def _check_pair(used: _Use, measured: _Use) -> None:
    from raysd.data.overlap import count_images, count_shared

    count, total = count_shared(used.images, measured.images), count_images(measured.images)
    what = (
        f"what the classifiers are trained on ({used.name})"
        if used.field == "training"
        else f"what is chosen by ({used.field} = {used.name})"
    )
    if count > MOST_SHARED * total:
        reason = (
            f"{count:,} of its {total:,} images are also in {what}; use other images, or split them into train and test"
        )
        raise UserError(measured.field, measured.name, reason)
    if count:
        say(f"{measured.field} = {measured.name}: {count:,} of its {total:,} images are also in {what}")


def _validation(experiment: Experiment) -> list[_Use]:
    """Return the images that a sweep or a training chooses by, if any."""
    from raysd.evaluation.tasks import validation_images

    if (wanted := experiment.evaluation.validation_set) is None:
        return []
    images = validation_images(experiment.root, experiment.evaluation, wanted, experiment.table)
    return [_Use("evaluation.validation_set", wanted.name, images)]


def _reported(experiment: Experiment) -> list[_Use]:
    """Return the images of the test sets, and those of a user's transfer sets that are tested on.

    A built-in transfer set is among them if another setting names it, too; others have splits of their own.
    """
    from raysd.data.catalog import built_in_sets
    from raysd.data.real_datasets import real_dataset

    evaluation, root, found = experiment.evaluation, experiment.root, list[_Use]()
    if (wanted := evaluation.test_set) is not None:
        images = real_dataset(wanted.name, "test", root, path=wanted.path)
        found.append(_Use("evaluation.test_set", wanted.name, images))
    others = {experiment.training.real, experiment.sweep.real}
    others |= {source.real for source in experiment.training.sources}
    others |= set() if (guidance := experiment.generation.exemplar_guidance) is None else {guidance.images}
    others |= set() if evaluation.validation_set is None else {evaluation.validation_set.name}
    further: list[tuple[str, RealSource, bool]] = [
        *((f"evaluation.test_sets.{number}.name", each, False) for number, each in enumerate(evaluation.test_sets)),
        *(
            (f"evaluation.transfer_sets.{number}.name", each, True)
            for number, each in enumerate(evaluation.transfer_sets)
            if each.name in others or each.name not in built_in_sets()
        ),
    ]
    for field, each, halve in further:
        try:
            found.append(_Use(field, each.name, real_dataset(each.name, "test", root, halve=halve, path=each.path)))
        except UserError:
            if not evaluation.skip_absent:
                raise
    return found


def _check_validation_count(experiment: Experiment, chosen: _Use, trained: list[_Use]) -> None:
    """Check that the first images of a set that is trained on end before the last ones, which are for validation.

    Raises:
        UserError: they overlap.
    """
    import numpy as np

    from raysd.data.images import read_labels

    count = experiment.evaluation.validation_images_per_class
    real = {use.images.fingerprint: use.images for use in trained}
    if (learnt := real.get(chosen.images.fingerprint)) is None:
        return
    fewest = int(np.unique(read_labels(learnt), return_counts=True)[1].min())
    taken = learnt.images_per_class if isinstance(learnt.images_per_class, int) else fewest
    if count is None or taken + count > fewest:
        remedy = (
            f"meets the {taken} images of each class that are trained on: a class has only {fewest}; use fewer of "
            "one of them"
        )
        raise UserError("evaluation.validation_images_per_class", count, remedy)
