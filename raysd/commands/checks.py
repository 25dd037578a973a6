"""Checks of an experiment before Ray starts and anything is generated."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from raysd.config import Experiment
from raysd.errors import UserError
from raysd.evaluation.settings import RealSource, TestSet
from raysd.progress import say
from raysd.resolve import clone_spec_of

if TYPE_CHECKING:
    from raysd.classifier.exemplars import Exemplars
    from raysd.clone.clone import Clone
    from raysd.clone.spec import CloneSpec
    from raysd.data.images import ImageSet
    from raysd.diffusion.checkpoint import Lora, Model
    from raysd.prompts.lint import Finding
    from raysd.training.run import TrainingRun


def findings(experiment: Experiment, spec: "CloneSpec") -> "list[Finding]":
    """Return what is suspect about a clone's prompts and its steps; nothing when lint is off."""
    return [*_prompt_findings(experiment, spec), *_step_findings(experiment, [spec])]


def _prompt_findings(experiment: Experiment, spec: "CloneSpec") -> "list[Finding]":
    from raysd.diffusion.tokenizers import prompt_tokenizers
    from raysd.prompts.lint import lint_prompts

    if experiment.lint == "off":
        return []
    found = lint_prompts(spec.variant, spec.table, prompt_tokenizers(spec.model))
    return [finding for finding in found if finding.kind not in experiment.lint_ignore]


def _step_findings(experiment: Experiment, specs: "list[CloneSpec]") -> "list[Finding]":
    from raysd.generation.few_steps import few_step_findings

    return [] if experiment.lint == "off" or "few-steps" in experiment.lint_ignore else few_step_findings(specs)


def check_prompts(experiment: Experiment, specs: "list[CloneSpec]") -> None:
    """Report what is suspect about the prompts of some clones, each variant once with each model, and about the steps
    of each model.

    Raises:
        UserError: something is suspect, and `lint` is `error`.
    """
    suspects = [
        ("generation.variant", spec.variant_name, finding)
        for spec in {(spec.variant_name, spec.model.name): spec for spec in specs}.values()
        for finding in _prompt_findings(experiment, spec)
    ]
    for name in dict.fromkeys(spec.model.name for spec in specs):
        of_model = [spec for spec in specs if spec.model.name == name]
        suspects += [("generation.model", name, finding) for finding in _step_findings(experiment, of_model)]
    for field, value, finding in suspects:
        if experiment.lint == "error":
            raise UserError(field, value, f"{finding}; or set lint=warn, or lint_ignore=[{finding.kind}]")
        say(f"lint: {value}: {finding}")


def check_generation(experiment: Experiment, clones: "Sequence[Clone]") -> None:
    """Check that the storage has room for the missing images of an experiment's clones, and that the nodes of a running
    cluster can generate them.

    Raises:
        UserError: the first check that fails.
    """
    from raysd.clone.scan import missing_shards
    from raysd.cluster.preflight import check_cluster, check_disk
    from raysd.generation.cost import num_bytes
    from raysd.storage.change import is_guarded

    if not is_guarded(experiment.root):
        say(
            f"storage {experiment.root.uri} has no locks and takes no conditional writes: run one job at a "
            "time on a clone"
        )
    check_disk(experiment.root, sum(num_bytes(clone, missing_shards(clone)) for clone in clones))
    check_cluster(experiment.root, experiment.cluster, clones[0].spec.weights)


def checked_run(experiment: Experiment) -> "TrainingRun":
    """Return the training that an experiment with one clone describes; check that its images exist.

    Raises:
        UserError: what is wrong with the settings, the storage, or the images.
    """
    from raysd.resolve import training_clones, training_pools, training_run

    check_training(experiment)
    experiment.root.check_writable()
    pools = training_pools(experiment)
    specs = [clone.spec for clone in training_clones(experiment)]
    check_apart(experiment, [images for pool in pools for images in pool.sets], specs)
    return training_run(experiment, pools)


def checked_runs(experiment: Experiment) -> "list[tuple[int, TrainingRun]]":
    """Return each classifier seed with its training, in their order; the errors are those of `checked_run`."""
    from raysd.resolve import runs_by_seed

    return runs_by_seed(experiment, checked_run)


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


def check_training(experiment: Experiment) -> None:
    """Check the backbone, the recipe and the names of sets before anything is generated."""
    from raysd.curation.soft_labels import check_teachers
    from raysd.data.real_datasets import check_real_dataset
    from raysd.resolve import source_generations
    from raysd.training.logs import check_logger

    training, evaluation = experiment.training, experiment.evaluation
    if len(experiment.table) < 2:
        raise UserError(
            "classes", experiment.classes, "is one class, and a classifier tells at least two apart; add one"
        )
    _check_backbone(experiment)
    check_logger(training.logger)
    named = {
        "training.real": training.real,
        "sweep.real": experiment.sweep.real,
    }
    for number, source in enumerate(training.sources):
        named[f"training.sources.{number}.real"] = source.real
    list(source_generations(experiment))
    check_teachers(training, experiment.scoring)
    if training.validate_epochs and evaluation.validation_set is None:
        raise UserError(
            "training.validate_epochs",
            training.validate_epochs,
            "there is nothing to measure on; name evaluation.validation_set",
        )
    for field, name in named.items():
        if name is not None:
            check_real_dataset(field, name)
    check_sets(experiment)


