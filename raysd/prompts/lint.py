"""Prompt lint: what is likely to go wrong with the prompts of a clone, before a picture is drawn.

Two classes with one prompt, a name that means several things, a prompt that the model cuts off: none of these fails, and each costs
accuracy.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from raysd.prompts.table import ClassRow, ClassTable, split_cell
from raysd.prompts.variant import VARIABLE, PromptVariant

SAMPLES = 4  # prompts of each class, where they are drawn
LONGEST_NAME = 60
MARKUP = re.compile(r"[<>{}\[\]\\|]|&\w+;|https?:")
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One kind of trouble, and the classes that have it."""

    kind: str
    text: str
    """What is there that should not be."""
    keys: tuple[str, ...]
    examples: tuple[str, ...]
    fix: str = ""
    """What to put on the command line or to do."""

    def __str__(self) -> str:
        shown = "; ".join(self.examples[:NUM_EXAMPLES]) + ("; ..." if len(self.examples) > NUM_EXAMPLES else "")
        where = f" in {len(self.keys)} {'class' if len(self.keys) == 1 else 'classes'}" if self.keys else ""
        return f"{self.text}{where}: {shown}" + (f". Fix: {self.fix}" if self.fix else "")


class Tokenizer(Protocol):
    """A text encoder's tokenizer."""

    @property
    def limit(self) -> int:
        """Most tokens of a prompt, with those at its start and end."""

    def count(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt, with those at its start and end."""

    def unknown(self, prompts: list[str]) -> list[list[str]]:
        """The words of each prompt that the tokenizer does not know."""


def sample_prompts(variant: PromptVariant, row: ClassRow) -> list[str]:
    """A few of a class's prompts, for the same seeds in each class."""
    num_samples = 1 if len(variant.templates) == 1 and not variant.fields and not variant.class_fields else SAMPLES
    return [variant.prompt(row, seed) for seed in range(num_samples)]


def colliding_classes(variant: PromptVariant, table: ClassTable) -> list[list[ClassRow]]:
    """Groups of classes that have a prompt in common, though the same seed."""
    groups: dict[tuple[int, str], list[ClassRow]] = {}
    for row in table.rows:
        for seed, prompt in enumerate(sample_prompts(variant, row)):
            groups.setdefault((seed, prompt.lower()), []).append(row)
    found = {tuple(row["key"] for row in rows): rows for rows in groups.values() if len(rows) > 1}
    return list(found.values())


def confused_classes(variant: PromptVariant, table: ClassTable, with_ambiguous: bool) -> list[str]:
    """Keys of the classes whose prompt another class has too; also of those whose name means several things, if asked for."""
    colliding = {row["key"] for rows in colliding_classes(variant, table) for row in rows}
    return [row["key"] for row in table.rows if row["key"] in colliding or (with_ambiguous and _senses(row) > 1)]


def lint_prompts(name: str, variant: PromptVariant, table: ClassTable, tokenizers: Iterable[Tokenizer] = ()) -> list[Finding]:
    """All that is suspect about a variant's prompts, the worst first.

    Args:
        name: of the variant, for the fixes.
        variant: resolved.
        table: the classes.
        tokenizers: of the model's text encoders.
    """
    return [*_collisions(name, variant, table), *_lengths(variant, table, tokenizers), *_meanings(name, variant, table), *_cells(variant, table)]


def _collisions(name: str, variant: PromptVariant, table: ClassTable) -> Iterator[Finding]:
    if groups := colliding_classes(variant, table):
        keys = tuple(dict.fromkeys(row["key"] for rows in groups for row in rows))
        examples = tuple(f"{' and '.join(row['key'] for row in rows)} ({sample_prompts(variant, rows[0])[0]!r})" for rows in groups)
        yield Finding("identical", "the prompt of another class", keys, examples, _disambiguation(name, variant, table, keys, "colliding"))
    if any(part.names == "all" for part in _parts(variant)):
        shared: dict[str, list[str]] = {}
        for row in table.rows:
            for lemma in {row["name"].lower(), *(synonym.lower() for synonym in split_cell(row.get("synonyms", "")))}:
                shared.setdefault(lemma, []).append(row["key"])
        shared = {lemma: keys for lemma, keys in shared.items() if len(keys) > 1}
        if shared:
            keys = tuple(dict.fromkeys(key for keys in shared.values() for key in keys))
            examples = tuple(f"{lemma!r} ({', '.join(keys)})" for lemma, keys in shared.items())
            yield Finding("shared synonyms", "a synonym of another class", keys, examples, f"variants.{name}.names=first")


def _lengths(variant: PromptVariant, table: ClassTable, tokenizers: Iterable[Tokenizer]) -> Iterator[Finding]:
    keys, prompts = zip(*((row["key"], prompt) for row in table.rows for prompt in sample_prompts(variant, row)), strict=True)
    for tokenizer in tokenizers:
        long = [(key, prompt, count) for key, prompt, count in zip(keys, prompts, tokenizer.count(list(prompts)), strict=True) if count > tokenizer.limit]
        if long:
            longest = {key: (prompt, count) for key, prompt, count in sorted(long, key=lambda entry: entry[2])}
            examples = tuple(f"{key} ({count} tokens: {prompt[:60]!r})" for key, (prompt, count) in reversed(longest.items()))
            text = f"prompts over the model's {tokenizer.limit} tokens, cut off at the end"
            yield Finding("too long", text, tuple(dict.fromkeys(key for key, _, _ in long)), examples, "shorten the texts, or use another variant")
        unknown = [(key, words) for key, words in zip(keys, tokenizer.unknown(list(prompts)), strict=True) if words]
        if unknown:
            examples = tuple(dict.fromkeys(f"{key} ({', '.join(words[:3])})" for key, words in unknown))
            text = "words that the model does not know"
            yield Finding("unknown words", text, tuple(dict.fromkeys(key for key, _ in unknown)), examples, "use the model's own words, or another model")


def _meanings(name: str, variant: PromptVariant, table: ClassTable) -> Iterator[Finding]:
    ambiguous = [row for row in table.rows if _senses(row) > 1 and not _is_explained(variant, row)]
    if ambiguous:
        examples = tuple(f"{row['name']!r} ({row['senses']} meanings)" for row in ambiguous)
        keys = tuple(row["key"] for row in ambiguous)
        yield Finding("polysemous", "names of several meanings", keys, examples, _disambiguation(name, variant, table, keys, "ambiguous"))
    guessed = [row for row in table.rows if row.get("guessed")]
    if guessed and {"definition", "hypernym", "synonyms"} & set().union(*(_variables(part) for part in _parts(variant))):
        examples = tuple(f"{row['name']!r} as {row['definition'][:40]!r}" for row in guessed)
        keys = tuple(row["key"] for row in guessed)
        yield Finding("guessed", "meanings guessed from WordNet", keys, examples, "give these classes a wnid or a sense")
    absent = [row for row in table.rows if row.get("senses") == "0"]
    if absent:
        examples = tuple(repr(row["name"]) for row in absent)
        yield Finding(
            "not in WordNet", "names that WordNet does not have", tuple(row["key"] for row in absent), examples, "fill in definition and hypernym, or a wnid"
        )
    several = [row for row in table.rows if len(split_cell(row.get("hypernym", ""))) > 1]
    if several and any(part.hypernym != "all" and "hypernym" in _variables(part) for part in _parts(variant)):
        examples = tuple(f"{row['name']!r} ({row['hypernym'].replace('|', ' or ')})" for row in several)
        fix = f"choose with variants.{name}.hypernym=first, last, or all"
        yield Finding("several hypernyms", "several hypernyms, of which one is used", tuple(row["key"] for row in several), examples, fix)


def _cells(variant: PromptVariant, table: ClassTable) -> Iterator[Finding]:
    used = set().union(*(_variables(part) for part in _parts(variant)))
    strange = []
    for row in table.rows:
        name = row["name"].lower()
        if "definition" in used and row["definition"].lower() == name:
            strange.append((row["key"], "the definition repeats the name"))
        if "hypernym" in used and name in [hypernym.lower() for hypernym in split_cell(row["hypernym"])]:
            strange.append((row["key"], "the hypernym repeats the name"))
        if len(name) > LONGEST_NAME:
            strange.append((row["key"], f"a name of {len(name)} characters"))
        strange += [(row["key"], f"{column} holds {row[column][:40]!r}") for column in sorted(used & set(row)) if MARKUP.search(_plain(row, column))]
        if name.isdigit() and "name" in used and len(variant.templates) == 1 and variant.templates[0] == "{name}":
            strange.append((row["key"], f"the prompt is {name!r} alone"))
    unmatched = {field: count for part in _parts(variant) for field, count in part.unmatched.items()}
    if unmatched:
        examples = tuple(f"{count} rows of the field {field!r}" for field, count in unmatched.items())
        yield Finding("unmatched rows", "texts that belong to no class", (), examples, "correct their keys, if they should")
    if strange:
        examples = tuple(f"{key} ({what})" for key, what in strange)
        yield Finding("implausible", "implausible cells", tuple(dict.fromkeys(key for key, _ in strange)), examples, "correct the class table")


def _plain(row: ClassRow, column: str) -> str:
    """A cell without the separator of several values."""
    return row[column].replace("|", "") if column in ("hypernym", "synonyms") else row[column]


def _disambiguation(name: str, variant: PromptVariant, table: ClassTable, keys: tuple[str, ...], classes: str) -> str:
    there = [column for column in ("hypernym", "definition") if all(row.get(column) for row in table.rows if row["key"] in keys)]
    if variant.mixture or not there:
        return "add a hypernym or a definition to the class table, or use another variant"
    more = f" variants.{name}.disambiguate_classes=ambiguous" if classes == "ambiguous" else ""
    return f"variants.{name}.disambiguate={there[0]}{more}"


def _parts(variant: PromptVariant) -> Iterator[PromptVariant]:
    if not variant.mixture:
        yield variant
    for _, part in variant.mixture:
        yield from _parts(part)


def _variables(variant: PromptVariant) -> set[str]:
    """Columns and fields that any template uses."""
    return {variable for template in variant.templates for variable in VARIABLE.findall(template)} | set(variant.added.values())


def _is_explained(variant: PromptVariant, row: ClassRow) -> bool:
    """True when each prompt of the class says more than the name."""
    return all(
        all({"hypernym", "definition"} & set(VARIABLE.findall(part.template_for(template, row["key"]))) for template in part.templates)
        for part in _parts(variant)
    )


def _senses(row: ClassRow) -> int:
    return int(row["senses"]) if row.get("senses", "").isdigit() else 0
