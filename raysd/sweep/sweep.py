"""The sweep: Ray Tune over the settings of a space and their rungs.

1. A shared pool of generation actors is started. It generates what trials ask for, and ahead of them where it is known
   what comes.
2. Tune runs the trials (see `raysd.sweep.search`). Each takes a setting to one rung or more: grow its clone, train,
   measure (`raysd.sweep.rung`).
3. The answer is made from the rung results (`raysd.sweep.result`).

Clones, classifiers and rows are named by what shapes them, and each rung result is a row. A sweep that is killed and
started again goes on where it ended: halving decides again as before, since the same scores lead to the same choice;
ASHA decides by the order in which trials end, and so may drop other settings than before.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from raysd.cluster.resources import Node, ResourceRequest, check_room, cluster_nodes
from raysd.config import Experiment
from raysd.errors import UserError, find_user_error
from raysd.evaluation.evaluate import Evaluation
from raysd.generation.shared_pool import SharedPool
from raysd.progress import Progress, say
from raysd.resolve import clone_spec_of, clones_of, source_generations
from raysd.statistics.seeds import num_kept
from raysd.storage.row_types import RungResult, SweepRow
from raysd.storage.rows import ACCURACY, SWEEP, find_row, write_row
from raysd.sweep.placement import Placement, place
from raysd.sweep.plan import plan_trials, tried_settings
from raysd.sweep.result import sweep_row
from raysd.sweep.rung import RungRunner, baseline_run, find_rung_results, rung_result_fingerprint
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import (
    Setting,
    distinct_settings,
    experiment_at,
    list_settings,
    needs_scoring,
    rungs_of,
    settings_to_check,
    sweep_fingerprint,
)
from raysd.training.architecture import load_record
from raysd.training.precision import ANSWERS, AUTO, is_earlier

MAX_FAILURES = (
    8  # of a trial whose process or node dies, which Ray takes some time to note; what it had finished is there
)
FAILED_SCORE = -1.0  # below every accuracy; what a trial reports when a measurement failed
LOOK_SECONDS = 5.0


def run_sweep(experiment: Experiment, evaluation: Evaluation) -> SweepRow:
    """Run or continue the sweep; return its result row. Ray is started only if there is something to do.

    Args:
        experiment: validated settings.
        evaluation: knows the real data sets.

    Raises:
        UserError: what is wrong with the settings, the cluster, the storage or an image.
    """
    experiment = as_begun(experiment, evaluation)
    root, sweep = experiment.root, sweep_fingerprint(experiment, evaluation)
    if (row := find_row(root, SWEEP, sweep)) is not None and _is_there(experiment, row):
        say(f"all {len(row['rung_results'])} rung results are there")
        return row
    began, rungs, baselines = time.monotonic(), rungs_of(experiment), baselines_of(experiment)
    settings, repeated = distinct_settings(experiment, list_settings(experiment))
    for setting in repeated:
        say(f"left out: {setting.label}: generates and trains the same as an earlier setting")
    results = _run_trials(experiment, evaluation, sweep, rungs, settings, baselines)
    if experiment.sweep.proxies:
        from raysd.sweep.proxies import note_proxies

        note_proxies(experiment, results, rungs, evaluation.command)
    others = {
        kind: [run.fingerprint(seed) for seed in run.settings.seeds]
        for kind in baselines
        for run in [baseline_run(experiment, kind, rungs[-1])]
    }
    row = sweep_row(experiment, sweep, rungs, len(settings), results, others, evaluation)
    row["seconds"]["total"] = time.monotonic() - began
    for failed in row["failed"]:
        say(f"failed: {failed['trained_on']}, seed {failed['seed']}, {failed['dataset']}: {failed['error']}")
    write_row(root, SWEEP, row)
    return row


def as_begun(experiment: Experiment, evaluation: Evaluation) -> Experiment:
    """Return a sweep with the number format in its fingerprint where an older raysd began it, which had answered
    `precision: auto` on the machine that started it."""
    training = experiment.training
    if training.precision != AUTO or find_rung_results(experiment, sweep_fingerprint(experiment, evaluation)):
        return experiment
    for answer in ANSWERS:
        earlier = experiment.model_copy(update={"training": training.model_copy(update={"precision": answer})})
        names = {
            name
            for row in find_rung_results(experiment, sweep_fingerprint(earlier, evaluation))
            for name in row["classifiers"]
        }
        if names and all(is_earlier(load_record(experiment.root.child("classifiers", name))) for name in names):
            return earlier
    return experiment


def _is_there(experiment: Experiment, row: SweepRow) -> bool:
    """Return whether every row of a finished sweep exists, and no measurement failed."""
    rows = all(find_row(experiment.root, ACCURACY, key) for key in row["rows"])
    return rows and not any(failed["seed"] is not None for failed in row["failed"])


def baselines_of(experiment: Experiment) -> list[str]:
    """Return the kinds of the requested baselines."""
    return [*(["real"] if experiment.sweep.real is not None else []), *(["random"] if experiment.sweep.random else [])]


def plan_placement(experiment: Experiment, nodes: Sequence[Node]) -> tuple[Placement, list[ResourceRequest]]:
    """Return how the sweep divides some nodes, and what it starts on them.

    Raises:
        UserError: what is wrong with the settings, or the nodes are too few.
    """
    rung, num_trials = rungs_of(experiment)[0], experiment.sweep.max_concurrent_trials
    pipelines = {
        clone_spec_of(experiment_at(experiment, setting, rung)).pipeline_key
        for setting in settings_to_check(experiment)
    }
    pipelines |= {clone_spec_of(experiment, other).pipeline_key for _, other in source_generations(experiment)}
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    asked = (
        experiment.generation,
        experiment.training,
        num_trials,
        len(pipelines),
        int(needs_scoring(experiment.training)),
    )
    placement = place(cpus, gpus, *asked)
    return placement, placement.requests(experiment.training, num_trials, len(pipelines), nodes)


def _run_trials(
    experiment: Experiment,
    evaluation: Evaluation,
    sweep: str,
    rungs: list[RungSettings],
    settings: list[Setting],
    baselines: list[str],
) -> list[RungResult]:
    """Run the trials; return the rung results that the scheduler took."""
    from raysd.cluster.session import ensure_ray

    ensure_ray()
    wanted = experiment.sweep
    nodes = cluster_nodes()
    placement, requests = plan_placement(experiment, nodes)
    check_room(nodes, requests)
    num_callers = wanted.max_concurrent_trials * max(1, len(experiment.generation.seeds))
    pool = SharedPool(experiment.generation, placement.pool, num_callers)
    runner = RungRunner(experiment, sweep, rungs, evaluation, pool, placement)
    count = f"{len(settings) or wanted.num_settings} settings"
    say(
        f"sweep: {count}, {', '.join(str(rung.images_per_class) for rung in rungs)} images per class, "
        f"{placement.pool.num_actors} generation actors"
    )
    try:
        pool.generate_ahead(_first_clones(experiment, sweep, settings, rungs))
        with _progress(_num_jobs(experiment, len(settings), len(rungs), len(baselines)), pool) as progress:
            taken = _fit(runner, settings, baselines, progress)
    finally:
        pool.close()
    return find_rung_results(experiment, sweep, taken)


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


def _fit(runner: RungRunner, settings: list[Setting], baselines: list[str], progress: Progress) -> set[str]:
    """Run Tune; return the fingerprints of the rung results that were taken.

    Raises:
        KeyboardInterrupt: Tune was interrupted; it ends its trials then, frees what they hold, and returns as if it
            were done.
    """
    from ray import tune
    from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

    from raysd.cluster.session import kept_interrupts
    from raysd.sweep import search

    def trial(config: dict[str, Any]) -> None:
        try:
            _run_job(runner, config, settings)
        except Exception as error:
            if (found := find_user_error(error)) is None:
                raise
            tune.report({search.METRIC: FAILED_SCORE, "user_error": found.to_json()})

    plan = plan_trials(runner, settings, baselines)
    taken: set[str] = set()
    errors: list[UserError] = []
    watch = _watch(taken, errors, progress)
    if plan.num_left_out:
        progress.advance(plan.num_left_out, ", from an earlier run")
    tuner = Tuner(
        tune.with_resources(trial, {"CPU": runner.placement.trial_cpus, "GPU": runner.placement.trial_gpus}),
        param_space=plan.space,
        tune_config=TuneConfig(**plan.options, reuse_actors=True),
        run_config=RunConfig(
            name=f"sweep-{runner.sweep}",
            storage_path=runner.experiment.root.child("runs").path,
            storage_filesystem=runner.experiment.root.filesystem,
            verbose=0,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            stop=_stop_at(errors),
            callbacks=[watch],
        ),
    )
    if not plan.is_done(0):
        with kept_interrupts():
            results = tuner.fit()
        if errors:
            raise errors[0]
        if results.errors:
            raise results.errors[0]
        if not plan.is_done(watch.num_ended):
            raise KeyboardInterrupt
    return taken | {rung_result_fingerprint(runner.sweep, settings[place], rung) for place, rung in plan.known()}


def _run_job(runner: RungRunner, config: Mapping[str, Any], settings: list[Setting]) -> None:
    """Run the job of one trial."""
    import torch
    from ray import tune

    from raysd.device import keep_freed_memory
    from raysd.sweep import search

    keep_freed_memory()
    torch.set_num_threads(max(1, int(runner.placement.trial_cpus)))
    job: Mapping[str, Any] = config.get("job", config)
    if "baseline" in job:
        runner.run_baseline(job["baseline"])
        tune.report({search.METRIC: FAILED_SCORE, "label": job["baseline"]})
        return
    if "setting" in job:
        setting, number = settings[job["setting"]], job["setting"]
    else:
        setting, number = search.decode(runner.experiment.sweep, job["values"]), job["number"]
    for rung in [job["rung"]] if "rung" in job else range(len(runner.rungs)):
        row = runner.run(setting, rung, number)
        if row["score"] is None:
            tune.report(
                {
                    search.METRIC: FAILED_SCORE,
                    "seed_scores": [],
                    "label": row["label"],
                    "rung_result": row["fingerprint"],
                }
            )
            return
        time_at = (
            {search.LEVEL: search.level(runner.experiment.sweep, rung)}
            if runner.experiment.sweep.scheduler == "asha"
            else {}
        )
        tune.report(
            {
                search.METRIC: row["score"],
                "seed_scores": row["seed_scores"],
                "label": row["label"],
                "rung_result": row["fingerprint"],
                **time_at,
            }
        )


@contextmanager
def _progress(total: int, pool: SharedPool) -> Iterator[Progress]:
    """Show the trials that ended, and the images that were generated so far."""
    ended = threading.Event()
    with Progress("measured", total, "trials") as progress:

        def look() -> None:
            while not ended.wait(LOOK_SECONDS):
                with suppress(Exception):  # the queue may be starting again
                    progress.advance(0, f", {pool.num_generated(LOOK_SECONDS):,} images generated")

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield progress
        finally:
            ended.set()
            watcher.join()


def _stop_at(errors: list[UserError]) -> Any:
    from ray.tune import Stopper

    class StopAtError(Stopper):
        """Ends the whole sweep when there is an error that the user has to fix."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return "user_error" in result

        def stop_all(self) -> bool:
            return bool(errors)

    return StopAtError()


def _watch(taken: set[str], errors: list[UserError], progress: Progress) -> Any:
    from ray.tune import Callback

    class Watch(Callback):
        """Notes the rung results that were taken and the errors that the user must fix, and counts the trials that
        ended."""

        num_ended = 0

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            if "user_error" in result:
                errors.append(UserError.from_json(result["user_error"]))
            elif "rung_result" in result:
                taken.add(result["rung_result"])

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.num_ended += 1
            result = trial.last_result or {}
            score = f" {result['score']:.1f} %" if result.get("score", FAILED_SCORE) != FAILED_SCORE else ""
            progress.advance(1, f", {result.get('label', 'a trial')}{score}")

    return Watch()
