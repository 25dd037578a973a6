"""The exceptions that users meet: what they can mend, and what failed again and again."""

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

T = TypeVar("T")
MOST_TRIES = 4  # of what raises another exception each time
LONGEST_REASON = 300  # characters
REMEDIES = {
    "extra_forbidden": "unknown key; see the JSON schema (raysd schema) for the known ones",
    "missing": "is required; add it",
}


class UserError(ValueError):
    """Bad input, said in one line: the field, its value and the remedy. The command line prints it and exits with
    code 2."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field, self.value, self.remedy = field, value, remedy
        shown = repr(value)
        super().__init__(f"{field} = {shown if len(shown) <= 120 else shown[:117] + '...'}: {remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.remedy)

    def to_json(self) -> str:
        """Return the error as text that another process reads with `from_json`. A value that JSON cannot hold becomes
        its text."""
        return json.dumps([self.field, _plain(self.value), self.remedy])

    @staticmethod
    def from_json(text: str | bytes) -> "UserError":
        """Return the error that `to_json` wrote."""
        return UserError(*json.loads(text))

    @staticmethod
    def from_validation(error: "ValidationError", prefix: str = "", values: Any = None) -> "UserError":
        """Return the first error that pydantic found; where a value may be of several kinds, that of the kind that was
        meant.

        Args:
            error: what pydantic raised.
            prefix: where the values stand in the experiment file, as `training.recipe_options`.
            values: what was validated. Without them, a field may also name the kinds of value that pydantic tried.
        """
        found = max(error.errors(), key=lambda each: len(_keys(each, values)))
        field = ".".join([*([prefix] if prefix else []), *_keys(found, values)])
        message = found["msg"].removeprefix("Value error, ")
        return UserError(field, found.get("input"), REMEDIES.get(found["type"], message[:1].lower() + message[1:]))


def find_user_error(error: BaseException | None) -> UserError | None:
    """Return the user's error behind an exception that came through Ray's tasks, or None."""
    while error is not None:
        cause = getattr(error, "cause", None)
        for candidate in (cause, error):
            if isinstance(candidate, UserError):
                return candidate
        error = cause if isinstance(cause, BaseException) and cause is not error else error.__cause__
    return None


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers, text, lists and mappings stay the same."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else str(value)


def _keys(error: "ErrorDetails", values: Any) -> list[str]:
    """Return the keys that lead to an error, as they stand in the file; pydantic also names the kinds of value that it
    tried."""
    keys = []
    for part in error["loc"]:
        if isinstance(values, dict):
            is_there = part in values
        else:
            is_there = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if is_there:
            values = values[part]
        if is_there or (error["type"] == "missing" and part == error["loc"][-1]):
            keys.append(str(part))
    return keys or [str(part) for part in error["loc"]]


class Failure(RuntimeError):
    """Something failed that no setting explains, and failed alike again. The command line prints its one line and exits
    with code 1."""


def try_again(run: Callable[[], T]) -> T:
    """Return what a function returns; after an exception call it again, until two exceptions are equal.

    Raises:
        UserError: as the function raised it.
        Failure: two exceptions were equal, or all of four were different.
    """
    reasons: list[str] = []
    while True:
        try:
            return run()
        except Exception as error:
            if find_user_error(error) is not None:
                raise
            if has_failed(reasons, error):
                raise Failure(reasons[-1]) from error


def has_failed(reasons: list[str], error: BaseException) -> bool:
    """Add an exception to those before, and return whether to try again would be in vain.

    Args:
        reasons: of the earlier tries, as of `reason_of`.
        error: the exception.
    """
    reasons.append(reason_of(error))
    told = [re.sub(r"0x[0-9a-f]+|\d+", "#", reason) for reason in reasons]
    return told.count(told[-1]) > 1 or len(told) >= MOST_TRIES


def reason_of(error: BaseException) -> str:
    """Return what was raised in one line: the type of the exception and the first line of its message."""
    if isinstance(cause := root_cause(error), Failure):
        return str(cause)
    lines = str(cause).strip().splitlines()
    text = f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."


def root_cause(error: BaseException) -> BaseException:
    """Return the exception behind those that Ray's tasks and workers add."""
    while True:
        workers = getattr(error, "worker_failures", None)
        inner = next(iter(workers.values()), None) if isinstance(workers, Mapping) else getattr(error, "cause", None)
        if not isinstance(inner, BaseException) or inner is error:
            return error
        error = inner
