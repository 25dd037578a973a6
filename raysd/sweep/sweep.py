"""The sweep.

1. One pool of diffusion actors draws what is missing of all clones: guidance scales x prompt variants. Clones are found by their
   fingerprint, so what any earlier run drew is used again.
2. Ray Tune runs a trial per clone, and one for each baseline: train the classifiers, measure them, report.
3. The best setting is chosen from the rows, and the sweep's own row is written.

Clones, classifiers and rows are named by what shapes them. A sweep that is killed and started again skips what is there.
"""

import time
from dataclasses import dataclass
from typing import Any

from raysd.clone.generate import generate_clones, plan_clone
from raysd.clone.scan import CloneJob
from raysd.clone.scoring import ScoreSummary, score_clone
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import CloneSpec, resolve_clone_spec
from raysd.config import Experiment
from raysd.evaluation.evaluate import KIND, Evaluation
from raysd.progress import Progress, say
from raysd.sources import resolve_scoring, source_generations, training_pools, training_run
from raysd.storage.results import Row, find_result, read_results, write_result
from raysd.sweep.result import num_values_of, score_of, sweep_row
from raysd.sweep.space import sweep_fingerprint, sweep_specs
from raysd.training.classifier import load_record
from raysd.training.ingest import Pool
from raysd.training.real_sets import read_reference, real_set
from raysd.training.train import TRIAL_CPUS, train_classifiers


@dataclass(frozen=True)
class Cell:
    """One setting of the sweep: its clone, or the baseline that it stands for."""

    name: str
    pools: tuple[Pool, ...]
    """Empty for the baseline of random weights."""


def score_pictures(experiment: Experiment, job: CloneJob) -> ScoreSummary:
    """Score what is not scored yet of a complete clone."""
    spec, sets = resolve_scoring(experiment)
    references = [read_reference(pictures) for pictures in sets]
    return score_clone(job, spec, references, experiment.generation, experiment.scoring.batch_size)


def run_sweep(experiment: Experiment, command: str) -> Row:
    """Run or continue the sweep; returns its result row. Ray is started only if there is something to do.

    Args:
        experiment: validated settings.
        command: the command that repeats it, for the records.
    """
    began, root = time.monotonic(), experiment.root
    specs = sweep_specs(experiment)
    jobs = [plan_clone(root, spec, settings) for settings, spec in specs]
    summaries = generate_clones([*jobs, *other_clones(experiment, specs)], experiment.generation)[: len(jobs)]
    if experiment.training.filters or any(source.filters for source in experiment.training.sources):
        for job in jobs:
            score_pictures(experiment, job)
    drawn = time.monotonic()
    cells = _cells(experiment, specs)
    evaluation = Evaluation(root, experiment.evaluation, experiment.table, command)
    _run_trials(experiment, cells, evaluation)
    classifiers = {cell.name: _classifiers(experiment, cell) for cell in cells}
    wanted = {key for group in classifiers.values() for classifier in group for key in evaluation.row_fingerprints(classifier)}
    rows = [row for row in read_results(root, KIND) if row["fingerprint"] in wanted]
    row = sweep_row(experiment, specs, summaries, classifiers, rows, evaluation, command)
    for failed in row["failed"]:
        say(f"failed: {failed['trained_on']}, seed {failed['seed']}, {failed['dataset']}: {failed['error']}")
    now = time.monotonic()
    row["seconds"] = {"generate": drawn - began, "train": now - drawn, "total": now - began}
    if (earlier := find_result(root, "sweep", row["fingerprint"])) is not None:  # the cost is that of all runs together
        row["num_drawn"] += earlier["num_drawn"]
        row["seconds"] = {part: row["seconds"][part] + earlier["seconds"][part] for part in row["seconds"]}
    write_result(root, "sweep", row)
    return row


def other_clones(experiment: Experiment, specs: list[tuple[GenerationSettings, CloneSpec]]) -> list[CloneJob]:
    """Clones that `training.sources` names beside those of the cells."""
    jobs = {}
    for settings, _ in specs:
        for _, other in source_generations(experiment.model_copy(update={"generation": settings})):
            spec = resolve_clone_spec(other, experiment.table, experiment.all_variants)
            jobs[spec.fingerprint, other.images_per_class] = plan_clone(experiment.root, spec, other)
    known = {spec.fingerprint for _, spec in specs}
    return [job for (fingerprint, _), job in jobs.items() if fingerprint not in known]


