"""Prompt lint: likely trouble with the prompts of a clone, found before an image is generated.

Two classes with one prompt, a name that means several things, a prompt that the model cuts off: none of these fails,
and each costs accuracy.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from raysd.prompts.settings import Kind
from raysd.prompts.table import ClassRow, ClassTable, split_cell
from raysd.prompts.variant import VARIABLE, PromptVariant

MOST_TEXTS = 200  # of each class from a table; the longest ones
LONGEST_NAME = 60
MARKUP = re.compile(r"[<>{}\[\]\\|]|&\w+;|https?:")
PLACEHOLDERS = {"-", "?", ".", "n/a", "na", "nan", "none", "null", "tbd", "todo", "unknown", "xxx"}
NUM_EXAMPLES, NUM_KEYS = 3, 3


@dataclass(frozen=True)
class Finding:
    """One kind of trouble, and the classes that have it."""

    kind: Kind
    text: str
    """Description of the trouble."""
    keys: tuple[str, ...]
    examples: tuple[str, ...]
    fix: str = ""
    """Setting for the command line, or another remedy."""

    def __str__(self) -> str:
        shown = "; ".join(self.examples[:NUM_EXAMPLES]) + ("; ..." if len(self.examples) > NUM_EXAMPLES else "")
        where = f" in {len(self.keys)} {'class' if len(self.keys) == 1 else 'classes'}" if self.keys else ""
        return f"{self.kind}: {self.text}{where}: {shown}" + (f". Fix: {self.fix}" if self.fix else "")


class Tokenizer(Protocol):
    """A text encoder's tokenizer."""

    @property
    def encoder(self) -> str:
        """The text encoder, as a person calls it."""

    @property
    def limit(self) -> int:
        """Maximum number of tokens of a prompt, with those at its start and end."""

    def count(self, prompts: list[str]) -> list[int]:
        """Return the tokens of each prompt, with those at its start and end."""

    def unknown(self, prompts: list[str]) -> list[list[str]]:
        """Return the words of each prompt that the tokenizer does not know."""


@dataclass(frozen=True)
class Collision:
    """A prompt that several classes share."""

    prompt: str
    rows: tuple[ClassRow, ...]

    def __str__(self) -> str:
        keys = [row["key"] for row in self.rows]
        more = f" and {len(keys) - NUM_KEYS} more" if len(keys) > NUM_KEYS else ""
        return f"{(', ' if more else ' and ').join(keys[:NUM_KEYS])}{more} ({self.prompt[:80]!r})"


def class_prompts(variant: PromptVariant, row: ClassRow) -> list[str]:
    """Return the prompts of a class that matter.

    These are each template with each text of the class, and with the longest choice of each other field.

    Args:
        variant: the variant, no mixture.
        row: the class's row.
    """
    choices = {field: max(texts, key=len) for field, texts in variant.fields.items()}
    own = {
        field: sorted((text for text, _ in texts[row["key"]]), key=len, reverse=True)[:MOST_TEXTS]
        for field, texts in variant.class_fields.items()
    }
    prompts = []
    for template in variant.templates:
        used = [own[field] for field in own if field in VARIABLE.findall(template)]
        for number in range(max(map(len, used), default=1)):
            chosen = choices | {field: texts[number % len(texts)] for field, texts in own.items()}
            prompts.append(variant.fill(template, row, chosen.__getitem__))
    return list(dict.fromkeys(prompts))


def find_collisions(variant: PromptVariant, table: ClassTable) -> list[Collision]:
    """Return the prompts that several classes have, one for each group of classes."""
    groups: dict[str, dict[str, ClassRow]] = {}
    first: dict[str, str] = {}
    for row in table.rows:
        for prompt in class_prompts(variant, row):
            groups.setdefault(prompt.lower(), {})[row["key"]] = row
            first.setdefault(prompt.lower(), prompt)
    found = {
        tuple(rows): Collision(first[prompt], tuple(rows.values()))
        for prompt, rows in reversed(groups.items())
        if len(rows) > 1
    }
    return list(reversed(found.values()))


def confused_classes(variant: PromptVariant, table: ClassTable, with_ambiguous: bool) -> list[str]:
    """Return the keys of the classes that share a prompt, and of those with an ambiguous name if `with_ambiguous`."""
    colliding = {row["key"] for collision in find_collisions(variant, table) for row in collision.rows}
    return [row["key"] for row in table.rows if row["key"] in colliding or (with_ambiguous and _senses(row) > 1)]


def lint_prompts(variant: PromptVariant, table: ClassTable, tokenizers: Iterable[Tokenizer] = ()) -> list[Finding]:
    """Return all that is suspect about a variant's prompts, the worst first; for a mixture, about each of its variants.

    Args:
        variant: the resolved variant.
        table: the classes.
        tokenizers: the tokenizers of the model's text encoders.
    """
    parts = list(_parts(variant))
    checks = [
        *(_collisions(part, table) for part in parts),
        *(_lengths(part, table, tokenizers) for part in parts),
        *(_meanings(part, table) for part in parts),
        *(_texts(part, table) for part in parts),
    ]
    return list(dict.fromkeys(finding for check in checks for finding in check))


