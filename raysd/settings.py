"""What all sections of an experiment file have in common."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler


class Section(BaseModel):
    """A section of an experiment file. The text below a field describes it in the JSON schema, in `raysd explain` and
    in docs/settings.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


@dataclass(frozen=True)
class Unit:
    """What a number counts; stands in its annotation, and under `unit` in the JSON schema."""

    name: str

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of the number with its unit."""
        return {**handler(schema), "unit": self.name}
