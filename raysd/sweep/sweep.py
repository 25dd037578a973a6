"""The sweep: Ray Tune over the settings of a space and their rungs.

1. A shared pool of generation actors is started. It generates what trials ask for, and ahead of them where it is known
   what comes.
2. Tune runs the trials (see `raysd.sweep.search`). Each takes a setting to one rung or more: grow its clone, train,
   measure (`raysd.sweep.rung`).
3. With `sweep.confirm`, the best settings are measured again with fresh seeds (`raysd.sweep.confirm`).
4. The answer is made from the rung results (`raysd.sweep.result`).

Clones, classifiers and rows are named by what shapes them, and each rung result is a row. A sweep that is killed and
started again goes on where it ended: halving decides again as before, since the same scores lead to the same choice;
ASHA decides by the order in which trials end, and so may drop other settings than before.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from raysd.classifier.architecture import load_record
from raysd.cluster.resources import Node, ResourceRequest, check_room, cluster_nodes
from raysd.config import Experiment
from raysd.evaluation.evaluate import Evaluation
from raysd.generation.shared_pool import SharedPool
from raysd.progress import say
from raysd.resolve import clone_spec_of, clones_of, needs_scoring, source_generations, with_found_teachers
from raysd.statistics.seeds import num_kept
from raysd.storage.attempts import Attempt
from raysd.storage.row_types.sweep import RungResult, SweepRow
from raysd.storage.rows import ACCURACY, SWEEP, find_row, write_row
from raysd.sweep import trials
from raysd.sweep.board import SweepProgress, confirmation_work, plan_work, watched
from raysd.sweep.confirm import confirmed_experiment, confirmed_fingerprint, finalists
from raysd.sweep.placement import Placement, place
from raysd.sweep.plan import tried_settings
from raysd.sweep.result import sweep_row
from raysd.sweep.rung import RungRunner, baseline_run
from raysd.sweep.rung_rows import find_rung_results
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import (
    Setting,
    distinct_settings,
    experiment_at,
    list_settings,
    rungs_of,
    settings_to_check,
    sweep_fingerprint,
    without_confirmation,
)
from raysd.training.precision import ANSWERS, AUTO, is_earlier


def run_sweep(experiment: Experiment, evaluation: Evaluation, observe: Callable[[str], None] | None = None) -> SweepRow:
    """Run or continue the sweep; return its result row. Ray is started only if there is something to do.

    Args:
        experiment: validated settings.
        evaluation: knows the real data sets.
        observe: called with the fingerprint of each rung result as it comes.

    Raises:
        UserError: what is wrong with the settings, the cluster, the storage or an image.
    """
    experiment = with_found_teachers(as_begun(experiment, evaluation))
    root, sweep = experiment.root, sweep_fingerprint(experiment, evaluation)
    search = sweep_fingerprint(without_confirmation(experiment), evaluation)
    if (row := find_row(root, SWEEP, sweep)) is not None and _is_there(experiment, row):
        say(f"all {len(row['rung_results'])} rung results are there")
        return row
    began, rungs, baselines = time.monotonic(), rungs_of(experiment), baselines_of(experiment)
    settings, repeated = distinct_settings(experiment, list_settings(experiment))
    for setting in repeated:
        say(f"left out: {setting.label}: generates and trains the same as an earlier setting")
    with Attempt(root, f"sweep {search}") as attempt:
        results, confirmed, failed_baselines = _run_trials(
            experiment, evaluation, search, rungs, settings, baselines, observe
        )
    if experiment.sweep.proxies:
        from raysd.sweep.proxies import note_proxies

        note_proxies(experiment, results, rungs, evaluation.command)
    others = {
        kind: [run.fingerprint(seed) for seed in run.settings.seeds]
        for kind in baselines
        for run in [baseline_run(experiment, kind, rungs[-1])]
    }
    row = sweep_row(experiment, sweep, rungs, len(settings), results, confirmed, others, failed_baselines, evaluation)
    row["seconds"]["total"] = time.monotonic() - began
    row["attempt"] = attempt.number
    for failed in (failed for failed in row["failed"] if failed["seed"] is not None):
        say(f"failed: {failed['trained_on']}, seed {failed['seed']}, {failed['dataset']}: {failed['error']}")
    write_row(root, SWEEP, row)
    return row


def as_begun(experiment: Experiment, evaluation: Evaluation) -> Experiment:
    """Return a sweep with the number format in its fingerprint where an older raysd began it, which had answered
    `precision: auto` on the machine that started it."""
    training = experiment.training
    search = without_confirmation(experiment)  # which names the rung results
    if training.precision != AUTO or find_rung_results(experiment, sweep_fingerprint(search, evaluation)):
        return experiment
    for answer in ANSWERS:
        earlier = experiment.model_copy(update={"training": training.model_copy(update={"precision": answer})})
        names = {
            name
            for row in find_rung_results(experiment, sweep_fingerprint(without_confirmation(earlier), evaluation))
            for name in row["classifiers"]
        }
        if names and all(is_earlier(load_record(experiment.root.child("classifiers", name))) for name in names):
            return earlier
    return experiment


def _is_there(experiment: Experiment, row: SweepRow) -> bool:
    """Return whether every row of a finished sweep exists, and nothing failed that would be tried again."""
    rows = all(find_row(experiment.root, ACCURACY, key) for key in row["rows"])
    return rows and not any(failed["seed"] is not None or failed.get("is_unexplained") for failed in row["failed"])


def baselines_of(experiment: Experiment) -> list[str]:
    """Return the kinds of the requested baselines."""
    return [*(["real"] if experiment.sweep.real is not None else []), *(["random"] if experiment.sweep.random else [])]


def plan_placement(experiment: Experiment, nodes: Sequence[Node]) -> tuple[Placement, list[ResourceRequest]]:
    """Return how the sweep divides some nodes, and what it starts on them.

    Raises:
        UserError: what is wrong with the settings, or the nodes are too few.
    """
    rung, num_trials = rungs_of(experiment)[0], experiment.sweep.max_concurrent_trials
    jobs = [experiment_at(experiment, setting, rung) for setting in settings_to_check(experiment)]
    pipelines = {clone_spec_of(job).pipeline_key for job in jobs}
    pipelines |= {clone_spec_of(experiment, other).pipeline_key for _, other in source_generations(experiment)}
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    spare_gpus = int(any(needs_scoring(job.training) for job in jobs))
    placement = place(
        cpus, gpus, experiment.generation, experiment.training, num_trials, len(pipelines), spare_gpus
    ).with_extra_trials(experiment.sweep.extra_trials, cpus, gpus, len(pipelines), spare_gpus)
    return placement, placement.requests(experiment.training, num_trials, len(pipelines), nodes)


def _run_trials(
    experiment: Experiment,
    evaluation: Evaluation,
    sweep: str,
    rungs: list[RungSettings],
    settings: list[Setting],
    baselines: list[str],
    observe: Callable[[str], None] | None,
) -> tuple[list[RungResult], list[RungResult], dict[str, str]]:
    """Run the trials; return the rung results that the scheduler took, those of the finalists' fresh measurements, and
    why a baseline failed, by its kind."""
    from raysd.cluster.session import ensure_ray

    ensure_ray()
    wanted = experiment.sweep
    nodes = cluster_nodes()
    placement, requests = plan_placement(experiment, nodes)
    check_room(nodes, requests)
    num_clones = max(len(experiment.generation.seeds), 0 if wanted.confirm is None else wanted.confirm.seeds)
    num_callers = placement.most_trials * max(1, num_clones)
    pool = SharedPool(experiment.generation, placement.pool, num_callers)
    runner = RungRunner(experiment, sweep, rungs, evaluation, pool, placement)
    runner.exceptions.clear()
    if placement.extra_trials < wanted.extra_trials:
        say(f"sweep.extra_trials: {placement.extra_trials} of {wanted.extra_trials} fit beside the last actor")
    count = f"{len(settings) or wanted.num_settings} settings"
    say(
        f"sweep: {count}, {', '.join(str(rung.images_per_class) for rung in rungs)} images per class, "
        f"{placement.pool.num_actors} generation actors"
    )
    num_jobs = _num_jobs(experiment, len(settings), len(rungs), len(baselines))
    known = runner.known(settings or list(tried_settings(experiment, sweep)))
    num_baselines = sum(not runner.is_baseline_measured(kind) for kind in baselines)
    work = plan_work(experiment, settings, rungs, placement, num_jobs, num_baselines, known)
    try:
        pool.generate_ahead(_first_clones(experiment, sweep, settings, rungs))
        with watched(SweepProgress(work, experiment.root), pool) as progress:
            ended = trials.search(runner, settings, baselines, progress, observe)
        results = find_rung_results(experiment, sweep, ended.taken)
        return results, _confirm(runner, results), ended.failed_baselines
    finally:
        pool.close()


def _confirm(runner: RungRunner, results: list[RungResult]) -> list[RungResult]:
    """Measure the best settings again with fresh seeds, as far as `sweep.confirm` wants it; return the results."""
    chosen = finalists(runner.experiment.sweep, results)
    if not chosen:
        return []
    jobs = [confirmed_experiment(runner.experiment, setting) for setting, _ in chosen]
    seeds = len(jobs[0].training.seeds)
    say(f"measuring the best {len(chosen)} settings again, with {seeds} fresh seeds each")
    left = [job for job, finalist in zip(jobs, chosen, strict=True) if not runner.is_confirmed(*finalist)]
    runner.pool.generate_ahead([clone for job in left for clone in clones_of(job)])
    work = confirmation_work(left, runner.placement, len(chosen))
    progress = SweepProgress(work, runner.experiment.root, before=runner.pool.board())
    with watched(progress, runner.pool):
        trials.confirm(runner, chosen, progress)
    keys = {confirmed_fingerprint(runner.sweep, setting, job) for (setting, _), job in zip(chosen, jobs, strict=True)}
    return find_rung_results(runner.experiment, runner.sweep, keys)


def _num_jobs(experiment: Experiment, num_settings: int, num_rungs: int, num_baselines: int) -> int:
    """Return the largest possible number of trials; with halving, those of all rungs."""
    count = members = num_settings or experiment.sweep.num_settings or 0
    if experiment.sweep.scheduler == "halving":
        for _ in range(num_rungs - 1):
            members = num_kept(members, experiment.sweep.keep)
            count += members
    return count + num_baselines


def _first_clones(experiment: Experiment, sweep: str, settings: list[Setting], rungs: list[RungSettings]) -> list[Any]:
    """Return the clones of the first rung, each once, without those whose rung result exists."""
    done = set(tried_settings(experiment, sweep))
    jobs = {}
    for setting in settings:
        if setting in done:
            continue
        for job in clones_of(experiment_at(experiment, setting, rungs[0])):
            jobs[job.spec.fingerprint] = job
    return list(jobs.values())
