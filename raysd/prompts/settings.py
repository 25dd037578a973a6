"""Prompt variants, as they stand in an experiment file."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raysd.settings import Section

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


class TextTable(Section):
    """Texts from a table: captions, plausible backgrounds. One row of the image's class is chosen per image."""

    table: str
    """File with the texts, in CSV or Parquet format."""
    column: str
    """Column of the table that holds the texts."""
    key: str | None = "key"
    """Column with the key or name of the class; null if all rows are for all classes."""
    weight: str | None = None
    """Column with weights from 0 on; when null, all rows of a class are equally likely."""


class VariantSettings(Section):
    """A user's prompt variant."""

    templates: Texts | str = []
    """Templates with `{column}` and `{field}`, one of which is chosen per image, or the name of a built-in list."""
    fields: dict[str, Texts | str | TextTable] = {}
    """Free fields of the templates, chosen per image: a list of texts, the name of a built-in list, or a table."""
    weights: dict[str, list[Weight]] = {}
    """Weights of the choices of each field, in their order; under `templates` those of the templates."""
    negative_prompt: str = ""
    """Negative prompt of all images; empty for none."""
    names: Literal["first", "all"] = "first"
    """Value of `{name}` in the templates: the name alone (`first`), or followed by all synonyms (`all`)."""
    hypernym: Which | None = None
    """Value of `{hypernym}` in the templates where a class has several; the first when null."""
    disambiguate: Literal["hypernym", "definition"] | None = None
    """Column that is added to the prompts of classes that could be confused; none when null."""
    disambiguate_classes: Literal["colliding", "ambiguous"] = "colliding"
    """Classes that `disambiguate` applies to: those with the name or prompt of another one (`colliding`), or also those
    whose name means several things (`ambiguous`)."""
    mixture: dict[str, Weight] = {}
    """Other variants with weights, one of which is chosen per image, as `{name: 1, background: 2}`; then nothing else
    is set."""
    extends: str | None = None
    """Name of another variant, whose values apply where this one sets none."""

    @model_validator(mode="after")
    def _mixture_alone(self) -> "VariantSettings":
        if self.mixture and self.model_fields_set - {"mixture"}:
            others = ", ".join(sorted(self.model_fields_set - {"mixture"}))
            raise ValueError(f"a mixture takes everything from its variants; leave out {others}")
        return self
