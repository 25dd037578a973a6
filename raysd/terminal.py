"""What the commands of the command line have in common: options that each of them takes, and answers as JSON.

With `--json`, the standard output holds one JSON document and nothing else: the answer, or the error. All that is said
on the way goes to the error stream.
"""

import contextlib
import errno
import functools
import glob
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from raysd.errors import Failure, UserError
from raysd.progress import be_quiet, be_verbose

JSON = "--json"
NO_FILE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
FAILED = 1
"""Exit code of a command of which all failed."""
INTERRUPTED = 130
"""Exit code of a command that was stopped with Ctrl-C."""


Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="also show what Ray and its workers log")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="no progress and no notices: the answer, warnings and errors alone"),
]
AsJson = Annotated[bool, typer.Option(JSON, help="print the answer, or the error, as JSON")]


def with_options(function: Callable[..., None], has_json: bool) -> Callable[..., None]:
    """Return a command with the options that all have; the command itself does not get their values."""
    options: dict[str, Any] = {"verbose": Verbose, "quiet": Quiet, **({JSON[2:]: AsJson} if has_json else {})}

    @functools.wraps(function)
    def command(**values: Any) -> None:
        given = {name for name in options if values.pop(name)}
        if "verbose" in given:
            os.environ["RAYSD_VERBOSE"] = "1"
            be_verbose()
        if "quiet" in given:
            be_quiet()
        function(**values)

    signature = inspect.signature(function)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in options.items()
    ]
    parameters = [*signature.parameters.values(), *added]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


@dataclass
class Session:
    """One run of the command line."""

    is_by_hand: bool = False
    """Whether a user started it at a terminal, and no job that may be retried."""
    out: TextIO | None = None
    """Where the JSON document goes; None for answers as text."""

    def write(self, document: Any) -> None:
        """Write the JSON document."""
        if self.out is not None:
            json.dump(document, self.out, indent=2, ensure_ascii=False, default=str)
            self.out.write("\n")
            self.out.flush()

    def write_error(self, error: BaseException, exit_code: int) -> None:
        """Write an error as the JSON document."""
        found: dict[str, Any] = {"message": str(error) or type(error).__name__}
        if isinstance(error, UserError):
            found |= error_parts(error)
        self.write({"error": found, "exit_code": exit_code})


def error_parts(error: UserError) -> dict[str, Any]:
    """Return field, value and remedy of an error, as JSON can hold them."""
    return dict(zip(("field", "value", "remedy"), json.loads(error.to_json()), strict=True))


current = Session()
"""The run of this process; `opened` sets it."""


@contextlib.contextmanager
def opened(is_by_hand: bool, words: list[str]) -> Iterator[Session]:
    """Begin a run of the command line; with `--json` among its words, what is printed goes to the error stream."""
    global current
    before, verbosity = current, os.environ.get("RAYSD_VERBOSE")
    current = Session(is_by_hand, sys.stdout if JSON in words else None)
    try:
        with contextlib.nullcontext() if current.out is None else contextlib.redirect_stdout(sys.stderr):
            yield current
    finally:
        current = before
        if verbosity is None:
            os.environ.pop("RAYSD_VERBOSE", None)


def run(app: typer.Typer, session: Session) -> int:
    """Run the command; return the exit code, once the error is said if there is one."""
    try:
        code = app(prog_name="raysd", standalone_mode=session.out is None) or 0
        return _end(session, KeyboardInterrupt()) if code == INTERRUPTED else code
    except (UserError, Failure, KeyboardInterrupt) as error:
        return _end(session, error)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return _end(session, KeyboardInterrupt()) if code == INTERRUPTED else code
    except Exception as error:
        if isinstance(error, OSError | UnicodeEncodeError) and (line := _line_of(error)) is not None:
            return _end(session, line)
        if session.out is None:
            raise
        if isinstance(usage := getattr(error, "exit_code", None), int):  # bad options; as text, typer says them itself
            print(f"error: {error}", file=sys.stderr)
            session.write_error(error, usage)
            return usage
        session.write_error(error, 1)
        raise


def _end(session: Session, error: UserError | Failure | KeyboardInterrupt) -> int:
    """Say why the command ends; return its exit code."""
    if isinstance(error, Failure):
        text, code = "error: ", FAILED
    elif isinstance(error, UserError):
        error, text, code = getattr(error, "cause", None) or error, "error: ", 2
    else:
        error, text, code = KeyboardInterrupt("interrupted; the same command continues"), "", INTERRUPTED
    print(f"{text}{error}", file=sys.stderr)
    session.write_error(error, code)
    return code


def _line_of(error: OSError | UnicodeEncodeError) -> UserError | None:
    """Return in one line what a user can mend: a file that may not be written, a name that the locale lacks."""
    if isinstance(error, UnicodeEncodeError):
        remedy = f"the locale's encoding {error.encoding} lacks it; set PYTHONUTF8=1"
        return UserError("text", error.object[error.start : error.end], remedy)
    if error.filename is None or error.errno not in NO_FILE:
        return None
    return UserError("file", str(error.filename), f"{error.strerror}; allow it, or choose another place")


def complete_word(incomplete: str) -> list[str]:
    """Return the experiment files, folders and keys that a word may become, for the shell's completion."""
    folder, _, start = incomplete.rpartition("/")
    places = Path(folder or ("/" if incomplete.startswith("/") else ".")).glob(f"{glob.escape(start)}*")
    prefix = incomplete.removesuffix(start)
    found = [f"{prefix}{place.name}/" for place in places if place.is_dir() and not place.name.startswith(".")]
    files = Path(folder or ".").glob(f"{glob.escape(start)}*.y*ml")
    found += [f"{prefix}{place.name}" for place in files]
    if incomplete and not folder:
        from raysd.config import experiment_keys

        found += [f"{key}=" for key in experiment_keys() if key.startswith(incomplete)]
    return sorted(found)
