"""The entry of each Ray Train worker. It imports little, because the controller of Ray Train loads it, too.

An error that the user can fix is written to the run's folder. The workers that Ray Train then starts again find it and
end at once, and the driver raises it.
"""

from typing import Any

from raysd.errors import UserError, find_user_error
from raysd.storage.location import Location

ERROR = "error.json"


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
