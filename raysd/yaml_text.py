"""YAML by the core schema of YAML 1.2, in which a value keeps the characters that the file has.

A plain `007` is a number where a number is wanted and the text `007` where a text is. `yes`, `no`, `on`, `off`,
`12:30`, `1_000` and dates are texts, which PyYAML's YAML 1.1 takes for other things.

Source: YAML 1.2.2, chapter 10.3.2.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticUndefined

from raysd.errors import UserError

NULLS = ("", "~", "null", "Null", "NULL")
BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTS = (
    (10, re.compile(r"[-+]?\d+", re.ASCII)),
    (8, re.compile(r"0o[0-7]+", re.ASCII)),
    (16, re.compile(r"0x[\da-fA-F]+", re.ASCII)),
)
FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)
SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF|nan|NaN|NAN)")
NUMBERS = (int, float, bool)
MOST_DIGITS = 4000
"""Python reads no longer numbers."""
MOST_VALUES = 300_000
"""Of a file; aliases of aliases could make any number of them."""
MERGE = "tag:yaml.org,2002:merge"
TEXT = "tag:yaml.org,2002:str"
CONTAINERS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

Kind = Any
"""A type as it stands in an annotation."""


@dataclass(frozen=True)
class Plain:
    """A value without quotes: the characters of the file."""

    text: str

    @property
    def value(self) -> str | int | float | bool | None:
        """The value by the core schema."""
        if self.text in NULLS:
            return None
        if self.text in BOOLS:
            return BOOLS[self.text]
        for base, form in INTS:
            if len(self.text) < MOST_DIGITS and form.fullmatch(self.text):
                return int(self.text, base)
        if FLOAT.fullmatch(self.text):
            return float(self.text)
        if special := SPECIAL.fullmatch(self.text):
            return float(special[1] + special[2].lower())
        return self.text


def decode_text(data: bytes) -> str:
    """Return a file's text: UTF-8, or UTF-16 with the mark at its start that Excel and Notepad write.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")


