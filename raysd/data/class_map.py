"""The match between the classes of a real data set and the classes of the class table."""

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysd.clone.export import folder_names, former_folder_name
from raysd.clone.shard import class_labels
from raysd.data.images import ImageSet, class_names, read_labels
from raysd.errors import UserError
from raysd.prompts.table import ClassTable
from raysd.storage.local_copy import local_file

LEFT_OUT = -1
EXPORTED_DIGITS = 5
AS_SHARED = "{name: .., shared_classes: true}"
"""How a test or validation set is given that has not the same classes as the table."""
Target = str | list[str] | None


@dataclass(frozen=True)
class ClassMatch:
    """Meaning of the labels of a set."""

    label_map: tuple[int, ...] | None
    """The table's label for each label of the set, -1 where its images are left out; None when they are the same."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Groups of the table's labels that count as one class; images carry the first."""


def match_classes(
    images: ImageSet, table: ClassTable, shared_classes: bool = False, class_map: str | None = None
) -> ClassMatch:
    """Match the classes of a set to those of the table by key or name.

    Case and punctuation do not count where no name is equal.

    Args:
        images: the set.
        table: the classes.
        shared_classes: whether to leave out classes that the table does not have.
        class_map: a JSON file that gives the match: for each class of the set a key or name of the table, a list of
            them that count as right, or null.

    Raises:
        UserError: a class is not in the table, or its name is that of several classes; two classes match one of the
            table's; no class matches; the set has more labels than the table; or the map does not fit.
    """
    names, labels = class_names(images), read_labels(images)
    used = set(labels.tolist())
    indexes = [_labels_by(table.keys), _labels_by(table.names), _labels_by([_plain(name) for name in table.names])]
    if class_map is not None:
        return _match_by_map(
            class_map,
            names or [str(label) for label in range(int(labels.max(initial=-1)) + 1)],
            used,
            indexes,
            table,
            shared_classes,
        )
    if not names:
        _check_numbers(images.name, labels, table)
        return ClassMatch(None)
    if names in (table.names, table.keys):
        return ClassMatch(None)
    folders = folder_names(class_labels(table))
    is_export = set(names) == set(folders)
    mapping, taken = [0] * len(names), dict[int, int]()
    exported = _labels_by([_exported_key(former_folder_name(0, key)) for key in table.keys])
    for label in sorted(used):
        found = folders.index(names[label]) if is_export else None
        found = _find_class("real data set", images.name, names[label], indexes, table) if found is None else found
        found = _exported_label(names[label], exported) if found is None else found
        if found is None and not shared_classes:
            shown = ", ".join(table.keys[:5])
            why = f"its class {names[label]!r} is in no row of the class table"
            remedy = f"{why}; name it as one of {shown}, ..., or give a test set as {AS_SHARED} or with a class_map"
            raise UserError("real data set", images.name, remedy)
        if found is not None and (other := taken.setdefault(found, label)) != label:
            both = f"its classes {names[other]!r} and {names[label]!r} are both {table.keys[found]!r}"
            remedy = f"{both} of the class table; give a class map, or rename one"
            raise UserError("real data set", images.name, remedy)
        mapping[label] = LEFT_OUT if found is None else found
    if used and all(mapping[label] == LEFT_OUT for label in used):
        raise UserError(
            "real data set",
            images.name,
            f"shares no class with the class table; its classes are {', '.join(names[:5])}, ...",
        )
    return ClassMatch(None if all(mapping[label] == label for label in used) else tuple(mapping))


def _check_numbers(name: str, labels: np.ndarray, table: ClassTable) -> None:
    """Check that labels without names are those of the class table.

    Raises:
        UserError: a label beyond the table, or labels that begin at 1, as if they were shifted by one.
    """
    first, last = int(labels.min()), int(labels.max())
    if first != 1 and last < len(table):
        return
    end = len(table) - 1
    what = f"has the labels {first} to {last} without names, and the classes of the table are 0 to {end}"
    example = json.dumps({str(first): table.keys[0]}, ensure_ascii=False)[:-1] + ", ...}"
    change = "number them from 0" if first else "use a table with all of them"
    remedy = f"{change}, or give a test set with a class_map, as {example}"
    raise UserError("real data set", name, f"{what}; {remedy}")


def _exported_key(folder: str) -> str:
    return folder.partition("_")[2]


def _exported_label(folder: str, exported: dict[str, list[int]]) -> int | None:
    """Return the label of a folder that version 0.1.0 exported, as `00003_dress`: that of its key; its number tells
    keys apart that are written alike."""
    number = folder.partition("_")[0]
    if len(number) < EXPORTED_DIGITS or not number.isdecimal():
        return None
    labels = exported.get(_exported_key(folder), [])
    return labels[0] if len(labels) == 1 else next((label for label in labels if label == int(number)), None)