def check_options(experiment: Experiment) -> None:
    """Check the options that a training passes on, without loading torch where there are none for the backbone.

    Raises:
        UserError: an option that the recipe, a source or the backbone does not have, or a wrong value.
    """
    from raysd.resolve import source_generations

    experiment.training.resolve_recipe()
    list(source_generations(experiment))
    if experiment.training.backbone_options:
        _check_backbone(experiment)


def _check_backbone(experiment: Experiment) -> None:
    from raysd.classifier.architecture import Architecture
    from raysd.classifier.model import check_architecture

    training, recipe = experiment.training, experiment.training.resolve_recipe()
    options = (training.backbone_options, len(experiment.table), training.image_size, training.stem_stride)
    check_architecture(
        Architecture(training.backbone, *options, recipe.projector), recipe.view_sizes(training.image_size)
    )


def check_sets(experiment: Experiment) -> None:
    """Check the names of all sets that classifiers are measured on; with `skip_absent`, further test sets and transfer
    sets that are not available are no error."""
    from raysd.data.real_datasets import check_real_dataset

    evaluation = experiment.evaluation
    named = {"evaluation.test_set": evaluation.test_set, "evaluation.validation_set": evaluation.validation_set}
    for field, own in named.items():
        if own is not None:
            check_real_dataset(field, own.name, own.path, own.class_map)
    if evaluation.skip_absent:
        return
    further: dict[str, Sequence[RealSource]] = {
        "test_sets": evaluation.test_sets,
        "transfer_sets": evaluation.transfer_sets,
    }
    for kind, sets in further.items():
        for number, wanted in enumerate(sets):
            check_real_dataset(
                f"evaluation.{kind}.{number}.name",
                wanted.name,
                wanted.path,
                wanted.class_map if isinstance(wanted, TestSet) else None,
            )


def check_sweep(experiment: Experiment) -> "list[Model | Lora]":
    """Check every setting of a sweep at every rung before anything is generated; return the models that generate, and
    their LoRA weights.

    Raises:
        UserError: what is wrong with the space, a setting, a prompt, the sets, or the batch.
    """
    from raysd.resolve import source_generations
    from raysd.sweep.space import experiment_at, rungs_of, settings_to_check

    rungs = rungs_of(experiment)
    check_objective(experiment)
    if (extra := experiment.sweep.extra_trials) and experiment.training.num_workers > 1:
        remedy = "needs training.num_workers: 1, since a trial with more starts Ray Train, which would not wait"
        raise UserError("sweep.extra_trials", extra, f"{remedy}; leave it out")
    specs, trainings = [], {}
    for setting in settings_to_check(experiment):
        at = experiment_at(experiment, setting, rungs[0])
        trainings[at.training.model_dump_json()] = at
        specs += [clone_spec_of(at), *(clone_spec_of(at, other) for _, other in source_generations(at))]
    for at in trainings.values():
        check_training(at)
        _check_batch(at)
    check_prompts(experiment, specs)
    check_apart(experiment, _real_of_sweep(experiment, rungs[-1].images_per_class), specs)
    if experiment.sweep.proxies:
        _check_proxies(experiment)
    return list({(weights.name, weights.digest): weights for spec in specs for weights in spec.weights}.values())


def _real_of_sweep(experiment: Experiment, images_per_class: int) -> "list[ImageSet]":
    """Return the real images that a sweep trains on, for its baseline or beside each clone."""
    from raysd.data.real_datasets import real_dataset

    wanted = [(source.real, source.images_per_class) for source in experiment.training.sources]
    return [
        real_dataset(name, "train", experiment.root, count, experiment.table)
        for name, count in [(experiment.sweep.real, images_per_class), *wanted]
        if name is not None
    ]


def _check_proxies(experiment: Experiment) -> None:
    """Check that there are features to compare in, and real images to compare with.

    Raises:
        UserError: one of them is missing.
    """
    real, analysis = experiment.sweep.real, experiment.analysis
    if analysis.model is None and real is None:
        raise UserError(
            "sweep.proxies",
            True,
            "needs features to compare in; name a model in analysis.model, or real images in sweep.real",
        )
    if analysis.real is None and experiment.evaluation.validation_set is None and real is None:
        raise UserError("sweep.proxies", True, "needs real images of the classes; name them in analysis.real")


def _check_batch(experiment: Experiment) -> None:
    """Check that a batch is not larger than the training set, and that the workers can share it.

    Raises:
        UserError: the batch is too large, or the workers cannot share it.
    """
    from raysd.training.train import check_batch

    shares = [source.share for source in experiment.training.sources if source.share is not None]
    count = experiment.generation.images_per_class * len(experiment.table)
    check_batch(
        sys.maxsize if experiment.training.sources else count, experiment.training, shares
    )  # what sources hold is known when they are generated


def check_objective(experiment: Experiment) -> None:
    """Check that the experiment names a set for each role in the objective.

    Raises:
        UserError: a role has no set.
    """
    evaluation = experiment.evaluation
    there: dict[str, object]
    there = {"validation": evaluation.validation_set, "test": evaluation.test_set, "transfer": evaluation.transfer_sets}
    there["generated"] = "held-out"
    for role in experiment.sweep.weights:
        if not there[role]:
            raise UserError(
                "sweep.objective",
                experiment.sweep.objective,
                f"evaluation names no {role} set; add one or choose another objective",
            )


def check_resolved(experiment: Experiment, roles: list[str]) -> None:
    """Check that at least one set of each role in the objective is available.

    Raises:
        UserError: all sets of a role were skipped.
    """
    if not set(experiment.sweep.weights) <= set(roles):
        raise UserError(
            "sweep.objective", experiment.sweep.objective, "all of its sets were skipped; give one that is available"
        )
