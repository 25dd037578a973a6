"""Parts of a JSON schema in plain words: the type of a value, its range, unit and default."""

import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
COUNTED = ("text", "whole number", "number", "any value", "section")  # words with a plural
NUMBERS = {2: "two", 3: "three", 4: "four"}
LARGE = 2**40  # from here on, powers of two are written as such


def type_in_words(schema: dict[str, Any]) -> str:
    """Return the type of a value, as `list of whole numbers or null`."""
    if kinds := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(sorted(dict.fromkeys(map(type_in_words, kinds)), key=_place))
    if "$ref" in schema:
        return "section"
    if "enum" in schema:
        return "one of " + ", ".join(map(as_yaml, schema["enum"]))
    if "const" in schema:
        return as_yaml(schema["const"])
    if schema.get("type") == "array":
        return _list_in_words(schema)
    if schema.get("type") == "object":
        values = [type_in_words(each) for each in _values(schema)] or ["any value"]
        return f"mapping of names to {_plural(values[0])}"
    return TYPES.get(schema.get("type", ""), "any value")


def range_in_words(schema: dict[str, Any]) -> str:
    """Return the limits of a number, or of each number of a list, as `1 to 100`; empty where there are none."""
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    limits = {"at least": low, "above": above, "at most": high, "below": below}
    said = [f"{words} {_number(limit)}" for words, limit in limits.items() if limit is not None]
    return ", ".join(said) or next(filter(None, map(range_in_words, _inner(schema))), "")


def unit_of(schema: dict[str, Any]) -> str:
    """Return what a number, or each number of a list, counts; empty where that is not said."""
    return str(schema.get("unit") or next(filter(None, map(unit_of, _inner(schema))), ""))


def default_in_words(field: FieldInfo) -> str:
    """Return a default as it would stand in the file; empty for a section, `required` where there is none."""
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        values = field.default.model_dump(exclude_unset=True)
        return as_yaml(values) if values else ""
    return as_yaml(field.default)


def as_yaml(value: Any) -> str:
    """Return a value in one line, as it would stand in the file."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return str(value) or '""'


def _place(words: str) -> tuple[bool, bool]:
    """Return the order of types in words: simple ones first, null last."""
    return words == "null", words.startswith(("list", "mapping"))


def _list_in_words(schema: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        kinds = [type_in_words(kind) for kind in schema["prefixItems"]]
        return f"list of {NUMBERS.get(len(kinds), len(kinds))} {_plural(kinds[0])}"
    least = schema.get("minItems", 0)
    return f"list of {'one or more ' if least else ''}{_plural(type_in_words(schema.get('items', {})))}"


def _plural(words: str) -> str:
    """Return the plural of a type in words."""
    return " or ".join(f"{word}s" if word in COUNTED else word for word in words.split(" or "))


def _inner(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas of what a value may be or hold."""
    items = [schema["items"]] if isinstance(schema.get("items"), dict) else []
    kinds = [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("prefixItems", [])]
    return [*kinds, *items, *_values(schema)]


def _values(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas of the values of a mapping."""
    other = schema.get("additionalProperties")
    return [*schema.get("patternProperties", {}).values(), *([other] if isinstance(other, dict) else [])]


def _number(value: float) -> str:
    if value >= LARGE and value == 2 ** (int(value).bit_length() - 1):
        return f"2^{int(value).bit_length() - 1}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else f"{value:g}"
