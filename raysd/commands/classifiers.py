"""The commands that train classifiers and measure them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from raysd.cluster.preflight import check_cluster
from raysd.commands.answers.classifier import TrainedClassifier
from raysd.commands.answers.rows import ResultRows
from raysd.commands.checks import check_sets, checked_runs
from raysd.commands.held_out import generate_held_out, held_out_clones, held_out_sets, names_real_images
from raysd.commands.show import describe_row
from raysd.config import Experiment, ExperimentLike, load_experiment
from raysd.errors import Failure, UserError, try_again
from raysd.progress import say
from raysd.resolve import replicates
from raysd.storage.row_types.measured import AnalysisRow, ComparisonRow, MeasuredRow
from raysd.storage.rows import ACCURACY, ANALYSIS, COMPARISON

SETS = ("test_set", "test_sets", "validation_set", "validation_images_per_class", "transfer_sets")
NOT_SHAPING = {"seeds", "min_workers", "cpus_per_worker", "checkpoint_steps", "validate_epochs", "logger"}
"""Settings of training that do not say how well a classifier can do."""

if TYPE_CHECKING:
    from raysd.evaluation.compare import Costs
    from raysd.evaluation.models import EvaluatedModel
    from raysd.evaluation.tasks import MeasuredOn
    from raysd.training.run import TrainingRun


def train(experiment: ExperimentLike = None, **values: Any) -> list[TrainedClassifier]:
    """Train a classifier per seed on the experiment's clone, or its clones of several seeds, or on `training.real`.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        values: keys of the experiment file, as `training={"seeds": [0, 1]}`; merged into `experiment`.

    Raises:
        UserError: missing images, or what is wrong with `training`.
    """
    from raysd.classifier.architecture import load_record
    from raysd.storage.attempts import Attempt
    from raysd.training.run import distinct_runs
    from raysd.training.train import train_classifiers

    experiment = load_experiment(experiment, **values)
    runs = checked_runs(experiment)
    check_cluster(experiment.root, experiment.cluster)
    for run in distinct_runs(runs):
        is_there = all(load_record(run.folder(seed)) is not None for seed in run.settings.seeds)
        with nullcontext() if is_there else Attempt(experiment.root, f"training {run.name}"):
            train_classifiers(run)
    return [TrainedClassifier(seed, run.fingerprint(seed), run.folder(seed), experiment.root) for seed, run in runs]


def evaluate(experiment: ExperimentLike = None, command: str = "", **values: Any) -> ResultRows[MeasuredRow]:
    """Measure the experiment's classifiers, and the pretrained ones beside them.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        command: what the rows name as the command that made them.
        values: keys of the experiment file, merged into `experiment`.

    Raises:
        UserError: nothing to measure, or nothing to measure on; a set that is not available.
    """
    from raysd.evaluation.evaluate import Evaluation
    from raysd.tracking.evaluation_log import log_evaluation

    experiment = load_experiment(experiment, **values)
    check_sets(experiment)
    models = _evaluated_models(experiment)
    evaluation = Evaluation(experiment.root, experiment.evaluation, experiment.table, command)
    check_cluster(experiment.root, experiment.cluster)
    evaluation = evaluation.with_sets(_held_out([experiment]))
    for name, reason in evaluation.skipped.items():
        say(f"skipped  {name}: {reason}")
    if not evaluation.sets:
        raise UserError("evaluation.skip_absent", True, "all sets were skipped; give one that is available")
    rows = evaluation.measure_all(models)
    log_evaluation(experiment.training.logger, experiment.root, rows)
    folder = experiment.root.child("results", ACCURACY.name)
    return ResultRows(tuple(rows), folder.uri, evaluation.skipped, _failures(rows))


def compare(experiment: ExperimentLike, other: ExperimentLike, command: str = "") -> ResultRows[ComparisonRow]:
    """Compare the classifiers of two settings on the same sets, image by image: a row per set. Where they learned from
    different clones, the rows also say what generating these took.

    Args:
        experiment: an experiment, the path of its file, or a mapping.
        other: the other setting.
        command: what the rows name as the command that made them.

    Raises:
        UserError: missing classifiers or images, or settings that name different sets.
    """
    from raysd.evaluation.compare import compare_classifiers
    from raysd.evaluation.evaluate import Evaluation

    experiment, other = load_experiment(experiment), load_experiment(other)
    check_sets(experiment)
    if experiment.table.keys != other.table.keys:
        raise UserError("with", "classes", "only settings with the same class table can be compared")
    for field in SETS:
        ours_named, theirs_named = (getattr(each.evaluation, field) for each in (experiment, other))
        if ours_named != theirs_named:
            raise UserError("with", f"evaluation.{field}", "compare both settings on the same sets; leave it out")
    check_cluster(experiment.root, experiment.cluster)
    ours, theirs = (_own_models(checked_runs(each), each) for each in (experiment, other))
    if {model.fingerprint for model in ours} == {model.fingerprint for model in theirs}:
        raise UserError("with", "", "both settings have the same classifiers; change something that shapes them")
    evaluation = Evaluation(experiment.root, experiment.evaluation, experiment.table, command)
    evaluation = evaluation.with_sets(_held_out([experiment, other]))
    for name, reason in evaluation.skipped.items():
        say(f"skipped  {name}: {reason}")
    both = [evaluation.measure_all(models) for models in (ours, theirs)]
    failed = _failures([*both[0], *both[1]])
    rows = compare_classifiers(evaluation, both[0], both[1], command, costs=_costs(experiment, other))
    return ResultRows(tuple(rows), experiment.root.child("results", COMPARISON.name).uri, evaluation.skipped, failed)


def _costs(experiment: Experiment, other: Experiment) -> "Costs | None":
    """Return what generating the clones of two settings took; None where they learn from the same ones, or from real
    images."""
    from raysd.evaluation.compare import Costs
    from raysd.generation.cost import clones_cost, read_rates
    from raysd.resolve import training_clones

    ours, theirs = (training_clones(each) for each in (experiment, other))
    same = [(clone.spec.fingerprint, clone.counts) for clone in ours] == [
        (clone.spec.fingerprint, clone.counts) for clone in theirs
    ]
    if same or not ours or not theirs:
        return None
    shaping = [each.training.model_dump(exclude=NOT_SHAPING) for each in (experiment, other)]
    refused = None if shaping[0] == shaping[1] else "the settings of training differ too"
    rates = read_rates(experiment.root)
    return Costs(clones_cost(ours, rates), clones_cost(theirs, rates), refused)


def analyze(experiment: ExperimentLike = None, command: str = "", **values: Any) -> ResultRows[AnalysisRow]:
    """Analyze the classifiers' features, and the clone against real images.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        command: what the rows name as the command that made them.
        values: keys of the experiment file, merged into `experiment`.

    Raises:
        UserError: no real images are named, or a classifier, a clone or a model is missing.
        Failure: every analysis failed.
    """
    from raysd.evaluation.analyze import analyze_features, compare_clone
    from raysd.evaluation.models import pretrained_model
    from raysd.evaluation.tasks import class_images
    from raysd.resolve import training_pools

    experiment = load_experiment(experiment, **values)
    settings, evaluation = experiment.analysis, experiment.evaluation
    wanted = settings.real or evaluation.validation_set or evaluation.test_set
    if wanted is None and (settings.model is not None or names_real_images(experiment)):
        raise UserError("analysis.real", None, "name a set of real images of the classes")
    check_cluster(experiment.root, experiment.cluster)
    judge = None if settings.model is None else pretrained_model(settings.model, experiment.table, needs_classes=False)
    clones = []
    if judge is not None:
        pools = [training_pools(each) for each in replicates(experiment)]
        found = [[images for pool in own for images in pool.sets if images.about["kind"] == "clone"] for own in pools]
        if not all(found):
            raise UserError(
                "analysis.model", settings.model, "compares a clone, and the training names none; leave it out"
            )
        clones = list({images[0].fingerprint: images[0] for images in found}.values())
    models = _evaluated_models(experiment)
    is_validation = wanted is not None and settings.real is None and wanted == evaluation.validation_set
    if wanted is None:
        real = _held_out([experiment])[0].images
        say("the features are those of held-out generated images; name real ones in analysis.real")
    else:
        real = class_images(experiment.root, wanted, "train" if is_validation else "test", experiment.table)
    real = replace(real, images_per_class=settings.images_per_class, from_end=is_validation)
    root = experiment.root
    jobs: dict[str, Callable[[], AnalysisRow]] = {
        f"features of classifier {model.fingerprint}": partial(analyze_features, root, model, real, command)
        for model in models
    }
    if judge is not None:
        for clone in clones:
            images = replace(clone, images_per_class=settings.images_per_class)
            jobs[f"clone {clone.fingerprint}"] = partial(compare_clone, root, judge, images, real, settings, command)
    rows, failed = list[AnalysisRow](), list[str]()
    for what, job in jobs.items():
        try:
            rows.append(try_again(job))
        except Failure as error:
            failed.append(f"{what}: {error}")
    if not rows:
        raise Failure(failed[0])
    return ResultRows(tuple(rows), root.child("results", ANALYSIS.name).uri, failed=tuple(failed))


analyse = analyze


def _failures(rows: Sequence[MeasuredRow]) -> tuple[str, ...]:
    """Return a line for each measurement that failed."""
    return tuple(describe_row(row) for row in rows if row["value"] is None)


def _held_out(experiments: list[Experiment]) -> "list[MeasuredOn]":
    """Generate and return the held-out images of some experiments if the first one names no real images."""
    if names_real_images(experiments[0]):
        return []
    clones = held_out_clones([part for each in experiments for part in replicates(each)[:1]])
    experiments[0].root.check_writable()
    generate_held_out(experiments[0], clones)
    return held_out_sets(clones)


def _evaluated_models(experiment: Experiment) -> "list[EvaluatedModel]":
    """Return the experiment's classifiers and the pretrained ones; those alone where nothing was trained."""
    from raysd.classifier.architecture import load_record
    from raysd.evaluation.models import pretrained_model

    settings = experiment.evaluation
    needs_classes = bool(settings.test_set or settings.test_sets or settings.validation_set)
    needs_classes |= not names_real_images(experiment)
    others = [pretrained_model(name, experiment.table, needs_classes) for name in settings.pretrained]
    try:
        runs = checked_runs(experiment)
    except UserError as error:
        if not others:
            raise
        say(f"only the pretrained classifiers: {error}")
        return others
    if others and all(load_record(run.folder(seed)) is None for seed, run in runs):
        say("only the pretrained classifiers: the experiment's own are not trained yet")
        return others
    return [*_own_models(runs, experiment), *others]


def _own_models(runs: "list[tuple[int, TrainingRun]]", experiment: Experiment) -> "list[EvaluatedModel]":
    from raysd.classifier.architecture import load_record
    from raysd.evaluation.models import own_model

    for seed, run in runs:
        if load_record(run.folder(seed)) is None:
            raise UserError(
                "training.seeds",
                seed,
                "no classifier of this seed yet; run raysd train with the same configuration first",
            )
    return [own_model(experiment.root, run.fingerprint(seed)) for seed, run in runs]
