"""Sweep settings, as they stand in an experiment file."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

GuidanceScale = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]


class SweepSettings(BaseModel):
    """Which settings are compared, and by what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guidance_scales: Annotated[list[GuidanceScale], Field(min_length=1)] = [1.0, 2.0, 4.0, 7.5]
    variants: Annotated[list[str], Field(min_length=1)] = ["name"]
    objective: Literal["validation", "transfer", "test"] = "validation"
    """What chooses the best setting: top-1 on real validation pictures, the mean over the transfer sets, or the test set itself."""
    real: str | None = None
    """A real set that classifiers are trained on for comparison, with as many pictures."""
    random: bool = True
    """Also measure classifiers with random weights."""
    max_concurrent_trials: Annotated[int, Field(ge=1)] = 1

    @field_validator("guidance_scales", "variants")
    @classmethod
    def _once_each(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) != len(values):
            raise ValueError("a value stands twice; name each once")
        return values