def _collisions(variant: PromptVariant, table: ClassTable) -> Iterator[Finding]:
    if collisions := find_collisions(variant, table):
        keys = tuple(dict.fromkeys(row["key"] for collision in collisions for row in collision.rows))
        yield Finding(
            "identical",
            "the prompt of another class",
            keys,
            tuple(map(str, collisions)),
            _disambiguation(variant, table, False),
        )
    if "name" in _variables(variant) and variant.names == "all":
        shared: dict[str, list[str]] = {}
        for row in table.rows:
            for lemma in {row["name"].lower(), *(synonym.lower() for synonym in split_cell(row.get("synonyms", "")))}:
                shared.setdefault(lemma, []).append(row["key"])
        shared = {lemma: keys for lemma, keys in shared.items() if len(keys) > 1}
        if shared:
            keys = tuple(dict.fromkeys(key for keys in shared.values() for key in keys))
            examples = tuple(f"{lemma!r} ({', '.join(keys[:NUM_KEYS])})" for lemma, keys in shared.items())
            yield Finding(
                "shared-synonyms", "a synonym of another class", keys, examples, f"variants.{variant.name}.names=first"
            )


def _disambiguation(variant: PromptVariant, table: ClassTable, with_ambiguous: bool) -> str:
    """Return the setting whose column tells the confused classes apart."""
    plain = variant.model_copy(update={"added": {}})
    confused = confused_classes(plain, table, with_ambiguous)
    rows = [row for row in table.rows if row["key"] in confused]
    for column in ("hypernym", "definition"):
        apart = plain.model_copy(update={"added": dict.fromkeys(confused, column)})
        if all(split_cell(row.get(column, "")) for row in rows) and not find_collisions(apart, table):
            more = f" variants.{variant.name}.disambiguate_classes=ambiguous" if with_ambiguous else ""
            return f"variants.{variant.name}.disambiguate={column}{more}"
    return "tell these classes apart in the class table or in their texts, or use another variant"


def _lengths(variant: PromptVariant, table: ClassTable, tokenizers: Iterable[Tokenizer]) -> Iterator[Finding]:
    """Yield what the tokenizers cut off or do not know."""
    pairs = [(row["key"], prompt) for row in table.rows for prompt in class_prompts(variant, row)]
    keys, prompts = [key for key, _ in pairs], [prompt for _, prompt in pairs]
    choices = [(field, text) for field, texts in variant.fields.items() for text in texts]
    for tokenizer in tokenizers:
        long: dict[str, str] = {}
        counted = sorted(zip(tokenizer.count(prompts), keys, prompts, strict=True), reverse=True)
        too_long = [(count, key, prompt) for count, key, prompt in counted if count > tokenizer.limit]
        for count, key, prompt in too_long:
            long.setdefault(key, f"{key} ({count} tokens: {prompt[:60]!r})")
        if long:
            what = f"{len(too_long):,} {'prompt' if len(too_long) == 1 else 'prompts'}"
            text = f"{what} over the {tokenizer.limit} tokens of {tokenizer.encoder}, cut off at the end"
            yield Finding(
                "too-long", text, tuple(long), tuple(long.values()), "shorten the texts, or use another variant"
            )
        yield from _negative_length(variant, tokenizer)
        fix = "use the model's own words, or another model"
        unknown = {key: words for key, words in zip(keys, tokenizer.unknown(prompts), strict=True) if words}
        if unknown:
            examples = tuple(f"{key} ({', '.join(words[:3])})" for key, words in unknown.items())
            yield Finding("unknown-words", "words that the model does not know", tuple(unknown), examples, fix)
        strange = [
            (field, words)
            for (field, _), words in zip(choices, tokenizer.unknown([text for _, text in choices]), strict=True)
            if words
        ]
        if strange:
            examples = tuple(f"{field} ({', '.join(words[:3])})" for field, words in strange)
            yield Finding("unknown-words", "fields with words that the model does not know", (), examples, fix)


def _negative_length(variant: PromptVariant, tokenizer: Tokenizer) -> Iterator[Finding]:
    prompt = variant.negative_prompt
    count = tokenizer.count([prompt])[0] if prompt else 0
    if count > tokenizer.limit:
        text = f"a negative prompt over the {tokenizer.limit} tokens of {tokenizer.encoder}, cut off at the end"
        yield Finding("too-long", text, (), (f"{count} tokens: {prompt[:60]!r}",), "shorten it")


