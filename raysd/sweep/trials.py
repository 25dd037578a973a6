"""The trials of a sweep on Ray Tune: what each does, what is noted of those that end, and when all stop."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from raysd.errors import UserError, find_user_error, reason_of
from raysd.generation.shared_pool import TrialCounts
from raysd.progress import say
from raysd.storage.row_types.sweep import RungResult
from raysd.sweep.analysis.ranking import independent_scores
from raysd.sweep.board import SweepProgress
from raysd.sweep.plan import TrialPlan, plan_confirmation, plan_trials
from raysd.sweep.rung import RungRunner
from raysd.sweep.rung_rows import rung_result_fingerprint
from raysd.sweep.space import Setting

MAX_FAILURES = (
    8  # of a trial whose process or node dies, which Ray takes some time to note; what it had finished is there
)
TELL_SECONDS = 2.0  # between two reports to the pool of the trials that run and wait
FAILED_SCORE = -1.0  # below every accuracy; what a trial reports when a measurement failed


@dataclass
class Ended:
    """What ended trials reported."""

    taken: set[str] = field(default_factory=set)
    """Fingerprints of rung results."""
    failed_baselines: dict[str, str] = field(default_factory=dict)
    """Why a baseline failed, by kind."""


def search(
    runner: RungRunner,
    settings: list[Setting],
    baselines: list[str],
    progress: SweepProgress,
    observe: Callable[[str], None] | None = None,
) -> Ended:
    """Run the trials of a search; `observe` is called with the fingerprint of each rung result as it comes.

    Raises:
        KeyboardInterrupt: Tune was interrupted; it ends its trials then, frees what they hold, and returns as if it
            were done.
        UserError: what is wrong with the cluster, the storage or an image.
    """
    plan = plan_trials(runner, settings, baselines)

    def give_up(config: Mapping[str, Any], reason: str, ended: Ended) -> str:
        job: Mapping[str, Any] = config.get("job", config)
        if "baseline" in job:
            ended.failed_baselines[job["baseline"]] = reason
            return str(job["baseline"])
        setting, number = _setting_of(runner, job, settings)
        ended.taken.add(runner.give_up(setting, number, job.get("rung"), reason)["fingerprint"])
        return setting.label

    name = f"sweep-{runner.sweep}"
    ended = _fit(runner, plan, lambda config: _run_job(runner, config, settings), give_up, name, progress, observe)
    ended.taken |= {rung_result_fingerprint(runner.sweep, settings[place], rung) for place, rung in plan.known()}
    return ended


def confirm(runner: RungRunner, finalists: Sequence[tuple[Setting, int]], progress: SweepProgress) -> None:
    """Measure finalists again, with fresh seeds; the errors are those of `search`."""
    plan = plan_confirmation(runner, finalists)

    def run(config: Mapping[str, Any]) -> None:
        _report(runner.confirm(*finalists[config["job"]["finalist"]]))

    def give_up(config: Mapping[str, Any], reason: str, ended: Ended) -> str:
        setting, number = finalists[config["job"]["finalist"]]
        runner.give_up_confirming(setting, number, reason)
        return setting.label

    _fit(runner, plan, run, give_up, f"sweep-{runner.sweep}-confirm", progress)


def _fit(
    runner: RungRunner,
    plan: TrialPlan,
    run: Callable[[Mapping[str, Any]], None],
    give_up: Callable[[Mapping[str, Any], str, Ended], str],
    name: str,
    progress: SweepProgress,
    observe: Callable[[str], None] | None = None,
) -> Ended:
    """Run trials, and return what they reported; `give_up` notes one whose process died again and again, and returns
    what it is called."""
    from ray import tune
    from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

    from raysd.cluster.session import kept_interrupts
    from raysd.sweep.search import METRIC

    here = os.getcwd()

    def trial(config: dict[str, Any]) -> None:
        try:
            _set_up(runner, here)
            run(config)
        except Exception as error:
            if (found := find_user_error(error)) is None:
                raise
            tune.report({METRIC: FAILED_SCORE, "user_error": found.to_json()})

    ended = Ended()
    if plan.num_left_out:
        progress.advance(plan.num_left_out, ", from an earlier run")
    if plan.is_done(0):
        return ended
    errors: list[UserError] = []
    watch = _watch(ended, errors, progress, observe, runner)
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
    with kept_interrupts(), _quiet_tune():
        tuner.fit()
    if errors:
        raise errors[0]
    if not plan.is_done(watch.num_ended):
        raise KeyboardInterrupt
    for config, reason in watch.lost:
        say(f"failed: {give_up(config, reason, ended)}: {reason}")
    return ended


@contextmanager
def _quiet_tune() -> Iterator[None]:
    """Keep Tune from printing the traceback of each exception: the reason of a setting that fails is said in a line."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    if os.environ.get("RAYSD_VERBOSE") != "1":
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _set_up(runner: RungRunner, folder: str) -> None:
    """Prepare the process of a trial: in the command's folder, where this node has it, paths mean what they mean there,
    also if Ray was started elsewhere."""
    import torch

    from raysd.device import keep_freed_memory

    with suppress(OSError):
        os.chdir(folder)
    keep_freed_memory()
    torch.set_num_threads(max(1, int(runner.placement.trial_cpus)))


