"""The commands that compare settings and report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysd.commands.answers.sweep import SweepAnswer, WrittenReport
from raysd.commands.checks import check_resolved, check_sweep
from raysd.commands.held_out import GENERATED, generate_held_out, held_out_clones, held_out_sets, with_objective
from raysd.config import CommandLine, Experiment, ExperimentLike, load_experiment
from raysd.progress import say
from raysd.storage.row_types.measured import AccuracyRow
from raysd.storage.row_types.sweep import SweepRow
from raysd.storage.rows import ACCURACY, find_row

if TYPE_CHECKING:
    from raysd.clone.clone import Clone

DEMO = Path(__file__).parent.parent / "assets" / "demo.yaml"
BEST = "best.yaml"
FIRST_LOOK = "first_look.png"
MOST_COLUMNS = 8  # settings in the first look


def sweep(experiment: ExperimentLike = None, command: str = "", **values: Any) -> SweepAnswer:
    """Run or continue the sweep, and write its report.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        command: what the rows name as the command that made them.
        values: keys of the experiment file, merged into `experiment`.

    Raises:
        UserError: what is wrong with the settings, the cluster, the storage or an image.
    """
    from raysd.cluster.preflight import check_cluster
    from raysd.evaluation.evaluate import Evaluation
    from raysd.sweep.best_config import best_config
    from raysd.sweep.sweep import run_sweep
    from raysd.tracking.evaluation_log import log_evaluation
    from raysd.tracking.sweep_log import SweepLog

    experiment = with_objective(load_experiment(experiment, **values))
    models = check_sweep(experiment)
    experiment.root.check_writable()
    evaluation = Evaluation(
        experiment.root, experiment.evaluation, experiment.table, command
    )  # all real images are there, before anything is generated
    held_out = _held_out(experiment)
    evaluation = evaluation.with_sets(held_out_sets(held_out))
    check_resolved(experiment, [measured.role for measured in evaluation.sets])
    check_cluster(experiment.root, experiment.cluster, models)
    generate_held_out(experiment, held_out)
    log = SweepLog(experiment)
    row = run_sweep(experiment, evaluation, log.add)
    log.finish(row)
    log_evaluation(experiment.training.logger, experiment.root, _accuracies(experiment, row))
    folder, best = experiment.root.child("reports", row["fingerprint"]), row["best"]
    how = ", with fresh seeds" if "search_score" in best else ""
    note = (
        f"The best of {len(row['clones'])} settings: {best['label']}, {best['score']:.1f} % at "
        f"{best['images_per_class']} images per class{how}. {command}"
    )
    folder.write(BEST, best_config(experiment, best["setting"], row["images_per_class"], note).encode())
    return SweepAnswer(row, folder.child(BEST).uri, _write_report(experiment, row["fingerprint"]))


def _accuracies(experiment: Experiment, row: SweepRow) -> list[AccuracyRow]:
    found = (find_row(experiment.root, ACCURACY, fingerprint) for fingerprint in row["rows"])
    return [row for row in found if row is not None]


def _held_out(experiment: Experiment) -> "list[Clone]":
    """Return the held-out clones of a sweep that chooses by generated images."""
    from raysd.sweep.space import experiment_at, rungs_of, settings_to_check

    if GENERATED not in experiment.sweep.weights:
        return []
    rung = rungs_of(experiment)[0]
    return held_out_clones([experiment_at(experiment, each, rung) for each in settings_to_check(experiment)])


def report(experiment: ExperimentLike = None, sweep_fingerprint: str | None = None, **values: Any) -> WrittenReport:
    """Write the report of a sweep, or of all results where there is no sweep.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        sweep_fingerprint: the sweep's; the newest when None.
        values: keys of the experiment file, as `storage="s3://bucket/runs"`; merged into `experiment`.

    Raises:
        UserError: no such sweep, or no results at all.
    """
    return _write_report(load_experiment(experiment, **values), sweep_fingerprint)


def _write_report(experiment: Experiment, sweep_fingerprint: str | None) -> WrittenReport:
    from raysd.report.page import write_report

    return WrittenReport(write_report(experiment.root, sweep=sweep_fingerprint))


def demo(overrides: list[str] | None = None) -> SweepAnswer:
    """Run the whole path on the embedded model and real images, on a laptop, in minutes."""
    overrides = overrides or []
    experiment = load_experiment(DEMO, overrides)
    check_sweep(experiment.model_copy(update={"lint": "off"}))  # the sweep itself says what is suspect
    experiment.root.check_writable()
    say(f"a first look at the images: {first_look(experiment)}")
    return sweep(experiment, CommandLine(overrides=tuple(overrides)).command("demo"))


def first_look(experiment: Experiment) -> str:
    """Generate the first shard of each clone of a sweep, which goes on with them, and return the file with a grid of
    their images: the same noise in each setting."""
    from raysd.generation.generate import generate_clones
    from raysd.report.plots.grid import GridColumn, sample_grid
    from raysd.report.samples.samples import read_samples
    from raysd.resolve import clone_of
    from raysd.sweep.space import experiment_at, rungs_of, settings_to_check

    folder = experiment.root.child("reports")
    if folder.exists(FIRST_LOOK):
        return folder.file(FIRST_LOOK)
    settings, clones = settings_to_check(experiment)[:MOST_COLUMNS], []
    for setting in settings:
        at = experiment_at(experiment, setting, rungs_of(experiment)[0])
        count = max(1, min(at.generation.images_per_class, at.generation.images_per_shard // len(at.table)))
        small = at.generation.model_copy(update={"images_per_class": count, "class_counts": {}})
        clones.append(clone_of(at, small))
    generate_clones(clones, experiment.generation)
    columns = [
        GridColumn(setting.label, read_samples(clone.folder), clone.spec.model.name)
        for setting, clone in zip(settings, clones, strict=True)
    ]
    folder.write(FIRST_LOOK, sample_grid("first_look", experiment.name, columns).png)
    return folder.file(FIRST_LOOK)
