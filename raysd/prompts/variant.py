"""Prompt variants: how a class-table row becomes a prompt. Variants are data; a user adds one in YAML."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from raysd.errors import UserError
from raysd.prompts.table import ClassRow, ClassTable

VARIABLE = re.compile(r"\{([A-Za-z_]\w*)\}")
Text = Annotated[str, Field(min_length=1)]


class PromptVariant(BaseModel):
    """Templates over the columns of a class table, with free fields drawn per picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    templates: Annotated[list[Text], Field(min_length=1)]
    """One is drawn per picture. `{column}` and `{field}` are replaced; nothing else is."""
    fields: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    """Choices for each free field; one is drawn per picture, uniformly."""
    negative_prompt: str = ""

    def prompt(self, row: ClassRow, seed: int) -> str:
        """The prompt of the picture with this seed (0 to 2^63 - 1) for a class-table row."""
        template = self.templates[_draw(seed, "template", len(self.templates))]

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in self.fields:
                return self.fields[name][_draw(seed, f"field/{name}", len(self.fields[name]))]
            return row[name]

        return VARIABLE.sub(value, template)

    def check(self, name: str, table: ClassTable) -> None:
        """Compare the templates with a class table.

        Raises:
            UserError: unknown variable, or a column that is empty for some class.
        """
        for template in self.templates:
            for variable in VARIABLE.findall(template):
                if variable in self.fields:
                    continue
                if variable not in table.columns:
                    known = ", ".join([*table.columns, *self.fields])
                    raise UserError(f"variants.{name}.templates", template, f"unknown variable {{{variable}}}; the class table and fields have: {known}")
                for row in table.rows:
                    if not row.get(variable):
                        raise UserError(f"variants.{name}.templates", template, f"class {row['key']!r} has no {variable}; fill it in or use another variant")


def _draw(seed: int, purpose: str, num_choices: int) -> int:
    """A choice in 0..num_choices-1 that depends on the seed and the purpose alone."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_choices


@cache
def built_in_variants() -> dict[str, PromptVariant]:
    """The variants that ship with raysd, by name."""
    text = (Path(__file__).parent / "variants.yaml").read_text(encoding="utf-8")
    return {name: PromptVariant(**body) for name, body in yaml.safe_load(text).items()}
