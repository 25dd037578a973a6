"""The number format in which a training computes.

`auto` is answered where the work runs, since the machine that starts a training need not have the workers' devices. A
classifier's fingerprint therefore says `auto`, and its record what the answer was.
"""

from typing import TYPE_CHECKING, Any

from raysd.classifier.architecture import load_record
from raysd.storage.change import change
from raysd.storage.location import Location

if TYPE_CHECKING:
    import torch

    from raysd.training.workers import Workers

AUTO = "auto"
ANSWERS = ("float32", "bfloat16")
"""The answers to `auto`; all devices can compute in the first one."""
NOTE = "precision.txt"
ASKED = "asked_precision"
"""What the settings said, in a record; records that an older raysd wrote lack it."""


def best_precision(device: "torch.device") -> str:
    """Return the format that suits a device."""
    from raysd.device import has_bfloat16

    return ANSWERS[has_bfloat16(device)]


def agreed_precision(asked: str, workers: "Workers", shared: Location | None) -> str:
    """Return the format in which all workers of a training compute; all of them call this.

    Args:
        asked: as the settings say; `auto` is the best one that every worker's device has.
        workers: the workers.
        shared: a folder where the first of several trainings that are compared notes its answer, which the others take.
    """
    from raysd.training.workers import least_over_workers

    if asked != AUTO:
        return asked
    answer = least_over_workers(ANSWERS.index(best_precision(workers.device)), workers.device)
    if shared is None:
        return ANSWERS[answer]
    noted = _noted(shared, ANSWERS[answer]) if workers.rank == 0 else ANSWERS[-1]
    return ANSWERS[least_over_workers(ANSWERS.index(noted), workers.device)]


def _noted(folder: Location, answer: str) -> str:
    """Return the answer in the note of a folder; this one where there is no note yet, and write it."""
    there: list[str] = []

    def note(old: bytes | None) -> bytes | None:
        there[:] = [old.decode()] if old is not None and old.decode() in ANSWERS else []
        return None if there else answer.encode()

    change(folder, NOTE, note)
    return there[0] if there else answer


def is_earlier(record: dict[str, Any] | None) -> bool:
    """Return whether a classifier's record is there and was written by a raysd that answered `auto` on the machine that
    started a training, with the answer in the fingerprint."""
    return record is not None and ASKED not in record


def earlier_answer(folders: dict[str, Location]) -> str | None:
    """Return the answer to `auto` with which an older raysd trained a classifier; None where it is not there.

    Args:
        folders: the classifier's folder by answer.
    """
    found = [answer for answer, folder in folders.items() if is_earlier(load_record(folder))]
    if len(found) < 2:
        return found[0] if found else None
    import torch  # one of them was asked for by name: the answer of that raysd on this machine tells which

    return best_precision(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
