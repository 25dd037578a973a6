"""The exceptions that users meet: what they can mend, and what failed again and again."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

T = TypeVar("T")
MOST_TRIES = 4  # of what raises another exception each time
LONGEST_REASON = 300  # characters
REMEDIES = {
    "extra_forbidden": "unknown key; see the JSON schema (raysd schema) for the known ones, or raysd explain",
    "missing": "is required; add it",
    "string_pattern_mismatch": "has characters that are not allowed here; it must match {pattern}",
    "string_too_short": "is empty; give a text",
    "too_short": "has too few values; give at least {min_length}",
    "too_long": "has too many values; give at most {max_length}",
}
KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "literal_error": "{expected}",
    "list_type": "a list, as [a, b]",
    "tuple_type": "a list, as [a, b]",
    "dict_type": "keys and values, as {{key: value}}",
    "model_type": "keys and values, as {{key: value}}",
}
"""What a value should have been, by pydantic's name of the error."""


class UserError(ValueError):
    """Bad input, said in one line: the field, its value and the remedy. The command line prints it and exits with
    code 2."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        remedy = "\\n".join(remedy.splitlines())  # as a file's name may hold
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
    def from_validation(
        error: "ValidationError", prefix: str = "", values: Any = None, model: "type[BaseModel] | None" = None
    ) -> "UserError":
        """Return the first error that pydantic found; where a value may be of several kinds, that of the kind that was
        meant.

        Args:
            error: what pydantic raised.
            prefix: where the values stand in the experiment file, as `training.recipe_options`.
            values: what was validated. Without them, a field may also name the kinds of value that pydantic tried.
            model: that validated them; its keys are proposed for one that is nearly right.
        """
        deepest = max(len(_keys(each, values)) for each in error.errors())
        errors = [each for each in error.errors() if len(_keys(each, values)) == deepest]
        found = next((each for each in errors if each["type"] not in KINDS), errors[0])
        keys = _keys(found, values)
        field = ".".join([*([prefix] if prefix else []), *keys])
        if isinstance(own := found.get("ctx", {}).get("error"), UserError):
            is_whole = field == own.field or field.endswith(f".{own.field}")
            return UserError(field if is_whole else f"{field}.{own.field}", own.value, own.remedy)
        remedy = _remedy(found, [each for each in errors if _keys(each, values) == keys])
        if model is not None and found["type"] == "extra_forbidden":
            remedy = remedy.replace("; ", f"{meant(str(found['loc'][-1]), _known_keys(model, found['loc']))}; ", 1)
        return UserError(field, found.get("input"), remedy)


def meant(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean ...?` for a name that is nearly one of the known ones; nothing for others."""
    close = get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def find_user_error(error: BaseException | None) -> UserError | None:
    """Return the user's error behind an exception that came through Ray's tasks, or None."""
    while error is not None:
        cause = getattr(error, "cause", None)
        for candidate in (cause, error):
            if isinstance(candidate, UserError):
                return candidate
        error = cause if isinstance(cause, BaseException) and cause is not error else error.__cause__
    return None


def _known_keys(model: "type[BaseModel]", loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys beside a place in what a model validates."""
    kinds = [model]
    for part in loc[:-1]:  # a part that is no field is the number or the key of an entry, or a kind of value
        fields = [kind.model_fields[str(part)] for kind in kinds if str(part) in kind.model_fields]
        kinds = [found for field in fields for found in _models_in(field.annotation)] if fields else kinds
    return [name for kind in kinds for name in kind.model_fields]


def _models_in(annotation: Any) -> "list[type[BaseModel]]":
    """Return the models that an annotation names, as in `list[Model] | None`."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers, text, lists and mappings stay the same."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else str(value)


def _remedy(error: "ErrorDetails", others: list["ErrorDetails"]) -> str:
    """Return what to do about an error of pydantic.

    Args:
        error: what is wrong.
        others: all errors of the same value: what else it might have been.
    """
    if error["type"] in KINDS:
        kinds = [KINDS[each["type"]].format(**each.get("ctx", {})) for each in others if each["type"] in KINDS]
        return f"give {' or '.join(dict.fromkeys(kinds))}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    known = REMEDIES.get(error["type"])
    return known.format(**error.get("ctx", {})) if known else message[:1].lower() + message[1:]


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
