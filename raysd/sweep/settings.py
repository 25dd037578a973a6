"""The sweep settings of an experiment file."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from raysd.clone.settings import GenerationSettings, Seed
from raysd.errors import UserError, meant
from raysd.settings import Section, Unit
from raysd.training.recipe import Recipe
from raysd.training.settings import TrainingSettings

OWN = {
    "generation": {
        "first_image",
        "images_per_class",
        "class_counts",
        "max_dropped_share",
        "seed",
        "seeds",
        "images_per_shard",
        "batch_size",
        "num_actors",
        "min_actors",
        "cpus_per_actor",
        "gpus_per_actor",
    },
    "training": {
        "seeds",
        "real",
        "sources",
        "num_workers",
        "min_workers",
        "cpus_per_worker",
        "checkpoint_steps",
        "validate_epochs",
        "logger",
    },
}
"""Settings that are the same for all that is compared: budgets, noise and seeds, and how the work is spread over a
cluster."""
MODELS: dict[str, type[Section]] = {"generation": GenerationSettings, "training": TrainingSettings}
Objective = Literal["validation", "transfer", "test", "generated"]
Count = Annotated[int, Field(ge=1)]


class RangeSettings(Section):
    """A range of numbers that settings are sampled from."""

    low: Annotated[float, Field(allow_inf_nan=False)]
    """Lower end of the range, which may be sampled."""
    high: Annotated[float, Field(allow_inf_nan=False)]
    """Upper end of the range, above `low`."""
    log: bool = False
    """Sample evenly over the logarithm; then `low` must be above 0."""
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Round to multiples of this above `low`, so that settings share clones; whole numbers stay whole numbers."""

    @model_validator(mode="after")
    def _rising(self) -> "RangeSettings":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range starts above 0")
        return self


def _kind_of_values(value: Any) -> str:
    """Return the kind of searched value where there are no options: a `list`, or a `range`."""
    return "range" if isinstance(value, RangeSettings | dict) else "list"


def _kind(value: Any) -> str:
    """Return the kind of searched value: a `list`, a `range`, or the `options` of a section."""
    if isinstance(value, RangeSettings) or (isinstance(value, dict) and {"low", "high"} & value.keys()):
        return "range"
    return "options" if isinstance(value, dict) else "list"


Values = Annotated[list[Any], Field(min_length=1), Tag("list")]
Range = Annotated[RangeSettings, Tag("range")]
Choices = Annotated[Values | Range, Discriminator(_kind_of_values)]


class SpaceSettings(Section):
    """The search space: sections of the experiment, with a list or a range in the place of a value."""

    generation: dict[str, Choices] = {}
    """Settings of `generation` with a list or a range each, as `guidance_scale`, `variant`, `num_inference_steps`,
    `sampler`, `negative_prompt`, `model`."""
    training: dict[
        str, Annotated[Values | Range | Annotated[dict[str, Choices], Tag("options")], Discriminator(_kind)]
    ] = {}
    """Settings of `training` with a list or a range each, as `recipe`, or `recipe_options: {learning_rate: ...}`."""

    def factors(self) -> dict[str, list[Any] | RangeSettings]:
        """Return the searched values by dotted name."""
        found: dict[str, list[Any] | RangeSettings] = {
            f"generation.{name}": choices for name, choices in self.generation.items()
        }
        for name, choices in self.training.items():
            if isinstance(choices, dict):
                found |= {f"training.{name}.{option}": values for option, values in choices.items()}
            else:
                found[f"training.{name}"] = choices
        return found


class RungSettings(Section):
    """A budget at which settings are compared."""

    images_per_class: Annotated[Count, Unit("images")]
    """Images of each class that classifiers learn from at this rung."""
    num_seeds: Annotated[Count, Unit("seeds")] | None = None
    """Seeds to train with at this rung, the first of `training.seeds`; all when null."""


class ConfirmSettings(Section):
    """Finalists that are measured again with fresh seeds, which chose nothing yet."""

    settings: Annotated[Count, Unit("settings")] = 2
    """Settings that are measured again, the best of the search, at the last rung's images per class."""
    seeds: Annotated[int, Field(ge=2), Unit("seeds")] = 3
    """Fresh classifier seeds of each finalist, every one on a clone of a fresh seed of its own."""


