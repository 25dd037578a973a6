"""A row of the table of odd inputs, and what came of it."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raysd.errors import UserError

AS_WANTED = "as wanted"
SILENT, TRACEBACK = "a wrong result, silently", "a traceback"
REFUSED_WRONGLY, UNCLEAR = "refused, though it means something plain", "refused without naming field, value or remedy"


@dataclass(frozen=True)
class Row:
    """An odd input, and what must come of it: either `pieces` of the message that refuses it, or a `fact`."""

    name: str
    do: Callable[[Path], Any]
    """Brings the input in an empty folder, and returns what the product made of it."""
    pieces: tuple[str, ...] = ()
    """Of the one line that refuses it: the field, the value, the remedy."""
    fact: Callable[[Any], Any] | None = None
    """What must hold of the answer."""
    fails: str = ""
    """Why the product does otherwise for now."""
    soak: bool = False
    """Whether it takes so long that it is run with the soak tests alone."""


def refused(name: str, do: Callable[[Path], Any], *pieces: str) -> Row:
    """Return the row of an input that must be refused with these pieces in the message."""
    return Row(name, do, pieces)


def accepted(name: str, do: Callable[[Path], Any], fact: Callable[[Any], Any]) -> Row:
    """Return the row of an input that must be taken, with a fact that holds of the answer."""
    return Row(name, do, fact=fact)


def known_to_fail(row: Row, why: str) -> Row:
    """Return the row marked as one that fails for now."""
    return replace(row, fails=why)


def long(row: Row) -> Row:
    """Return the row marked as one that takes long."""
    return replace(row, soak=True)


def outcome_of(row: Row, folder: Path) -> tuple[str, str]:
    """Bring an input; return what came of it in a word, and what was said."""
    try:
        answer = row.do(folder)
    except UserError as error:
        return _of_refusal(row, str(error))
    except Exception as error:
        return TRACEBACK, f"{type(error).__name__}: {error}"
    is_refused = isinstance(answer, subprocess.CompletedProcess) and answer.returncode == 2
    return _of_refusal(row, _one_line(answer)) if is_refused else _of_answer(row, answer)


def _of_refusal(row: Row, message: str) -> tuple[str, str]:
    if row.fact is not None:
        return REFUSED_WRONGLY, message
    is_clear = "\n" not in message and len(message) < 1000 and all(piece in message for piece in row.pieces)
    return (AS_WANTED if is_clear else UNCLEAR), message


def _of_answer(row: Row, answer: Any) -> tuple[str, str]:
    if "Traceback" in getattr(answer, "stderr", ""):
        return TRACEBACK, answer.stderr
    holds = row.fact is not None and bool(row.fact(answer))
    return (AS_WANTED if holds else SILENT), repr(answer)[:500]


def _one_line(finished: subprocess.CompletedProcess) -> str:
    """Return the error of a command: its last lines without the frame that Typer puts around them."""
    said = (finished.stderr or finished.stdout).splitlines()
    lines = [line.strip("│ ") for line in said if not line.startswith(("╭", "╰"))]
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[0] if errors else " ".join(lines)