def _match_by_map(
    path: str,
    names: list[str],
    used: set[int],
    indexes: list[dict[str, list[int]]],
    table: ClassTable,
    shared_classes: bool,
) -> ClassMatch:
    given = read_class_map(path)
    mapping, groups = [LEFT_OUT] * len(names), list[tuple[int, ...]]()
    for label in sorted(used):
        name = names[label]
        if name not in given:
            raise UserError(
                "class_map",
                path,
                f"lacks the class {name!r} of the set; map it to a class of the table, or to null to leave it out",
            )
        target = given[name]
        texts = [] if target is None else [target] if isinstance(target, str) else target
        found = [_target(path, name, text, indexes, table, shared_classes) for text in texts]
        group = tuple(dict.fromkeys(label for label in found if label is not None))
        if len(group) > 1 and not any(set(group) == set(other) for other in groups):
            groups.append(group)
        mapping[label] = group[0] if group else LEFT_OUT
    first: dict[int, int] = {}
    for group in groups:
        for member in group:
            if member in first:
                raise UserError(
                    "class_map", path, f"names {table.keys[member]!r} in two lists that are not the same; make them one"
                )
            first[member] = group[0]
    if used and all(mapping[label] == LEFT_OUT for label in used):
        raise UserError(
            "class_map", path, "leaves out every class of the set; map one to a key or name of the class table"
        )
    mapping = [first.get(label, label) for label in mapping]
    return ClassMatch(None if all(mapping[label] == label for label in used) else tuple(mapping), tuple(groups))


def read_class_map(path: str, field: str = "class_map") -> dict[str, Target]:
    """Read a class map from its file.

    Args:
        path: the file's path.
        field: the setting that names the file.

    Raises:
        UserError: no such file, no JSON object, or a class is mapped to something else than text, a list of texts, or
            null.
    """
    try:
        text = local_file(field, path).read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_once_each)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such user, or too deep a nesting
        raise UserError(field, path, f"cannot be read as JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise UserError(field, path, 'is no JSON object; write {"class of the set": "class of the table", ...}')
    for name, target in content.items():
        texts = target if isinstance(target, list) else [] if target is None else [target]
        if not all(isinstance(text, str) for text in texts) or target == []:
            raise UserError(
                field,
                path,
                f"maps the class {name!r} to {target!r}; give the key or name of a class, a list of such, or null",
            )
    return content


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: a key stands twice.
    """
    names = [name for name, _ in pairs]
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise ValueError(f"the class {twice!r} stands twice")
    return dict(pairs)


def _target(
    path: str, name: str, text: str, indexes: list[dict[str, list[int]]], table: ClassTable, shared_classes: bool
) -> int | None:
    found = _find_class("class_map", path, text, indexes, table)
    if found is None and not shared_classes:
        raise UserError(
            "class_map", path, f"maps the class {name!r} to {text!r}, which is in no row of the class table"
        )
    return found


def count_left_out(images: ImageSet, label_map: tuple[int, ...] | None) -> dict[str, int]:
    """Return how many classes and images of a set a label map leaves out; empty when none."""
    if label_map is None or LEFT_OUT not in label_map:
        return {}
    labels = read_labels(images)
    lost = labels[np.array(label_map)[labels] == LEFT_OUT]
    return {"num_classes_left_out": len(np.unique(lost)), "num_left_out": len(lost)}


def _labels_by(names: list[str]) -> dict[str, list[int]]:
    labels: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        labels.setdefault(name, []).append(label)
    return labels


def _find_class(
    field: str, value: str, name: str, indexes: list[dict[str, list[int]]], table: ClassTable
) -> int | None:
    """Return the label of the class with this key or name, or with a name that differs in case and punctuation only."""
    for index, wanted in zip(indexes, (name, name, _plain(name)), strict=True):
        if len(labels := index.get(wanted, []) if wanted else []) > 1:
            keys = [table.keys[label] for label in labels]
            raise UserError(
                field,
                value,
                f"its class {name!r} is the name of {len(keys)} classes; use a key, {' or '.join(keys)}",
            )
        if labels:
            return labels[0]
    return None


def _plain(name: str) -> str:
    """Return a name without case and punctuation. The marks of a script belong to its letters."""
    kept: list[str] = []
    for sign in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()):
        if sign.isalnum() or (unicodedata.category(sign).startswith("M") and kept and kept[-1][-1] != " "):
            kept.append(sign)
        else:
            kept.append(f" {sign} " if sign in "+#" else " ")
    return " ".join("".join(kept).split())