class SweepSettings(Section):
    """The settings to compare, their budgets, and the objective."""

    space: SpaceSettings = SpaceSettings(generation={"guidance_scale": [1.0, 2.0, 4.0, 7.5], "variant": ["name"]})
    """Values to compare, by section of the experiment and setting."""
    search: Literal["grid", "random", "tpe"] = "grid"
    """Which settings of the space are tried: `grid` tries all of them, `random` some, and `tpe` what Optuna suggests,
    which learns from the settings before."""
    num_settings: Annotated[Count, Unit("settings")] | None = None
    """How many settings `random` and `tpe` try, which need it; a grid tries all."""
    seed: Seed = 0
    """Seed of the searches `random` and `tpe`."""
    scheduler: Literal["none", "halving", "asha"] = "none"
    """How settings go on from rung to rung: with `halving` the best ones when all are measured, with `asha` as soon as
    a setting is measured. With `none` there is one rung."""
    rungs: list[RungSettings] = []
    """Rising budgets at which settings are compared; a number is its images per class. Without rungs there is one
    budget, `generation.images_per_class`."""
    keep: Annotated[float, Field(gt=0, lt=1), Unit("share of the settings")] = 1 / 3
    """Share of a rung's settings that go on to the next."""
    keep_within_noise: bool = False
    """With `halving`, also go on with settings that are worse than the last one kept by no more than the spread of the
    seeds."""
    objective: Objective | dict[Objective, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = "validation"
    """Score that chooses: top-1 on real validation images (`validation`), the mean over the transfer sets (`transfer`),
    the test set itself (`test`), or a weighted mean of these, as `{validation: 1, transfer: 2}`; or `generated`,
    held-out generated images, also where no real images are named."""
    real: str | None = None
    """Real data set that further classifiers are trained on for comparison, with as many images; none when null."""
    random: bool = True
    """Also measure classifiers with random weights, for comparison."""
    proxies: bool = False
    """Also compare each clone of the first rung with real images, as `raysd analyze` does, to learn what such a
    proxy would have chosen."""
    confirm: ConfirmSettings | None = None
    """Measure the best settings again with fresh seeds of classifiers and clones, as `{settings: 2, seeds: 3}`, and
    choose among them by these scores alone; not when null."""
    max_concurrent_trials: Annotated[Count, Unit("trials")] = 1
    """Settings that are worked on at the same time, with a share of the cluster each."""
    extra_trials: Annotated[int, Field(ge=0), Unit("trials")] = 0
    """Further settings that are worked on while generation is ahead, with what generation actors give back; only with
    one worker a training."""

    @field_validator("objective")
    @classmethod
    def _of_one_kind(cls, objective: Any) -> Any:
        if isinstance(objective, dict) and "generated" in objective and len(objective) > 1:
            raise ValueError("generated images are never mixed with real ones in a score; name one kind")
        return objective

    @field_validator("rungs", mode="before")
    @classmethod
    def _numbers(cls, rungs: Any) -> Any:
        return (
            [{"images_per_class": rung} if type(rung) is int else rung for rung in rungs]
            if isinstance(rungs, list)
            else rungs
        )

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: list[RungSettings]) -> list[RungSettings]:
        counts = [rung.images_per_class for rung in rungs]
        if any(later <= earlier for earlier, later in itertools.pairwise(counts)):
            raise ValueError("images per class must rise from rung to rung")
        return rungs

    @field_validator("space")
    @classmethod
    def _sensible(cls, space: SpaceSettings) -> SpaceSettings:
        factors = space.factors()
        if not factors:
            raise ValueError("is empty; name what is searched, as {generation: {guidance_scale: [1, 2, 4]}}")
        for name, choices in factors.items():
            section, key, *options = name.split(".")
            known = MODELS[section].model_fields
            if key not in known:
                raise UserError(name, choices, f"unknown key{meant(key, known)}; the keys are those of {section}")
            if key == "recipe_options" and options and options[0] not in Recipe.model_fields:
                remedy = f"a recipe has no such option{meant(options[0], Recipe.model_fields)}; correct it"
                raise UserError(name, choices, remedy)
            if key in OWN[section]:
                raise ValueError(f"{name} is the same for all settings of a sweep; leave it out (budgets are rungs)")
            if isinstance(choices, list) and any(value in choices[:place] for place, value in enumerate(choices)):
                raise ValueError(f"{name}: a value stands twice; name each once")
        return space

    @field_validator("objective")
    @classmethod
    def _names_a_role(cls, objective: Objective | dict[Objective, float]) -> Objective | dict[Objective, float]:
        if not objective:
            raise ValueError("is empty; name validation, transfer or test, or weights of them")
        return objective

    @model_validator(mode="after")
    def _agree(self) -> "SweepSettings":
        ranges = [name for name, choices in self.space.factors().items() if isinstance(choices, RangeSettings)]
        if self.search == "grid":
            if ranges:
                raise ValueError(
                    f"space: {ranges[0]} is a range, which a grid cannot hold; give a list, or set "
                    "search=random or search=tpe"
                )
            if self.num_settings is not None:
                raise ValueError(
                    "num_settings: a grid tries all settings; leave it out, or set search=random or search=tpe"
                )
        elif self.num_settings is None:
            raise ValueError(f"num_settings: say how many settings search={self.search} tries")
        if self.scheduler != "none" and len(self.rungs) < 2:
            raise ValueError(f"rungs: {self.scheduler} needs two or more, as [50, 150, 450]")
        if self.scheduler == "none" and len(self.rungs) > 1:
            raise ValueError("rungs: without a scheduler there is one budget; set scheduler=halving or scheduler=asha")
        if self.search == "tpe" and self.scheduler == "halving":
            raise ValueError(
                "search: tpe suggests one setting after another, halving compares all of them at once; set "
                "scheduler=asha, or search=random"
            )
        if self.keep_within_noise and self.scheduler != "halving":
            raise ValueError(
                "keep_within_noise: only halving compares all settings of a rung; set scheduler=halving, or "
                "leave it out"
            )
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each role in the objective; they add up to 1."""
        if isinstance(self.objective, str):
            return {self.objective: 1.0}
        total = sum(self.objective.values())
        return {role: weight / total for role, weight in self.objective.items()}
