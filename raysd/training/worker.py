"""The entry of each Ray Train worker. It imports little, because the controller of Ray Train loads it, too.

An error that the user can fix is written to the run's folder. The workers that Ray Train then starts again find it and
end at once, and the driver raises it.
"""

from typing import Any

from raysd.errors import UserError, find_user_error
from raysd.storage.location import Location

ERROR = "error.json"


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

        causes = [getattr(error, "health_check_failure", error) for error in worker_exceptions.values()]
        if any(getattr(cause, "preempted", False) for cause in causes):
            return
        lost = [cause for cause in causes if isinstance(cause, RayActorError)]
        self.count, self.num_lost = self.count + 1, self.num_lost + bool(lost)
        if self.count <= self.most:
            return
        why = " ".join(str([*lost, *causes][0]).split())
        if self.num_lost and not self.folder.exists(ERROR):
            what = f"workers were lost {self.count} times without a checkpoint in between ({why[:200]})"
            remedy = f"{what}; look after the nodes, or lower it"
            error = UserError("training.checkpoint_steps", self.checkpoint_steps, remedy)
            self.folder.write(ERROR, error.to_json().encode())
        raise RuntimeError(f"the workers failed {self.count} times without a checkpoint in between: {why}")


def failure_callback(folder: Location, most: int, checkpoint_steps: int) -> Any:
    """Return a `FailureCount` that Ray Train calls."""
    from ray.train.v2.api.callback import UserCallback

    return type("FailureCallback", (FailureCount, UserCallback), {})(folder, most, checkpoint_steps)


def train_worker(config: dict[str, Any]) -> None:
    """Train all classifiers of a run; `config["loop"]` is a reference to its `LoopConfig`."""
    import ray

    from raysd.training.loop import train_seeds
    from raysd.training.workers import RayTrainWorkers

    loop = ray.get(config["loop"])
    folder = Location(loop.root).child("runs", loop.run)
    if folder.exists(ERROR):
        return
    try:
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
