"""Prompt variants: how a class-table row becomes a prompt, as a function of the variant, the row and the picture's seed alone.

What a user writes stands in `raysd.prompts.settings`; this is the variant after all tables and lists were read.
"""

import hashlib
import re
from bisect import bisect_right
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
    """Templates over the columns of a class table, with free fields drawn per picture; or a mixture of variants."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    templates: list[str] = []
    """One is drawn per picture. `{column}` and `{field}` are replaced; nothing else is."""
    fields: dict[str, list[str]] = {}
    """Choices for each free field; one is drawn per picture."""
    negative_prompt: str = ""
    weights: dict[str, list[float]] = {}
    """Of the choices, by field, and of the templates as `templates`; uniform where there are none."""
    class_fields: dict[str, dict[str, Weighted]] = {}
    """Choices and weights that differ by class, by field and class key."""
    names: Literal["first", "all"] = "first"
    """What `{name}` is: the name, or the name and all synonyms."""
    hypernym: Which = "first"
    """What `{hypernym}` is where a class has several."""
    added: dict[str, str] = {}
    """A column that follows `{name}` for some classes, by class key, in templates that do not use it anyway."""
    unmatched: dict[str, int] = {}
    """Rows of each field's table that belong to no class; not part of the identity."""
    mixture: list[tuple[float, "PromptVariant"]] = []
    """Weights and variants, one of which is drawn per picture; nothing else is then set."""

    def prompt(self, row: ClassRow, seed: int) -> str:
        """The prompt of the picture with this seed (0 to 2^63 - 1) for a class-table row."""
        if self.mixture:
            return self.part(seed).prompt(row, seed)
        template = self.templates[_draw(seed, "template", len(self.templates), self.weights.get("templates"))]
        return VARIABLE.sub(lambda match: self._value(match.group(1), row, seed), self.template_for(template, row["key"]))

    def template_for(self, template: str, key: str) -> str:
        """A template as a class uses it: with the column that tells the class from another one."""
        column = f"{{{self.added[key]}}}" if key in self.added else ""
        return template if column in template else template.replace("{name}", f"{{name}}, {column}")

    def part(self, seed: int) -> "PromptVariant":
        """The variant of a mixture that a picture's seed draws; the variant itself when it is none."""
        if not self.mixture:
            return self
        return self.mixture[_draw(seed, "mixture", len(self.mixture), [weight for weight, _ in self.mixture])][1]

    def _value(self, name: str, row: ClassRow, seed: int) -> str:
        if name in self.fields:
            choices = self.fields[name]
            return choices[_draw(seed, f"field/{name}", len(choices), self.weights.get(name))]
        if name in self.class_fields:
            rows = self.class_fields[name][row["key"]]
            return rows[_draw(seed, f"field/{name}", len(rows), [weight for _, weight in rows])][0]
        if name == "name" and self.names == "all":
            return ", ".join([row["name"], *split_cell(row.get("synonyms", ""))])
        if name in ("hypernym", "synonyms"):
            parts = split_cell(row[name])
            which = self.hypernym if name == "hypernym" else "all"
            return ", ".join(parts) if which == "all" else parts[0 if which == "first" else -1]
        return row[name]

    def identity(self) -> dict[str, Any]:
        """What a clone's fingerprint is made of: values that are not at their defaults, and texts by class as a digest."""
        values = self.model_dump(include={"templates", "fields", "negative_prompt"})
        values |= self.model_dump(include={"weights", "names", "hypernym", "added"}, exclude_defaults=True)
        if any("synonyms" in VARIABLE.findall(template) for template in self.templates):
            values["synonyms"] = "joined"
        if self.class_fields:
            values["class_fields"] = {name: fingerprint(rows) for name, rows in self.class_fields.items()}
        if self.mixture:
            values["mixture"] = [[weight, variant.identity()] for weight, variant in self.mixture]
        return values


def _draw(seed: int, purpose: str, num_choices: int, weights: list[float] | None = None) -> int:
    """A choice in 0..num_choices-1 that depends on the seed and the purpose alone; all are as likely when there are no weights."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    if weights is None:
        return number % num_choices
    ends = list(accumulate(weights))
    return min(bisect_right(ends, number / UNIFORM * ends[-1]), num_choices - 1)