def _run_job(runner: RungRunner, config: Mapping[str, Any], settings: list[Setting]) -> None:
    """Run the job of one trial of a search."""
    from raysd.sweep import search

    sweep = runner.experiment.sweep
    job: Mapping[str, Any] = config.get("job", config)
    if "baseline" in job:
        _report_baseline(runner, job["baseline"])
        return
    setting, number = _setting_of(runner, job, settings)
    for rung in [job["rung"]] if "rung" in job else range(len(runner.rungs)):
        row = runner.run(setting, rung, number)
        _report(row, {search.LEVEL: search.level(sweep, rung)} if sweep.scheduler == "asha" else {})
        if row["score"] is None:
            return


def _setting_of(runner: RungRunner, job: Mapping[str, Any], settings: list[Setting]) -> tuple[Setting, int]:
    """Return the setting of a job, and its number."""
    from raysd.sweep import search

    if "setting" in job:
        return settings[job["setting"]], job["setting"]
    return search.decode(runner.experiment.sweep, job["values"]), job["number"]


def _report_baseline(runner: RungRunner, kind: str) -> None:
    """Measure a baseline and report that to Tune, or why it failed."""
    from ray import tune

    from raysd.sweep.search import METRIC

    failed = {}
    try:
        runner.run_baseline(kind)
    except Exception as error:
        runner.pool.note(None)  # nothing goes on here any more
        failed = {"failed": runner.exceptions.reason(kind, error), "baseline": kind}
    tune.report({METRIC: FAILED_SCORE, "label": kind, **failed})


def _report(row: RungResult, more: Mapping[str, Any] | None = None) -> None:
    """Report a rung result to Tune; `more` is added where it has a score."""
    from ray import tune

    from raysd.sweep.search import METRIC

    score = row["score"]
    values = {
        METRIC: FAILED_SCORE if score is None else score,
        "seed_scores": [] if score is None else independent_scores(row),
        "label": row["label"],
        "rung_result": row["fingerprint"],
        **({"failed": row["error"]} if "error" in row else {}),
    }
    tune.report({**values, **(more or {} if score is not None else {})})


def _stop_at(errors: list[UserError]) -> Any:
    from ray.tune import Stopper

    class StopAtError(Stopper):
        """Ends the whole sweep when there is an error that the user has to fix."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return "user_error" in result

        def stop_all(self) -> bool:
            return bool(errors)

    return StopAtError()


def _count_trials(runner: RungRunner, trials: Sequence[Any]) -> TrialCounts:
    """Return how many of Tune's trials run, and how many wait for resources."""
    status = Counter(trial.status for trial in trials)
    placement = runner.placement
    return TrialCounts(status["RUNNING"], status["PENDING"], placement.num_trials, placement.actors_each)


def _watch(
    ended: Ended,
    errors: list[UserError],
    progress: SweepProgress,
    observe: Callable[[str], None] | None,
    runner: RungRunner,
) -> Any:
    from ray.tune import Callback

    class Watch(Callback):
        """Notes the rung results that were taken and the errors that the user must fix, and counts the trials that
        ended."""

        def __init__(self) -> None:
            self.num_ended = 0
            self.lost: list[tuple[Mapping[str, Any], str]] = []
            """Trials whose process died again and again, and how it did the last time."""
            self.told: tuple[TrialCounts | None, float] = None, 0.0
            """The counts that the pool was told last, and when."""

        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
            counts, now = _count_trials(runner, trials), time.monotonic()
            if runner.placement.extra_trials and (counts != self.told[0] or now - self.told[1] > TELL_SECONDS):
                self.told = counts, now
                runner.pool.count_trials(counts)

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            if "user_error" in result:
                errors.append(UserError.from_json(result["user_error"]))
            elif "rung_result" in result:
                ended.taken.add(result["rung_result"])
                if observe is not None:
                    observe(result["rung_result"])
            elif "failed" in result:
                ended.failed_baselines[result["baseline"]] = result["failed"]

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.num_ended += 1
            result = trial.last_result or {}
            score = f" {result['score']:.1f} %" if result.get("score", FAILED_SCORE) != FAILED_SCORE else ""
            label = result.get("label", "a trial")
            if "failed" in result:
                say(f"failed: {label}: {result['failed']}")
            progress.advance(1, f", {label}{score}")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.num_ended += 1
            error = trial.get_pickled_error() or trial.get_error()
            why = "no reason is known" if error is None else reason_of(error)
            reason = f"its process failed {MAX_FAILURES + 1} times, the last time by {why}"
            self.lost.append((trial.config, reason))
            progress.advance(1)

    return Watch()
