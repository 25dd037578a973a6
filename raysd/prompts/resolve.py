"""Prompt variants in an experiment file, resolved against a class table."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from raysd.errors import UserError
from raysd.prompts.lint import confused_classes
from raysd.prompts.settings import TextTable, VariantSettings
from raysd.prompts.table import ClassTable, split_cell
from raysd.prompts.table_file import FILES, is_binary, plain_text, read_rows
from raysd.prompts.variant import VARIABLE, PromptVariant, Weighted
from raysd.storage.local_copy import local_file

LISTS = Path(__file__).parent / "lists"
LARGEST_WEIGHT = 1e100
"""Sums of such weights are still numbers."""


@cache
def built_in_variants() -> dict[str, VariantSettings]:
    """Return the variants that ship with raysd, by name."""
    text = (Path(__file__).parent / "variants.yaml").read_text(encoding="utf-8")
    return {name: VariantSettings(**body) for name, body in yaml.safe_load(text).items()}


def resolve_variant(
    name: str,
    variants: dict[str, VariantSettings],
    table: ClassTable,
    field: str = "generation.variant",
    within: tuple[str, ...] = (),
) -> PromptVariant:
    """Return a variant with its lists and tables read, checked against the class table.

    Args:
        name: the variant's name.
        variants: the user's variants, beside the built-in ones.
        table: the classes.
        field: the setting that holds the name.
        within: names of the mixtures that contain this variant.

    Raises:
        UserError: unknown variant, list, column or variable, a file that cannot be read, or a class without a text.
    """
    settings = _with_base(name, variants, field, ())
    field = f"variants.{name}"
    if settings.mixture:
        if name in within:
            raise UserError(f"{field}.mixture", name, "contains itself; name other variants")
        parts = [
            (weight, resolve_variant(part, variants, table, f"{field}.mixture", (*within, name)))
            for part, weight in settings.mixture.items()
        ]
        if len({part.negative_prompt for _, part in parts}) > 1:
            raise UserError(
                f"{field}.mixture",
                ", ".join(settings.mixture),
                "its variants have different negative prompts; give them the same",
            )
        return PromptVariant(name=name, mixture=parts, negative_prompt=parts[0][1].negative_prompt)
    templates = _texts(f"{field}.templates", settings.templates)
    fields = {
        key: _texts(f"{field}.fields.{key}", value)
        for key, value in settings.fields.items()
        if not isinstance(value, TextTable)
    }
    _check_weights(field, settings, {**fields, "templates": templates})
    weights, read = dict(settings.weights), {}
    for key, value in settings.fields.items():
        if not isinstance(value, TextTable):
            continue
        if value.key is None:  # the same texts for all classes, held once
            texts = _read_shared_texts(f"{field}.fields.{key}", value)
            fields[key], weights[key] = [text for text, _ in texts], [weight for _, weight in texts]
        else:
            read[key] = _read_texts(f"{field}.fields.{key}", value, value.key, table)
    variant = PromptVariant(
        name=name,
        templates=templates,
        fields=fields,
        negative_prompt=settings.negative_prompt,
        weights=weights,
        class_fields={key: texts for key, (texts, _) in read.items()},
        unmatched={key: count for key, (_, count) in read.items() if count},
        names=settings.names,
        hypernym=settings.hypernym,
    )
    check_variables(field, variant, table)
    if settings.disambiguate is None:
        return variant
    confused = confused_classes(variant, table, settings.disambiguate_classes == "ambiguous")
    added = dict.fromkeys(confused, settings.disambiguate)
    disambiguated = variant.model_copy(update={"added": added})
    check_variables(field, disambiguated, table)
    return disambiguated


def _with_base(name: str, variants: dict[str, VariantSettings], field: str, seen: tuple[str, ...]) -> VariantSettings:
    """Return a variant with the values of its base: the one that it extends, or the built-in one of its name."""
    known = {**built_in_variants(), **variants}
    if name not in known:
        raise UserError(field, name, f"unknown; use one of {', '.join(known)}")
    settings = known[name]
    if settings.extends is not None:
        if settings.extends in seen or settings.extends == name:
            raise UserError(
                f"variants.{name}.extends", settings.extends, "leads back to itself; extend another variant"
            )
        base = _with_base(settings.extends, variants, f"variants.{name}.extends", (*seen, name))
    elif (
        settings is not built_in_variants().get(name)
        and name in built_in_variants()
        and not settings.templates
        and not settings.mixture
    ):
        base = built_in_variants()[name]
    elif not settings.templates and not settings.mixture:
        raise UserError(
            f"variants.{name}.templates", None, "give at least one template, a mixture, or a variant to extend"
        )
    else:
        return settings
    own = {key: getattr(settings, key) for key in settings.model_fields_set - {"extends"}}
    if own and base.mixture:
        remedy = f"{settings.extends or name} is a mixture, which takes all from its variants; set it on those"
        raise UserError(f"variants.{name}", ", ".join(sorted(own)), remedy)
    return base.model_copy(update=own)


def _texts(field: str, value: list[str] | str) -> list[str]:
    """Return the choices as written, or those of a built-in list."""
    if not isinstance(value, str):
        return list(value)
    known = sorted(path.stem for path in LISTS.glob("*.txt"))
    if value not in known:
        raise UserError(field, value, f"no such list; use one of {', '.join(known)}, or write the choices as a list")
    return (LISTS / f"{value}.txt").read_text(encoding="utf-8").splitlines()


def _check_weights(field: str, settings: VariantSettings, choices: dict[str, list[str]]) -> None:
    for name, weights in settings.weights.items():
        if name not in choices:
            raise UserError(
                f"{field}.weights.{name}",
                weights,
                f"has no choices to weigh; use one of {', '.join(choices)}",
            )
        if len(weights) != len(choices[name]):
            raise UserError(
                f"{field}.weights.{name}", weights, f"give {len(choices[name])} weights, one for each choice"
            )


def _read_shared_texts(field: str, source: TextTable) -> Weighted:
    """Return the texts and weights for all classes."""
    found = [(text, weight) for _, text, weight in _read_rows(field, source) if weight]
    if not found:
        raise UserError(field, source.table, "all weights are 0; give at least one text another weight")
    return found


def _read_texts(field: str, source: TextTable, key_column: str, table: ClassTable) -> tuple[dict[str, Weighted], int]:
    """Return the texts and weights of each class, by its key, and the number of rows that belong to no class."""
    texts: dict[str, Weighted] = {key: [] for key in table.keys}
    index, num_unmatched = _classes_by_name(table), 0
    for row, text, weight in _read_rows(field, source):
        keys = index.get(plain_text(row.get(key_column)).strip(), [])
        if len(keys) > 1:
            raise UserError(
                field, row[key_column], f"is the name of {len(keys)} classes; write their keys, {' and '.join(keys)}"
            )
        num_unmatched += not keys
        for key in keys:
            texts[key] += [(text, weight)] if weight else []
    if empty := [key for key, found in texts.items() if not found]:
        raise UserError(
            field,
            source.table,
            f"has no text for {len(empty)} classes, as {empty[0]!r}; give each class at least one row",
        )
    return texts, num_unmatched


def _read_rows(field: str, source: TextTable) -> Iterator[tuple[dict[str, object], str, float]]:
    """Yield each row of a table with its text and weight; once for each text of a list."""
    rows = _read_table(f"{field}.table", source.table)
    for column in (source.column, source.key, source.weight):
        if column is not None and column not in rows[0]:
            raise UserError(field, column, f"{source.table} has no such column; it has {', '.join(map(str, rows[0]))}")
    for number, row in enumerate(rows):
        cell, weight = row.get(source.column), _weight(field, source, row, number)
        if not _is_text(cell):
            remedy = f"in row {number + 1} of {source.table} is no text; name a column of texts"
            raise UserError(f"{field}.column", source.column, remedy)
        texts = _cell_texts(cell)
        if not texts:
            raise UserError(
                f"{field}.table", source.table, f"row {number + 1} has no {source.column}; fill it in or remove it"
            )
        yield from ((row, text, weight) for text in texts)


def _is_text(cell: Any) -> bool:
    """Return whether a cell holds a text, texts, or nothing; no mapping, and no vector of numbers."""
    if isinstance(cell, list):
        return all(_is_text(part) for part in cell)
    return cell != cell or not (isinstance(cell, dict | float) or is_binary(cell))


def _cell_texts(cell: Any) -> list[str]:
    """Return the text of a cell on one line, or the texts of a list of captions."""
    if isinstance(cell, list):
        return [text for part in cell for text in _cell_texts(part)]
    text = " ".join(plain_text(cell).split())
    return [text] if text else []


def _classes_by_name(table: ClassTable) -> dict[str, list[str]]:
    """Return the keys of the classes by class name, and each key by itself."""
    index: dict[str, list[str]] = {}
    for key, name in zip(table.keys, table.names, strict=True):
        index.setdefault(name, []).append(key)
    return index | {key: [key] for key in table.keys}


def _weight(field: str, source: TextTable, row: dict[str, object], number: int) -> float:
    if source.weight is None:
        return 1.0
    try:
        weight = float(str(row.get(source.weight)))
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= LARGEST_WEIGHT:
        remedy = f"in row {number + 1} of {source.table} is no number from 0 on, up to {LARGEST_WEIGHT:g}; correct it"
        raise UserError(f"{field}.weight", row.get(source.weight), remedy)
    return weight


def _read_table(field: str, source: str) -> list[dict[str, Any]]:
    path = local_file(field, source)
    if not path.is_file():
        raise UserError(field, source, f"no such file; give the path of a {FILES} file")
    rows = read_rows(field, source, path)
    if not rows:
        raise UserError(field, source, "the table is empty; give each class at least one row")
    return rows


def check_variables(field: str, variant: PromptVariant, table: ClassTable) -> None:
    """Check a variant's templates against a class table.

    Raises:
        UserError: an unknown variable, or a column that is empty for a class that uses it.
    """
    rows = {row["key"]: row for row in table.rows}
    for key, column in variant.added.items():
        if not split_cell(rows[key].get(column, "")):
            raise UserError(
                f"{field}.disambiguate", column, f"class {key!r} has no {column}; fill it in or use another column"
            )
    for template in variant.templates:
        for variable in VARIABLE.findall(template):
            if variable in variant.free_fields:
                continue
            if variable not in table.columns:
                known = ", ".join([*table.columns, *variant.fields, *variant.class_fields])
                raise UserError(
                    f"{field}.templates",
                    template,
                    f"unknown variable {{{variable}}}; the class table and fields have: {known}",
                )
            for row in table.rows:
                if not split_cell(row.get(variable, "")):
                    unknown = "; WordNet does not know its name" if row.get("senses") == "0" else ""
                    raise UserError(
                        f"{field}.templates",
                        template,
                        f"class {row['key']!r} has no {variable}{unknown}; fill it in or use another variant",
                    )
