"""The one exception that users meet."""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

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
        found = max(error.errors(), key=lambda each: len(_keys(each, values)))
        field = ".".join([*([prefix] if prefix else []), *_keys(found, values)])
        if isinstance(own := found.get("ctx", {}).get("error"), UserError):
            is_whole = field == own.field or field.endswith(f".{own.field}")
            return UserError(field if is_whole else f"{field}.{own.field}", own.value, own.remedy)
        message = found["msg"].removeprefix("Value error, ")
        remedy = REMEDIES.get(found["type"], message[:1].lower() + message[1:])
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
