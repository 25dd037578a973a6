"""The entry of each Ray Train worker, and what happens when it fails. It imports little, because the controller of Ray
Train loads it, too.

An error that the user can fix is written to the run's folder, and the driver raises it. The same exception twice
without progress in between ends the training, since it would come again. So do a few deaths of workers that start; Ray
Train itself would start them for ever.
"""

import json
from typing import TYPE_CHECKING, Any

from raysd.errors import UserError, find_user_error
from raysd.storage.location import Location

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

ERROR, PROGRESS = "error.json", "progress.json"
MAX_STARTS = 3
LOST_PEER = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""In the message of a worker that is well, but whose peer is gone."""


class FailureCount:
    """Ends a training whose workers fail again and again without a checkpoint in between. It lives in the controller.

    Failures with checkpoints in between are as many as there are: a training of a week on many nodes loses some, and
    there are only so many checkpoints.

    Args:
        folder: of the run; the error that the driver raises is written to it.
        most: failures to go on after.
        checkpoint_steps: steps between two checkpoints.
    """

    def __init__(self, folder: Location, most: int, checkpoint_steps: int) -> None:
        self.folder, self.most, self.checkpoint_steps = folder, most, checkpoint_steps
        self.count, self.num_lost = 0, 0
        self.earlier_progress = _progress_bytes(folder)

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Begin to count anew at a checkpoint."""
        if checkpoint is not None:
            self.count, self.num_lost = 0, 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Count a failure of the workers; nodes that are taken away with notice are Ray Train's own matter.

        Raises:
            RuntimeError: too many failures.
        """
        from ray.exceptions import RayActorError

        causes = [_base(error) for error in worker_exceptions.values()]
        if any(getattr(cause, "preempted", False) for cause in causes):
            return
        lost = [cause for cause in causes if isinstance(cause, RayActorError)]
        self.count, self.num_lost = self.count + 1, self.num_lost + bool(lost)
        if self.count <= self.most:
            return
        why = " ".join(str([*lost, *causes][0]).split())
        if self.num_lost and not self.folder.exists(ERROR):
            self.folder.write(ERROR, self._lost(why[:200]).to_json().encode())
        raise RuntimeError(f"the workers failed {self.count} times without a checkpoint in between: {why}")

    def _lost(self, why: str) -> UserError:
        """Return what to do: only where steps are done do checkpoints help."""
        if _progress_bytes(self.folder) in (b"", self.earlier_progress):
            what = f"its workers' processes die before they have done a step, {self.count} times in a row ({why})"
            remedy = "see whether memory ran out; RAYSD_VERBOSE=1 shows their logs, the same command goes on"
            return UserError("training", self.folder.uri.rpartition("/")[2], f"{what}; {remedy}")
        what = f"workers were lost {self.count} times without a checkpoint in between ({why}); look after the nodes"
        return UserError("training.checkpoint_steps", self.checkpoint_steps, f"{what}, or lower it")


def failure_callback(folder: Location, most: int, checkpoint_steps: int) -> Any:
    """Return a `FailureCount` that Ray Train calls."""
    from ray.train.v2.api.callback import UserCallback

    return type("FailureCallback", (FailureCount, UserCallback), {})(folder, most, checkpoint_steps)


def train_worker(config: dict[str, Any]) -> None:
    """Train all classifiers of a run; `config["loop"]` is a reference to its `LoopConfig`."""
    import ray

    loop = ray.get(config["loop"])
    folder = Location(loop.root).child("runs", loop.run)
    if folder.exists(ERROR):
        return
    try:
        from raysd.training.loop import train_seeds
        from raysd.training.workers import RayTrainWorkers

        train_seeds(loop, RayTrainWorkers())
    except Exception as error:
        if (found := find_user_error(error)) is not None:
            folder.write(ERROR, found.to_json().encode())
        raise


def take_error(folder: Location) -> UserError | None:
    """Return the error that a worker left in a run's folder, and delete it there; None if there is none."""
    if not folder.exists(ERROR):
        return None
    error = UserError.from_json(folder.read(ERROR))
    folder.delete(ERROR)
    return error


