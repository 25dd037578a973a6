"""The trials of a sweep on Ray Tune: what each does, what is noted of those that end, and when all stop."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from raysd.errors import UserError, find_user_error
from raysd.generation.shared_pool import SharedPool
from raysd.progress import Progress
from raysd.storage.row_types import RungResult
from raysd.sweep.plan import TrialPlan, plan_confirmation, plan_trials
from raysd.sweep.rung import RungRunner, rung_result_fingerprint
from raysd.sweep.space import Setting

MAX_FAILURES = (
    8  # of a trial whose process or node dies, which Ray takes some time to note; what it had finished is there
)
FAILED_SCORE = -1.0  # below every accuracy; what a trial reports when a measurement failed
LOOK_SECONDS = 5.0


def search(runner: RungRunner, settings: list[Setting], baselines: list[str], progress: Progress) -> set[str]:
    """Run the trials of a search; return the fingerprints of the rung results that were taken.

    Raises:
        KeyboardInterrupt: Tune was interrupted; it ends its trials then, frees what they hold, and returns as if it
            were done.
        UserError: what is wrong with the cluster, the storage or an image.
    """
    plan = plan_trials(runner, settings, baselines)
    taken = _fit(runner, plan, lambda config: _run_job(runner, config, settings), f"sweep-{runner.sweep}", progress)
    return taken | {rung_result_fingerprint(runner.sweep, settings[place], rung) for place, rung in plan.known()}


def confirm(runner: RungRunner, finalists: Sequence[tuple[Setting, int]], progress: Progress) -> None:
    """Measure finalists again, with fresh seeds; the errors are those of `search`."""
    plan = plan_confirmation(runner, finalists)

    def run(config: Mapping[str, Any]) -> None:
        _report(runner.confirm(*finalists[config["job"]["finalist"]]))

    _fit(runner, plan, run, f"sweep-{runner.sweep}-confirm", progress)


def _fit(
    runner: RungRunner, plan: TrialPlan, run: Callable[[Mapping[str, Any]], None], name: str, progress: Progress
) -> set[str]:
    """Run trials; return the fingerprints of the rung results that they reported."""
    from ray import tune
    from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

    from raysd.cluster.session import kept_interrupts
    from raysd.sweep.search import METRIC

    def trial(config: dict[str, Any]) -> None:
        try:
            _set_up(runner)
            run(config)
        except Exception as error:
            if (found := find_user_error(error)) is None:
                raise
            tune.report({METRIC: FAILED_SCORE, "user_error": found.to_json()})

    taken: set[str] = set()
    errors: list[UserError] = []
    watch = _watch(taken, errors, progress)
    if plan.num_left_out:
        progress.advance(plan.num_left_out, ", from an earlier run")
    if plan.is_done(0):
        return taken
    tuner = Tuner(
        tune.with_resources(trial, {"CPU": runner.placement.trial_cpus, "GPU": runner.placement.trial_gpus}),
        param_space=plan.space,
        tune_config=TuneConfig(**plan.options, reuse_actors=True),
        run_config=RunConfig(
            name=name,
            storage_path=runner.experiment.root.child("runs").path,
            storage_filesystem=runner.experiment.root.filesystem,
            verbose=0,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            stop=_stop_at(errors),
            callbacks=[watch],
        ),
    )
    with kept_interrupts():
        results = tuner.fit()
    if errors:
        raise errors[0]
    if results.errors:
        raise results.errors[0]
    if not plan.is_done(watch.num_ended):
        raise KeyboardInterrupt
    return taken


def _set_up(runner: RungRunner) -> None:
    import torch

    from raysd.device import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(max(1, int(runner.placement.trial_cpus)))


def _run_job(runner: RungRunner, config: Mapping[str, Any], settings: list[Setting]) -> None:
    """Run the job of one trial of a search."""
    from ray import tune

    from raysd.sweep import search

    sweep = runner.experiment.sweep
    job: Mapping[str, Any] = config.get("job", config)
    if "baseline" in job:
        runner.run_baseline(job["baseline"])
        tune.report({search.METRIC: FAILED_SCORE, "label": job["baseline"]})
        return
    if "setting" in job:
        setting, number = settings[job["setting"]], job["setting"]
    else:
        setting, number = search.decode(sweep, job["values"]), job["number"]
    for rung in [job["rung"]] if "rung" in job else range(len(runner.rungs)):
        row = runner.run(setting, rung, number)
        _report(row, {search.LEVEL: search.level(sweep, rung)} if sweep.scheduler == "asha" else {})
        if row["score"] is None:
            return


def _report(row: RungResult, more: Mapping[str, Any] | None = None) -> None:
    """Report a rung result to Tune; `more` is added where it has a score."""
    from ray import tune

    from raysd.sweep.search import METRIC

    score = row["score"]
    values = {
        METRIC: FAILED_SCORE if score is None else score,
        "seed_scores": [] if score is None else row["seed_scores"],
        "label": row["label"],
        "rung_result": row["fingerprint"],
    }
    tune.report({**values, **(more or {} if score is not None else {})})


@contextmanager
def shown_progress(total: int, pool: SharedPool) -> Iterator[Progress]:
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
