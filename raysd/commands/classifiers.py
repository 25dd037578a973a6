"""The verbs that train classifiers and measure them."""

from dataclasses import replace
from typing import TYPE_CHECKING

from raysd.cluster.preflight import check_cluster
from raysd.commands.checks import check_further_sets, checked_run
from raysd.config import Experiment
from raysd.errors import UserError
from raysd.progress import say
from raysd.storage.rows import ACCURACY, ANALYSIS, COMPARISON, AnalysisRow, ComparisonRow, MeasuredRow

if TYPE_CHECKING:
    from raysd.evaluation.models import EvaluatedModel
    from raysd.training.run import TrainingRun

ROLE_NAMES = {"shift": "test"}


def train(experiment: Experiment) -> list[str]:
    """Train a classifier per seed on the experiment's clone, or on `training.real`; returns their fingerprints."""
    from raysd.training.train import train_classifiers

    run = checked_run(experiment)
    check_cluster(experiment.root, experiment.cluster)
    fingerprints = train_classifiers(run)
    for seed in experiment.training.seeds:
        say(f"classifier of seed {seed}: {run.folder(seed).uri}")
    say("next: raysd evaluate, with the same configuration")
    return fingerprints


def evaluate(experiment: Experiment, command: str = "") -> list[MeasuredRow]:
    """Measure the experiment's classifiers, and the pretrained ones beside them; returns the result rows.

    Raises:
        UserError: nothing to measure, or nothing to measure on; a set that cannot be had.
    """
    from raysd.evaluation.evaluate import Evaluation

    _check_sets(experiment)
    models = _evaluated_models(experiment)
    evaluation = Evaluation(experiment.root, experiment.evaluation, experiment.table, command)
    check_cluster(experiment.root, experiment.cluster)
    for name, reason in evaluation.skipped.items():
        say(f"skipped  {name}: {reason}")
    if not evaluation.sets:
        raise UserError("evaluation.skip_absent", True, "all sets were skipped; give one that can be had")
    rows = evaluation.measure_all(models)
    for row in rows:
        say(_described(row))
    for model in models:
        _say_means(
            model,
            [row for row in rows if row["classifier"] == model.fingerprint and row["role"] == "transfer"],
            list(evaluation.skipped),
        )
    say(f"rows lie in {experiment.root.child('results', ACCURACY.name).uri}")
    say("next: raysd sweep, to compare guidance scales and prompts, or raysd compare, for two settings")
    return rows


def compare(experiment: Experiment, other: Experiment, command: str = "") -> list[ComparisonRow]:
    """Compare the classifiers of two settings on the sets of the first one, image by image; returns a row per set.

    Raises:
        UserError: classifiers or images that are not there.
    """
    from raysd.evaluation.compare import compare_classifiers
    from raysd.evaluation.evaluate import Evaluation

    _check_sets(experiment)
    if experiment.table.keys != other.table.keys:
        raise UserError("with", "classes", "only settings with the same class table can be compared")
    check_cluster(experiment.root, experiment.cluster)
    ours, theirs = (_own_models(checked_run(each), each) for each in (experiment, other))
    if {model.fingerprint for model in ours} == {model.fingerprint for model in theirs}:
        raise UserError("with", "", "both settings have the same classifiers; change something that shapes them")
    evaluation = Evaluation(experiment.root, experiment.evaluation, experiment.table, command)
    for name, reason in evaluation.skipped.items():
        say(f"skipped  {name}: {reason}")
    both = [evaluation.measure_all(models) for models in (ours, theirs)]
    for failed in [row for rows in both for row in rows if row["value"] is None]:
        say(_described(failed))
    rows = compare_classifiers(evaluation, both[0], both[1], command)
    for row in rows:
        gap = f"{row['difference']:+.2f} points ({row['low']:+.2f} to {row['high']:+.2f}), p = {row['p_value']:.2g}"
        say(
            f"{_set_name(row)}: top-1 {row['a']['top1']:.2f} % against {row['b']['top1']:.2f} %, {gap}: "
            f"{row['verdict']}"
        )
    if rows and not rows[0]["counts_seeds"]:
        say(
            "each side has one seed, so what another seed would change is not in the intervals; train with "
            "training.seeds=[0,1,2]"
        )
    say(f"rows lie in {experiment.root.child('results', COMPARISON.name).uri}")
    return rows