def _meanings(variant: PromptVariant, table: ClassTable) -> Iterator[Finding]:
    ambiguous = [row for row in table.rows if _senses(row) > 1 and _stands_alone(variant, row)]
    if ambiguous:
        examples = tuple(f"{row['name']!r} ({row['senses']} meanings)" for row in ambiguous)
        yield Finding(
            "polysemous",
            "names of several meanings",
            tuple(row["key"] for row in ambiguous),
            examples,
            _disambiguation(variant, table, True),
        )
    guessed = [row for row in table.rows if set(split_cell(row.get("guessed", ""))) & _columns(variant, row)]
    if guessed:
        examples = tuple(f"{row['name']!r} as {row['definition'][:40]!r}" for row in guessed)
        yield Finding(
            "guessed",
            "meanings guessed from WordNet",
            tuple(row["key"] for row in guessed),
            examples,
            "give these classes a wnid or a sense in the table",
        )
    several = [
        row
        for row in table.rows
        if len(split_cell(row.get("hypernym", ""))) > 1 and "hypernym" in _columns(variant, row)
    ]
    if several and variant.hypernym is None:
        examples = tuple(f"{row['name']!r} ({row['hypernym'].replace('|', ' or ')})" for row in several)
        fix = f"choose with variants.{variant.name}.hypernym=first, last, or all"
        yield Finding(
            "several-hypernyms",
            "several hypernyms, of which the first is used",
            tuple(row["key"] for row in several),
            examples,
            fix,
        )


def _texts(variant: PromptVariant, table: ClassTable) -> Iterator[Finding]:
    if braces := [template for template in variant.templates if "{" in VARIABLE.sub("", template)]:
        yield Finding(
            "braces",
            "braces that are no variable stay as they are",
            (),
            tuple(map(repr, braces)),
            "write variables as {name}",
        )
    if variant.unmatched:
        examples = tuple(f"{count} rows of the field {field!r}" for field, count in variant.unmatched.items())
        yield Finding(
            "unmatched-rows", "texts that belong to no class", (), examples, "correct their keys, if they should"
        )
    strange = [(row["key"], what) for row in table.rows for what in _strange_cells(variant, row)]
    if strange:
        examples = tuple(f"{key} ({what})" for key, what in strange)
        fix = "correct the table, or use another variant"
        yield Finding(
            "implausible", "implausible cells", tuple(dict.fromkeys(key for key, _ in strange)), examples, fix
        )
    choices = [(field, text) for field, texts in variant.fields.items() for text in texts if MARKUP.search(text)]
    if choices:
        examples = tuple(f"{field} ({text[:40]!r})" for field, text in choices)
        yield Finding("implausible", "fields that hold markup", (), examples, "correct the texts")


def _strange_cells(variant: PromptVariant, row: ClassRow) -> Iterator[str]:
    """Yield what is strange about the cells and texts that a class's prompts use."""
    used, name = _columns(variant, row), row["name"].lower()
    if "definition" in used and row["definition"].lower() == name:
        yield "the definition repeats the name"
    if "hypernym" in used and name in [hypernym.lower() for hypernym in split_cell(row["hypernym"])]:
        yield "the hypernym repeats the name"
    if "name" in used and len(name) > LONGEST_NAME:
        yield f"a name of {len(name)} characters"
    if name.isdigit() and variant.templates == ["{name}"]:
        yield f"the prompt is {name!r} alone"
    cells = [(column, part) for column in sorted(used & set(row)) for part in _values(row, column)]
    texts = [(field, text) for field, by_class in variant.class_fields.items() for text, _ in by_class[row["key"]]]
    for column, text in cells + texts:
        if MARKUP.search(text) or text.lower() in PLACEHOLDERS:
            yield f"{column} holds {text[:40]!r}"


def _values(row: ClassRow, column: str) -> list[str]:
    return split_cell(row[column]) if column in ("hypernym", "synonyms") else [row[column]]


def _parts(variant: PromptVariant) -> Iterator[PromptVariant]:
    if not variant.mixture:
        yield variant
    for _, part in variant.mixture:
        yield from _parts(part)


def _variables(variant: PromptVariant) -> set[str]:
    """Return the columns and fields that any template uses."""
    return {variable for template in variant.templates for variable in VARIABLE.findall(template)}


def _columns(variant: PromptVariant, row: ClassRow) -> set[str]:
    """Return the columns that any prompt of a class uses."""
    return {column for template in variant.templates for column in variant.columns(template, row["key"])}


def _stands_alone(variant: PromptVariant, row: ClassRow) -> bool:
    """Return whether some prompt of the class has the name, and nothing that says what it means."""
    used = [variant.columns(template, row["key"]) for template in variant.templates]
    return any("name" in columns and not columns & {"hypernym", "definition"} for columns in used)


def _senses(row: ClassRow) -> int:
    return int(row["senses"]) if row.get("senses", "").isdigit() else 0
