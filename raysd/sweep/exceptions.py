"""What a trial does about an exception that no setting explains.

The first one is raised, so that Tune starts the trial again in a new process: the next may find a GPU with its memory
free. After two equal ones, or four in all, to try again is in vain: the setting is listed with its reason, and the
others go on. A trial remembers nothing, so what it raised is noted in the storage, until the sweep is started again.

A dead process is another thing than an exception. Nothing is noted then; Tune starts the trial again, a few times.
"""

import json
from dataclasses import dataclass

from raysd.errors import find_user_error, has_failed, root_cause
from raysd.storage.location import Location


@dataclass(frozen=True)
class Exceptions:
    """What the trials of a sweep raised since it was started.

    Args:
        folder: of the notes.
    """

    folder: Location

    def clear(self) -> None:
        """Forget all, since a sweep that is started again tries again what failed."""
        self.folder.delete_folder()

    def reason(self, job: str, error: Exception) -> str:
        """Return why a job has failed, where to try again would be in vain; else raise the exception.

        Args:
            job: its name.
            error: what it raised.
        """
        if find_user_error(error) is not None or is_death(error):
            raise error
        name = f"{job}.json"
        reasons: list[str] = json.loads(self.folder.read(name)) if self.folder.exists(name) else []
        failed = has_failed(reasons, error)
        self.folder.write(name, json.dumps(reasons).encode())
        if not failed:
            raise error
        return reasons[-1]


def is_death(error: Exception) -> bool:
    """Return whether a process that was waited for has died, and raised nothing itself."""
    from ray.exceptions import RayError, RayTaskError

    cause = root_cause(error)
    return isinstance(cause, RayError) and not isinstance(cause, RayTaskError)
