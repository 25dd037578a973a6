"""Prompt variants, as they stand in an experiment file."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal[
    "identical",
    "shared-synonyms",
    "too-long",
    "unknown-words",
    "polysemous",
    "guessed",
    "several-hypernyms",
    "unmatched-rows",
    "implausible",
    "braces",
    "few-steps",  # about the model, see raysd.generation.few_steps
]
"""Kinds of findings of the prompt lint."""
Which = Literal["first", "last", "all"]
Text = Annotated[str, Field(min_length=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Texts = Annotated[list[Text], Field(min_length=1)]


class TextTable(BaseModel):
    """Texts from a table: captions, plausible backgrounds. One row of the image's class is chosen per image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    """A .csv or .parquet file."""
    column: str
    """The column with the texts."""
    key: str | None = "key"
    """The column with the class's key or name; null if all rows are for all classes."""
    weight: str | None = None
    """The column with weights from 0 on; when empty, all rows of a class are equally likely."""


class VariantSettings(BaseModel):
    """A user's prompt variant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    templates: Texts | str = []
    """Templates with `{column}` and `{field}`, one of which is chosen per image, or the name of a built-in list."""
    fields: dict[str, Texts | str | TextTable] = {}
    """Free fields, chosen per image: choices, the name of a built-in list, or a table."""
    weights: dict[str, list[Weight]] = {}
    """Weights of the choices, by field; of the templates, under `templates`."""
    negative_prompt: str = ""
    names: Literal["first", "all"] = "first"
    """Value of `{name}`: the name alone, or followed by all synonyms."""
    hypernym: Which | None = None
    """Value of `{hypernym}` where a class has several; the first when empty."""
    disambiguate: Literal["hypernym", "definition"] | None = None
    """Column that is added to the prompts of the classes that could be confused."""
    disambiguate_classes: Literal["colliding", "ambiguous"] = "colliding"
    """Classes with the name or prompt of another one, or also classes whose name means several things."""
    mixture: dict[str, Weight] = {}
    """Other variants with weights, one of which is chosen per image; then nothing else is set."""
    extends: str | None = None
    """Another variant, whose values apply where this one sets none."""

    @model_validator(mode="after")
    def _mixture_alone(self) -> "VariantSettings":
        if self.mixture and self.model_fields_set - {"mixture"}:
            others = ", ".join(sorted(self.model_fields_set - {"mixture"}))
            raise ValueError(f"a mixture takes everything from its variants; leave out {others}")
        return self
