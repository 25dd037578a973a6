"""Resolved prompt variants, which turn a class-table row and an image's seed into a prompt.

A user writes `raysd.prompts.resolve`; here all tables and lists are read.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from raysd.prompts.settings import Which
from raysd.prompts.table import ClassRow, split_cell
from raysd.storage.fingerprint import fingerprint

VARIABLE = re.compile(r"\{([A-Za-z_]\w*)\}")
UNIFORM = 2**64
Weighted = list[tuple[str, float]]


class PromptVariant(BaseModel):
    """Templates over the columns of a class table, with free fields chosen per image; or a mixture of variants."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    """The variant's name; not part of the identity."""
    templates: list[str] = []
    """Templates, one of which is chosen per image. `{column}` and `{field}` are replaced, nothing else."""
    fields: dict[str, list[str]] = {}
    """Choices for each free field, one of which is chosen per image."""
    negative_prompt: str = ""
    weights: dict[str, list[float]] = {}
    """Weights of the choices, by field; of the templates, under `templates`. Uniform where there are none."""
    class_fields: dict[str, dict[str, Weighted]] = {}
    """Choices and weights that differ by class, by field and class key."""
    names: Literal["first", "all"] = "first"
    """Value of `{name}`: the name, or the name and all synonyms."""
    hypernym: Which | None = None
    """Value of `{hypernym}` where a class has several; the first when None."""
    added: dict[str, str] = {}
    """Column that follows `{name}` for some classes, by class key, in templates that do not use it yet."""
    unmatched: dict[str, int] = {}
    """Rows of each field's table that belong to no class; not part of the identity."""
    mixture: list[tuple[float, "PromptVariant"]] = []
    """Weights and variants, one of which is chosen per image; then nothing else is set."""

    def prompt(self, row: ClassRow, seed: int) -> str:
        """Return the prompt of the image with this seed (0 to 2^63 - 1) for a class-table row."""
        if self.mixture:
            return self.part(seed).prompt(row, seed)
        template = self.templates[_choose(seed, "template", len(self.templates), self.weights.get("templates"))]
        return self.fill(template, row, lambda field: self._chosen(field, row["key"], seed))

    def with_negative_prompt(self, negative_prompt: str) -> "PromptVariant":
        """Return the same variant with another negative prompt."""
        mixture = [(weight, part.with_negative_prompt(negative_prompt)) for weight, part in self.mixture]
        return self.model_copy(update={"negative_prompt": negative_prompt, "mixture": mixture})

    def fill(self, template: str, row: ClassRow, choose: Callable[[str], str]) -> str:
        """Return a template with the columns of a class and, for each free field, what `choose` returns for it."""
        fields = self.free_fields
        return VARIABLE.sub(
            lambda match: choose(match[1]) if match[1] in fields else self._column(match[1], row),
            self.template_for(template, row["key"]),
        )

    @property
    def free_fields(self) -> set[str]:
        """Names of the fields that are chosen per image."""
        return {*self.fields, *self.class_fields}

    def columns(self, template: str, key: str) -> set[str]:
        """Return the columns of the class table that a template uses for a class."""
        used = set(VARIABLE.findall(self.template_for(template, key))) - self.free_fields
        return used | {"synonyms"} if "name" in used and self.names == "all" else used

    def template_for(self, template: str, key: str) -> str:
        """Return a template as a class uses it: with the column that tells the class from others."""
        column = f"{{{self.added[key]}}}" if key in self.added else ""
        return template if column in template else template.replace("{name}", f"{{name}}, {column}")

    def part(self, seed: int) -> "PromptVariant":
        """Return the variant of a mixture that an image's seed chooses; the variant itself when it is no mixture."""
        if not self.mixture:
            return self
        return self.mixture[_choose(seed, "mixture", len(self.mixture), [weight for weight, _ in self.mixture])][1]

    def _chosen(self, field: str, key: str, seed: int) -> str:
        if field in self.fields:
            choices = self.fields[field]
            return choices[_choose(seed, f"field/{field}", len(choices), self.weights.get(field))]
        rows = self.class_fields[field][key]
        return rows[_choose(seed, f"field/{field}", len(rows), [weight for _, weight in rows])][0]

    def _column(self, column: str, row: ClassRow) -> str:
        if column == "name" and self.names == "all":
            return ", ".join([row["name"], *split_cell(row.get("synonyms", ""))])
        if column in ("hypernym", "synonyms"):
            parts = split_cell(row[column])
            which = (self.hypernym or "first") if column == "hypernym" else "all"
            return ", ".join(parts) if which == "all" else parts[0 if which == "first" else -1]
        return row[column]

    def identity(self) -> dict[str, Any]:
        """Return the values that a clone's fingerprint hashes: those not at their defaults; class texts as a digest."""
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


def _choose(seed: int, purpose: str, num_choices: int, weights: list[float] | None = None) -> int:
    """Return a choice in 0..num_choices-1 that depends on the seed and the purpose alone; uniform without weights."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    if weights is None:
        return number % num_choices
    ends = list(accumulate(weights))
    return min(bisect_right(ends, number / UNIFORM * ends[-1]), num_choices - 1)