def trainer_that_ends(folder: Location, **options: Any) -> "TorchTrainer":
    """Return a trainer of Ray Train that ends when trying again is of no use.

    Args:
        folder: of the run.
        options: of `TorchTrainer`.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

    class Policy(DefaultFailurePolicy):
        """Decides whether to go on after a failure."""

        num_deaths = 0
        before: tuple[set[str], str] = (set(), "")

        def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
            """Return whether to try again."""
            error = training_failed_error
            if isinstance(error, ControllerError) and _is_failed_start(error.controller_failure):
                self.num_deaths += 1
                return FailureDecision.RAISE if self.num_deaths > MAX_STARTS else FailureDecision.RETRY
            if isinstance(error, WorkerGroupError):
                self.num_deaths = 0
                if self._comes_again(error):
                    return FailureDecision.RAISE
            return super().make_decision(error)

        def _comes_again(self, error: WorkerGroupError) -> bool:
            before, self.before = self.before, (exceptions_of(error.worker_failures), _read_progress(folder))
            is_known = bool(before[0] & self.before[0]) and before[1] == self.before[1]
            return is_known or any(find_user_error(_base(each)) for each in error.worker_failures.values())

    class Trainer(TorchTrainer):
        """Trainer with this policy."""

        def _initialize_and_run_controller(self, **options: Any) -> Any:
            policy = Policy(self.run_config.failure_config)
            return super()._initialize_and_run_controller(**{**options, "failure_policy": policy})

    return Trainer(train_worker, **options)


def exceptions_of(failures: dict[int, Exception]) -> set[str]:
    """Return the exceptions that workers raised by themselves, in a line each; none where a process died."""
    from ray.exceptions import RayActorError

    raised = [_base(error) for error in failures.values()]
    if any(isinstance(error, RayActorError) for error in raised):
        return set()
    return {line for error in raised if not any(word in (line := _line(error)) for word in LOST_PEER)}


def training_error(run: str, error: Exception) -> UserError:
    """Return in one line why a training ended without its classifiers."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    cause = getattr(error, "controller_failure", error)
    if lines := exceptions_of(failures):
        why = f"its workers fail: {min(lines)}"
    elif failures:
        why = f"its workers' processes die: {_line(next(iter(failures.values())))}"
    elif _is_failed_start(cause):
        why = f"its workers' processes died {MAX_STARTS + 1} times while they started"
    elif type(cause).__name__.startswith("ActorDied"):
        why = "a worker's process died as it began"
    else:
        why = _line(cause)
    return UserError("training", run, f"{why}; RAYSD_VERBOSE=1 shows their logs, the same command goes on")


def _is_failed_start(failure: Exception) -> bool:
    """Return whether a process died before all were there. One that dies as it is given its work is not meant: Ray
    Train then keeps what it reserved for the workers, so that a next try would wait for ever."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

    return isinstance(failure, WorkerGroupStartupFailedError)


def _base(error: Exception) -> Exception:
    """Return the exception that a worker raised, or that says how its process died, without what Ray puts around."""
    base = getattr(error, "health_check_failure", getattr(error, "_base_exc", error))
    return base if isinstance(base, Exception) else error


def _line(error: Exception) -> str:
    base = _base(error)
    lines = str(base).strip().splitlines()
    return f"{type(base).__name__}: {lines[0]}" if lines else type(base).__name__


def _read_progress(folder: Location) -> str:
    """Return how far a training is; an empty text where it has not begun."""
    content = _progress_bytes(folder)
    return str(json.loads(content)["step"]) if content else ""


def _progress_bytes(folder: Location) -> bytes:
    return folder.read(PROGRESS) if folder.is_file(PROGRESS) else b""