def _cells(experiment: Experiment, specs: list[tuple[GenerationSettings, CloneSpec]]) -> list[Cell]:
    root, count = experiment.root, experiment.generation.images_per_class
    cells = [Cell(spec.fingerprint, training_pools(_without_real(experiment, settings))) for settings, spec in specs]
    if experiment.sweep.real is not None:
        cells.append(Cell("real", (Pool((real_set(experiment.sweep.real, "train", root, count, experiment.table),)),)))
    if experiment.sweep.random:
        cells.append(Cell("random", ()))
    return cells


def _without_real(experiment: Experiment, settings: GenerationSettings) -> Experiment:
    """The experiment with a cell's generation settings; `training.real` alone would train on no clone."""
    training = experiment.training.model_copy(update={"real": None})
    return experiment.model_copy(update={"generation": settings, "training": training})


def _classifiers(experiment: Experiment, cell: Cell) -> list[str]:
    run = training_run(experiment, cell.pools)
    return [run.fingerprint(seed) for seed in experiment.training.seeds]


def _run_trials(experiment: Experiment, cells: list[Cell], evaluation: Evaluation) -> None:
    """Train and measure each cell as a Tune trial; cells whose rows are complete are not run."""
    todo = [cell for cell in cells if not _is_measured(experiment, evaluation, cell)]
    if not todo:
        say(f"all {len(cells)} trials are there")
        return
    from ray import tune
    from ray.tune import RunConfig, TuneConfig, Tuner

    from raysd.session import ensure_ray

    ensure_ray()
    say(f"training and measuring: {len(todo)} trials of {len(experiment.training.seeds)} seeds")
    by_name = {cell.name: cell for cell in todo}
    num_values = num_values_of(experiment, evaluation)

    def trial(config: dict[str, Any]) -> None:
        import torch

        cell = by_name[config["cell"]]
        fingerprints = train_classifiers(training_run(experiment, cell.pools), quiet=True, num_concurrent=experiment.sweep.max_concurrent_trials)
        torch.set_num_threads(max(1, int(_trial_threads(experiment))))
        rows = [row for classifier in fingerprints for row in evaluation.measure(classifier)]
        score = score_of(rows, experiment.sweep.objective, num_values)
        tune.report({"score": float("nan") if score is None else score, "done": True})

    results = Tuner(
        tune.with_resources(trial, {"CPU": TRIAL_CPUS}),
        param_space={"cell": tune.grid_search(list(by_name))},
        tune_config=TuneConfig(metric="score", mode="max", max_concurrent_trials=experiment.sweep.max_concurrent_trials, reuse_actors=True),
        run_config=RunConfig(
            name=f"sweep-{sweep_fingerprint(experiment)}",
            storage_path=experiment.root.child("runs").path,
            storage_filesystem=experiment.root.filesystem,
            verbose=0,
            callbacks=[_trial_progress(len(todo))],
        ),
    ).fit()
    if results.errors:
        raise results.errors[0]


def _trial_threads(experiment: Experiment) -> float:
    from raysd.session import cluster_cpus

    return min(4.0, cluster_cpus() / experiment.sweep.max_concurrent_trials)


def _trial_progress(num_trials: int) -> Any:
    from ray.tune import Callback

    class TrialProgress(Callback):
        """Counts ended trials."""

        def __init__(self) -> None:
            self.progress = Progress("trials", num_trials, "trials")

        def setup(self, *_: Any, **__: Any) -> None:
            self.progress.__enter__()

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            score = (trial.last_result or {}).get("score", float("nan"))
            self.progress.advance(1, f", score {score:.1f}")

        def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
            self.progress.__exit__(None, None, None)

    return TrialProgress()


def _is_measured(experiment: Experiment, evaluation: Evaluation, cell: Cell) -> bool:
    run = training_run(experiment, cell.pools)
    if any(load_record(run.folder(seed)) is None for seed in experiment.training.seeds):
        return False
    return all(evaluation.is_measured(run.fingerprint(seed)) for seed in experiment.training.seeds)