def analyze(experiment: Experiment, command: str = "") -> list[AnalysisRow]:
    """Analyze the classifiers' features, and the clone against real images; returns the rows.

    Raises:
        UserError: no real images are named, or a classifier, a clone or a model is not there.
    """
    from raysd.data.real_datasets import real_dataset
    from raysd.evaluation.analyze import analyze_features, compare_clone
    from raysd.evaluation.models import pretrained_model
    from raysd.resolve import training_pools

    settings, evaluation = experiment.analysis, experiment.evaluation
    name = settings.real or evaluation.validation_set or evaluation.test_set
    if name is None:
        raise UserError("analysis.real", None, "name a set of real images of the classes")
    check_cluster(experiment.root, experiment.cluster)
    judge = None if settings.model is None else pretrained_model(settings.model, experiment.table, needs_classes=False)
    clone = None
    if judge is not None:
        clone = next(
            (images for pool in training_pools(experiment) for images in pool.sets if images.about["kind"] == "clone"),
            None,
        )
        if clone is None:
            raise UserError(
                "analysis.model", settings.model, "compares a clone, and the training names none; leave it out"
            )
    models = _evaluated_models(experiment)
    is_validation = name == evaluation.validation_set and settings.real is None
    real = real_dataset(name, "train" if is_validation else "test", experiment.root, table=experiment.table)
    real = replace(real, images_per_class=settings.images_per_class, from_end=is_validation)
    rows = [analyze_features(experiment.root, model, real, command) for model in models]
    if judge is not None and clone is not None:
        rows.append(
            compare_clone(
                experiment.root,
                judge,
                replace(clone, images_per_class=settings.images_per_class),
                real,
                settings,
                command,
            )
        )
    for row in rows:
        values = ", ".join(
            f"{key.replace('_', ' ')} {value:.4g}" for key, value in row["values"].items() if value is not None
        )
        what = row["trained_on"]["name"] if row["kind"] == "features" else " against ".join(row["datasets"])
        say(f"{what}, seed {row['seed']}: {values}")
    if judge is None:
        say("to compare the clone with the real images, name a model in analysis.model")
    say(f"rows lie in {experiment.root.child('results', ANALYSIS.name).uri}")
    return rows


def _check_sets(experiment: Experiment) -> None:
    settings = experiment.evaluation
    if not (settings.test_set or settings.test_sets or settings.transfer_sets or settings.validation_set):
        raise UserError("evaluation.test_set", None, "nothing to measure on; name a test set or transfer sets")
    check_further_sets(experiment)


def _evaluated_models(experiment: Experiment) -> "list[EvaluatedModel]":
    """Return the experiment's classifiers and the pretrained ones; those alone where nothing was trained."""
    from raysd.evaluation.models import pretrained_model
    from raysd.training.architecture import load_record

    settings = experiment.evaluation
    needs_classes = bool(settings.test_set or settings.test_sets or settings.validation_set)
    others = [pretrained_model(name, experiment.table, needs_classes) for name in settings.pretrained]
    try:
        run = checked_run(experiment)
    except UserError as error:
        if not others:
            raise
        say(f"only the pretrained classifiers: {error}")
        return others
    if others and all(load_record(run.folder(seed)) is None for seed in experiment.training.seeds):
        say("only the pretrained classifiers: the experiment's own are not trained yet")
        return others
    return [*_own_models(run, experiment), *others]


def _own_models(run: "TrainingRun", experiment: Experiment) -> "list[EvaluatedModel]":
    from raysd.evaluation.models import own_model
    from raysd.training.architecture import load_record

    for seed in experiment.training.seeds:
        if load_record(run.folder(seed)) is None:
            raise UserError(
                "training.seeds",
                seed,
                "no classifier of this seed yet; run raysd train with the same configuration first",
            )
    return [own_model(experiment.root, run.fingerprint(seed)) for seed in experiment.training.seeds]


def _described(row: MeasuredRow) -> str:
    name = row["trained_on"]["name"] if row["trained_on"]["kind"] == "pretrained" else f"seed {row['seed']}"
    start = f"{name}  {ROLE_NAMES.get(row['role'], row['role']):<10} {_set_name(row)}:"
    if row["value"] is None:
        return f"{start} failed: {row['error']}"
    metric = "top-1" if row["metric"] == "top1" else "mean per class"
    text = f"{start} {metric} {row['value']:.2f} % ({row['low']:.2f} to {row['high']:.2f})"
    if row.get("top5") is not None:
        text += f", top-5 {row['top5']:.2f} %"
    if (masked := row.get("masked")) is not None:
        text += f"; over its {masked['num_classes']} classes alone top-1 {masked['value']:.2f} %"
    return text + (f"; {row['num_left_out']:,} images of other classes left out" if row["num_left_out"] else "")


def _set_name(row: MeasuredRow | ComparisonRow) -> str:
    shots = [f"{row['shots']} shots"] if row["shots"] else []
    return ", ".join([row["dataset"], *shots, *([row["probe_label"]] if row["probe_label"] else [])])


def _say_means(model: "EvaluatedModel", rows: list[MeasuredRow], skipped: list[str]) -> None:
    from raysd.statistics.means import mean_log_odds, mean_over_sets

    mean = mean_over_sets({**dict.fromkeys(skipped), **{_set_name(row): row["value"] for row in rows}})
    if len(mean.used) < 2 or mean.mean is None:
        return
    good = [row for row in rows if row["value"] is not None]
    odds = mean_log_odds([row["value"] for row in good], [row["num_images"] for row in good])
    missing = f"; not in it: {', '.join(mean.missing)}" if mean.missing else ""
    say(
        f"seed {model.about['seed']}  mean over {len(mean.used)} transfer sets: {mean.mean:.2f} %, log-odds "
        f"{odds:.3f}{missing}"
    )
