"""Prompt variants: how a class-table row becomes a prompt, as a function of the variant, the row and the image's
seed alone.

What a user writes stands in `raysd.prompts.settings`; this is the variant after all tables and lists were read.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from raysd.prompts.table import ClassRow, split_cell
from raysd.storage.fingerprint import fingerprint

VARIABLE = re.compile(r"\{([A-Za-z_]\w*)\}")
UNIFORM = 2**64
Weighted = list[tuple[str, float]]
Which = Literal["first", "last", "all"]


class PromptVariant(BaseModel):
    """Templates over the columns of a class table, with free fields sampled per image; or a mixture of variants."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    """What it is called; not part of the identity."""
    templates: list[str] = []
    """One is sampled per image. `{column}` and `{field}` are replaced; nothing else is."""
    fields: dict[str, list[str]] = {}
    """Choices for each free field; one is sampled per image."""
    negative_prompt: str = ""
    weights: dict[str, list[float]] = {}
    """Of the choices, by field, and of the templates as `templates`; uniform where there are none."""
    class_fields: dict[str, dict[str, Weighted]] = {}
    """Choices and weights that differ by class, by field and class key."""
    names: Literal["first", "all"] = "first"
    """What `{name}` is: the name, or the name and all synonyms."""
    hypernym: Which | None = None
    """What `{hypernym}` is where a class has several; the first when nothing was chosen."""
    added: dict[str, str] = {}
    """A column that follows `{name}` for some classes, by class key, in templates that do not use it anyway."""
    unmatched: dict[str, int] = {}
    """Rows of each field's table that belong to no class; not part of the identity."""
    mixture: list[tuple[float, "PromptVariant"]] = []
    """Weights and variants, one of which is sampled per image; nothing else is then set."""

    def prompt(self, row: ClassRow, seed: int) -> str:
        """The prompt of the image with this seed (0 to 2^63 - 1) for a class-table row."""
        if self.mixture:
            return self.part(seed).prompt(row, seed)
        template = self.templates[_sample(seed, "template", len(self.templates), self.weights.get("templates"))]
        return self.fill(template, row, lambda field: self._sampled(field, row["key"], seed))

    def with_negative_prompt(self, negative_prompt: str) -> "PromptVariant":
        """The same with another negative prompt."""
        mixture = [(weight, part.with_negative_prompt(negative_prompt)) for weight, part in self.mixture]
        return self.model_copy(update={"negative_prompt": negative_prompt, "mixture": mixture})

    def fill(self, template: str, row: ClassRow, choose: Callable[[str], str]) -> str:
        """A template with the columns of a class and, for each free field, what `choose` returns for it."""
        fields = self.free_fields
        return VARIABLE.sub(
            lambda match: choose(match[1]) if match[1] in fields else self._column(match[1], row),
            self.template_for(template, row["key"]),
        )

    @property
    def free_fields(self) -> set[str]:
        """Names of what is sampled per image."""
        return {*self.fields, *self.class_fields}

    def columns(self, template: str, key: str) -> set[str]:
        """Columns of the class table that a template uses for a class."""
        used = set(VARIABLE.findall(self.template_for(template, key))) - self.free_fields
        return used | {"synonyms"} if "name" in used and self.names == "all" else used

    def template_for(self, template: str, key: str) -> str:
        """A template as a class uses it: with the column that tells the class from another one."""
        column = f"{{{self.added[key]}}}" if key in self.added else ""
        return template if column in template else template.replace("{name}", f"{{name}}, {column}")

    def part(self, seed: int) -> "PromptVariant":
        """The variant of a mixture that an image's seed samples; the variant itself when it is none."""
        if not self.mixture:
            return self
        return self.mixture[_sample(seed, "mixture", len(self.mixture), [weight for weight, _ in self.mixture])][1]

    def _sampled(self, field: str, key: str, seed: int) -> str:
        if field in self.fields:
            choices = self.fields[field]
            return choices[_sample(seed, f"field/{field}", len(choices), self.weights.get(field))]
        rows = self.class_fields[field][key]
        return rows[_sample(seed, f"field/{field}", len(rows), [weight for _, weight in rows])][0]

    def _column(self, column: str, row: ClassRow) -> str:
        if column == "name" and self.names == "all":
            return ", ".join([row["name"], *split_cell(row.get("synonyms", ""))])
        if column in ("hypernym", "synonyms"):
            parts = split_cell(row[column])
            which = (self.hypernym or "first") if column == "hypernym" else "all"
            return ", ".join(parts) if which == "all" else parts[0 if which == "first" else -1]
        return row[column]

    def identity(self) -> dict[str, Any]:
        """What a clone's fingerprint is made of: values that are not at their defaults, and texts by class as a
        digest."""
        values = self.model_dump(include={"templates", "fields", "negative_prompt"})
        values |= self.model_dump(include={"weights", "names", "added"}, exclude_defaults=True)
        if self.hypernym not in (None, "first"):
            values["hypernym"] = self.hypernym
        if any("synonyms" in VARIABLE.findall(template) for template in self.templates):
            values["synonyms"] = "joined"
        if self.class_fields:
            values["class_fields"] = {name: fingerprint(rows) for name, rows in self.class_fields.items()}
        if self.mixture:
            values["mixture"] = [[weight, variant.identity()] for weight, variant in self.mixture]
        return values


def _sample(seed: int, purpose: str, num_choices: int, weights: list[float] | None = None) -> int:
    """A choice in 0..num_choices-1 that depends on the seed and the purpose alone; all are as likely when there are
    no weights."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    if weights is None:
        return number % num_choices
    ends = list(accumulate(weights))
    return min(bisect_right(ends, number / UNIFORM * ends[-1]), num_choices - 1)
