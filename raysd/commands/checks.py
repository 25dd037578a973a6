"""Checks of an experiment before Ray starts and anything is generated."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raysd.commands.apart import check_apart
from raysd.config import Experiment
from raysd.errors import UserError
from raysd.evaluation.settings import RealSource, TestSet
from raysd.progress import say
from raysd.resolve import clone_spec_of

if TYPE_CHECKING:
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


def check_training(experiment: Experiment) -> None:
    """Check the backbone, the recipe and the names of sets before anything is generated."""
    from raysd.curation.soft_labels import check_teachers
    from raysd.data.real_datasets import check_real_dataset
    from raysd.resolve import source_generations
    from raysd.training.logs import check_logger

    training, evaluation = experiment.training, experiment.evaluation
    check_classes(experiment)
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


def check_classes(experiment: Experiment) -> None:
    """Refuse to train on one class alone.

    Raises:
        UserError: there is one.
    """
    if len(experiment.table) < 2:
        remedy = "is one class, and a classifier tells at least two apart; add one"
        raise UserError("classes", experiment.classes, remedy)


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
