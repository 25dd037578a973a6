"""The verbs that compare settings and report."""

import sys
from pathlib import Path

from raysd.commands.checks import check_resolved, check_sweep
from raysd.config import Experiment, load_experiment, repeat_command
from raysd.progress import say
from raysd.storage.rows import SweepRow

DEMO = Path(__file__).parent.parent / "assets" / "demo.yaml"
BEST = "best.yaml"
LOG_WIDTH = 160  # characters, where the output is no terminal


def sweep(experiment: Experiment, command: str = "") -> SweepRow:
    """Run or continue the sweep, and write its report; returns the sweep's row."""
    from raysd.cluster.preflight import check_cluster
    from raysd.evaluation.evaluate import Evaluation
    from raysd.sweep.best_config import best_config
    from raysd.sweep.sweep import run_sweep

    models = check_sweep(experiment)
    experiment.root.check_writable()
    evaluation = Evaluation(
        experiment.root, experiment.evaluation, experiment.table, command
    )  # all real images are there, before anything is generated
    check_resolved(experiment, [measured.role for measured in evaluation.sets])
    check_cluster(experiment.root, experiment.cluster, models)
    row = run_sweep(experiment, evaluation)
    folder, best = experiment.root.child("reports", row["fingerprint"]), row["best"]
    note = (
        f"The best of {len(row['clones'])} settings: {best['label']}, {best['score']:.1f} % at "
        f"{best['images_per_class']} images per class. {command}"
    )
    folder.write(BEST, best_config(experiment, best["setting"], row["images_per_class"], note).encode())
    report(experiment, row["fingerprint"])
    cost, grid = row["cost"], row["cost"]["grid"]
    say(
        f"cost: {cost['num_images']:,} images and {cost['trainings']} trainings; all settings in full: "
        f"{grid['num_images']:,} and {grid['trainings']}"
    )
    say(
        f"next: raysd generate {folder.child(BEST).uri}, then raysd train and raysd evaluate with it; raise "
        "generation.images_per_class for the full size"
    )
    return row


def report(experiment: Experiment, sweep_fingerprint: str | None = None) -> str:
    """Write the report of a sweep (the newest by default); returns the page's place."""
    from rich.console import Console

    from raysd.report.page import write_report
    from raysd.report.tables.tables import to_rich

    files = write_report(experiment.root, sweep=sweep_fingerprint)
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(to_rich(files.table))
    for line in files.summary:
        say(line)
    say(f"report: {files.html}")
    return files.html


def demo(overrides: list[str] | None = None) -> SweepRow:
    """Run the whole path on the embedded model and real images, on a laptop, in minutes."""
    overrides = overrides or []
    return sweep(load_experiment(DEMO, overrides), repeat_command("demo", None, overrides))
