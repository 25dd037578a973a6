"""The verbs that compare settings and report."""

import sys
from pathlib import Path

from raysd.config import Experiment, load_experiment, repeat_command
from raysd.progress import say
from raysd.storage.results import Row
from raysd.verbs.checks import check_batch_fits, check_objective, check_prompts, check_resolved, check_training

DEMO = Path(__file__).parent.parent / "assets" / "demo.yaml"
LOG_WIDTH = 160  # characters, where the output is no terminal


def sweep(experiment: Experiment, command: str = "") -> Row:
    """Run or continue the sweep, and write its report; returns the sweep's row."""
    from raysd.evaluation.evaluate import Evaluation
    from raysd.sweep.space import sweep_specs
    from raysd.sweep.sweep import other_clones, run_sweep

    check_training(experiment)
    specs = sweep_specs(experiment)
    check_prompts(experiment, [*(spec for _, spec in specs), *(job.plan.spec for job in other_clones(experiment, specs))])
    check_objective(experiment)
    experiment.root.check_writable()
    evaluation = Evaluation(experiment.root, experiment.evaluation, experiment.table, command)  # all real pictures are there, before anything is drawn
    check_resolved(experiment, [measured.role for measured in evaluation.sets])
    check_batch_fits(experiment)
    row = run_sweep(experiment, command)
    report(experiment, row["fingerprint"])
    return row


def report(experiment: Experiment, sweep_fingerprint: str | None = None) -> str:
    """Write the report of a sweep (the newest by default); returns the page's place."""
    from rich.console import Console

    from raysd.report.page import write_report
    from raysd.report.tables import to_rich

    files = write_report(experiment.root, sweep=sweep_fingerprint)
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(to_rich(files.table))
    for line in files.summary:
        say(line)
    say(f"report: {files.html}")
    return files.html


def demo(overrides: list[str] | None = None) -> Row:
    """The whole path on the embedded model and real pictures, on a laptop, in minutes."""
    overrides = overrides or []
    return sweep(load_experiment(DEMO, overrides), repeat_command("demo", None, overrides))
