"""What the commands of the command line have in common: options that each of them takes, and answers as JSON.

With `--json`, the standard output holds one JSON document and nothing else: the answer, or the error. All that is said
on the way goes to the error stream.
"""

import contextlib
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TextIO

import typer

from raysd.errors import UserError
from raysd.progress import be_quiet, be_verbose

JSON = "--json"


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
