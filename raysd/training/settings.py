"""Training settings, as they stand in an experiment file, and the recipes they name."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from raysd.clone.settings import FilterSettings
from raysd.errors import UserError
from raysd.training.recipe import Recipe, built_in_recipes

BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")


class TrainingSettings(BaseModel):
    """What is trained, on how many workers, how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = "resnet18"
    """A timm model."""
    backbone_options: dict[str, Any] = {}
    """Further arguments of `timm.create_model`."""
    stem_stride: Literal[1, 2] = 1
    """Of a ResNet's first convolution on pictures up to 64 px; 2 takes a quarter of the time."""
    recipe: str = "small"
    recipe_options: dict[str, Any] = {}
    num_epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Pictures per step over all workers."""
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the machine that starts the training has it in hardware, else float32."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    num_workers: Annotated[int, Field(ge=1)] = 2
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    filters: FilterSettings = FilterSettings()
    """Which pictures of a scored clone are left out."""
    real: str | None = None
    """A real set to train on instead of a clone: `fashion_mnist`, a Parquet file, or a folder with one folder per class."""

    @field_validator("seeds")
    @classmethod
    def _once_each(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands twice; name each once")
        return seeds

    def resolve_recipe(self) -> Recipe:
        """The named recipe with the overrides.

        Raises:
            UserError: unknown recipe or option.
        """
        recipes = built_in_recipes()
        if self.recipe not in recipes:
            raise UserError("training.recipe", self.recipe, f"unknown; use one of {', '.join(recipes)}")
        try:
            return Recipe(**{**recipes[self.recipe].model_dump(), **self.recipe_options}).for_size(self.image_size)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UserError(f"training.recipe_options.{field}", first.get("input"), first["msg"]) from None


def resolve_precision(precision: str) -> str:
    """`float32` or `bfloat16`; `auto` looks at this machine's GPU, or at its CPU when it has none."""
    if precision != "auto":
        return precision
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    info = Path("/proc/cpuinfo")
    return "bfloat16" if info.exists() and any(flag in info.read_text() for flag in BFLOAT16_FLAGS) else "float32"

