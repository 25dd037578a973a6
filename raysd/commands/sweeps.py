"""The commands that compare settings and report."""

from pathlib import Path
from typing import Any

from raysd.commands.checks import check_resolved, check_sweep
from raysd.commands.sweep_answer import SweepAnswer, WrittenReport
from raysd.config import CommandLine, Experiment, ExperimentLike, load_experiment
from raysd.storage.row_types import AccuracyRow, SweepRow
from raysd.storage.rows import ACCURACY, find_row

DEMO = Path(__file__).parent.parent / "assets" / "demo.yaml"
BEST = "best.yaml"


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

    experiment = load_experiment(experiment, **values)
    models = check_sweep(experiment)
    experiment.root.check_writable()
    evaluation = Evaluation(
        experiment.root, experiment.evaluation, experiment.table, command
    )  # all real images are there, before anything is generated
    check_resolved(experiment, [measured.role for measured in evaluation.sets])
    check_cluster(experiment.root, experiment.cluster, models)
    log = SweepLog(experiment)
    row = run_sweep(experiment, evaluation, log.add)
    log.finish(row)
    log_evaluation(experiment.training.logger, experiment.root, _accuracies(experiment, row))
    folder, best = experiment.root.child("reports", row["fingerprint"]), row["best"]
    note = (
        f"The best of {len(row['clones'])} settings: {best['label']}, {best['score']:.1f} % at "
        f"{best['images_per_class']} images per class. {command}"
    )
    folder.write(BEST, best_config(experiment, best["setting"], row["images_per_class"], note).encode())
    return SweepAnswer(row, folder.child(BEST).uri, _write_report(experiment, row["fingerprint"]))


def _accuracies(experiment: Experiment, row: SweepRow) -> list[AccuracyRow]:
    found = (find_row(experiment.root, ACCURACY, fingerprint) for fingerprint in row["rows"])
    return [row for row in found if row is not None]


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
    return sweep(load_experiment(DEMO, overrides), CommandLine(overrides=tuple(overrides)).command("demo"))