def read_yaml(text: str) -> Any:
    """Return what a YAML text holds: mappings with texts for keys, lists, texts for values in quotes, and `Plain`.

    Raises:
        yaml.YAMLError: it is malformed, has a key twice, has a tag that asks for anything but a text, or holds more
            than 300,000 values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _read(loader, node, count(1))
    except RecursionError:
        raise yaml.YAMLError("it refers to itself, or is nested too deeply") from None
    finally:
        loader.dispose()


def _read(loader: yaml.SafeLoader, node: yaml.Node, counter: Iterator[int]) -> Any:
    if next(counter) > MOST_VALUES:
        raise yaml.YAMLError(f"it holds more than {MOST_VALUES:,} values, with those that aliases repeat")
    if isinstance(node, yaml.ScalarNode):
        return _read_scalar(loader, node)
    if node.tag not in CONTAINERS:
        raise yaml.YAMLError(f"the tag {node.tag!r} is not allowed")
    if isinstance(node, yaml.SequenceNode):
        return [_read(loader, item, counter) for item in node.value]
    assert isinstance(node, yaml.MappingNode)
    own = Counter(_key(key) for key, _ in node.value if key.tag != MERGE)
    if twice := next((key for key, times in own.items() if times > 1), None):
        raise yaml.YAMLError(f"the key {twice!r} stands twice")
    loader.flatten_mapping(node)
    return {_key(key): _read(loader, value, counter) for key, value in node.value}


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.YAMLError("a key is no text")
    return str(node.value)


def _read_scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str | Plain:
    is_plain = node.style is None
    if node.tag == loader.resolve(yaml.ScalarNode, node.value, (is_plain, not is_plain)):
        return Plain(node.value) if is_plain else str(node.value)
    if node.tag == TEXT:
        return str(node.value)
    raise yaml.YAMLError(f"the tag {node.tag!r} is not allowed")


def describe_error(error: Exception) -> str:
    """Return in one line what is wrong with a YAML text, and where."""
    if isinstance(error, UnicodeDecodeError):
        return "no UTF-8 text; save it as UTF-8"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem}, line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    return (str(error) or type(error).__name__).splitlines()[0]


def read_value(text: str, kinds: Sequence[Kind]) -> Any:
    """Return a value from a command line: as it stands where a text is wanted, else as YAML reads it.

    A list or mapping in brackets, a text in quotes, and null where nothing is allowed are read as YAML there, too.

    Args:
        text: the value.
        kinds: what it may be; see `members`.

    Raises:
        yaml.YAMLError: see `read_yaml`.
    """
    if not _wants_text(kinds) or _is_marked(text, kinds):
        return fit(read_yaml(text), kinds)
    return None if NoneType in kinds and text in NULLS else text


def _is_marked(text: str, kinds: Sequence[Kind]) -> bool:
    """Return whether a value for a text is written as something else in YAML."""
    if text.startswith(("[", "{")):
        return any(_is_container(kind) for kind in kinds)
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0]:
        return False
    try:
        return isinstance(read_yaml(text), str)
    except yaml.YAMLError:
        return False


def members(annotation: Kind) -> list[Kind]:
    """Return the types that an annotation allows, without what is said beside them; those of the input where another
    form is read, too."""
    origin: Any = get_origin(annotation)
    if origin is Annotated:
        kind, *beside = get_args(annotation)
        read = [each.json_schema_input_type for each in beside if isinstance(each, BeforeValidator)]
        return members(next((each for each in read if each is not PydanticUndefined), kind))
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in members(part)]
    return [annotation]


def children(kinds: Sequence[Kind], key: str | None) -> list[Kind]:
    """Return what a value under a key, or in a list where the key is None, may be; nothing where that is not known."""
    return [inner for kind in kinds for inner in _children_of(kind, key)]


def _children_of(kind: Kind, key: str | None) -> list[Kind]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = None if key is None else kind.model_fields.get(key)
        return [] if field is None else members(field.annotation)
    origin: Any = get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, (list, tuple, set) if key is None else Mapping):
        return members(next(part for part in reversed(get_args(kind)) if part is not Ellipsis))
    return []


def fit(value: Any, kinds: Sequence[Kind]) -> Any:
    """Return what `read_yaml` found as plain values: texts where a text is wanted, else numbers, truth values, None."""
    if isinstance(value, Plain):
        return _fit_plain(value, kinds)
    if isinstance(value, dict):
        return {key: fit(inner, children(kinds, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [fit(inner, children(kinds, None)) for inner in value]
    return value


def _fit_plain(plain: Plain, kinds: Sequence[Kind]) -> Any:
    value = plain.value
    if value is None:
        return plain.text if _wants_text(kinds) and NoneType not in kinds and plain.text.isalpha() else None
    return plain.text if _wants_text(kinds) or plain.text in _words(kinds) else value


def _wants_text(kinds: Sequence[Kind]) -> bool:
    """Return whether a text is allowed and no number."""
    return any(kind is str or _is_literal(kind) for kind in kinds) and not any(kind in NUMBERS for kind in kinds)


def _is_literal(kind: Kind) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal and all(isinstance(word, str) for word in get_args(kind))


def _words(kinds: Sequence[Kind]) -> list[Any]:
    origins: list[Any] = [get_origin(kind) for kind in kinds]
    return [word for kind, origin in zip(kinds, origins, strict=True) if origin is Literal for word in get_args(kind)]


def _is_container(kind: Kind) -> bool:
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, list | tuple | set | Mapping | BaseModel)


def check_truth_values(value: Any, kinds: Sequence[Kind], field: str) -> None:
    """Check that no truth value stands where a number is wanted: pydantic takes it for 0 or 1.

    Raises:
        UserError: one does.
    """
    if isinstance(value, bool) and {int, float} & set(kinds) and bool not in kinds:
        raise UserError(field, value, "is no number; give one")
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        within = children(kinds, str(key) if isinstance(value, dict) else None)
        check_truth_values(inner, within, f"{field}.{key}" if field else str(key))


def write_yaml(values: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    """Return an experiment file with comments at its top, one a line."""
    top = "".join(f"# {line}\n" for comment in comments if (line := _one_line(comment)))
    return top + OmegaConf.to_yaml(OmegaConf.create(_literal(dict(values))))


def _one_line(text: str) -> str:
    """Return text without line breaks and characters that YAML forbids."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _literal(value: Any) -> Any:
    """Return the value with `${` escaped, which would be a reference."""
    if isinstance(value, dict):
        return {key: _literal(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(each) for each in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
