"""The adaptive settings of an experiment file."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raysd.curation.settings import Window
from raysd.settings import Section, Unit

Way = Literal["uniform", "budgets", "select", "entropy"]


class AdaptiveSettings(Section):
    """Rounds in which a classifier of the images so far says what is generated next."""

    way: Way = "budgets"
    """What a round adds: `uniform`, as many images of each class, the control; `budgets`, more of the classes with more
    errors; `select`, those of a larger pool that the classifier is in some doubt about; `entropy`, images that are
    guided to such."""
    num_rounds: Annotated[int, Field(ge=2, le=1000), Unit("rounds")] = 4
    """Rounds, each of which ends with a classifier; the images of the last one are `generation.images_per_class`."""
    first_share: Annotated[float, Field(gt=0, lt=1), Unit("share of the images")] = 0.25
    """Share of the images that the first round generates, in equal numbers; the others share the rest evenly."""
    floor: Annotated[float, Field(ge=0, le=1), Unit("share of a round")] = 0.5
    """Share of a round that `budgets` divides evenly, so that no class goes without."""
    pool_factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 3.0
    """Images that `select` generates for each image that it chooses."""
    window: Window = (0.5, 0.95)
    """Quantiles of the entropy of a class between which `select` chooses: the images above are often of other
    classes."""
    agreement: bool = False
    """With true, `select` first takes images whose likeliest class by the classifier is their own."""
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Unit("share of the latents' norm")] = 0.05
    """Strength of `entropy`: the share of the norm of an image's latents by which a guided step moves them. With 0, its
    images are those of `uniform`."""
    every: Annotated[int, Field(ge=1, le=1000), Unit("denoising steps")] = 5
    """Denoising steps from one guided step of `entropy` to the next."""
    through_denoiser: bool = False
    """Take the gradient of `entropy` through the denoiser, which costs a pass and its gradient in each guided step."""
    round_epochs: Annotated[int, Field(ge=1), Unit("epochs")] | None = None
    """Epochs of the classifiers of all rounds but the last; `training.num_epochs` when null."""
    training: Literal["anew", "continued"] = "anew"
    """How a round begins its classifiers: `anew`, with random weights; `continued`, with weights and optimizer as the
    round before left them. Then the first round has the warmup of the recipe and the last one its decay."""
    patience: Annotated[int, Field(ge=1, le=1000), Unit("rounds")] | None = None
    """Rounds in a row without a better accuracy before the clone grows, which it does `num_rounds - 1` times; needs
    `training: continued`. It grows in each round when null."""
    last_patience: Annotated[int, Field(ge=1, le=1000), Unit("rounds")] | None = None
    """Patience once the clone has all its images: it goes from `patience` to this with each growth, in even steps,
    rounded. `patience` all along when null."""
    max_rounds: Annotated[int, Field(ge=2, le=10_000), Unit("rounds")] = 20
    """Most rounds with `patience`; the last of them generates what is missing. Without effect where that is null."""

    @field_validator("window")
    @classmethod
    def _rising(cls, window: Window) -> Window:
        if window[0] >= window[1]:
            raise ValueError("the first must be less than the second; write it as [0.5, 0.95]")
        return window

    @model_validator(mode="after")
    def _waits_for_a_training(self) -> "AdaptiveSettings":
        if self.patience is not None and self.training == "anew":
            raise ValueError("patience waits for a training that goes on; set training to continued")
        if self.patience is None and self.last_patience is not None:
            raise ValueError("last_patience is where patience ends; set patience, where it begins")
        return self

    def patience_after(self, step: int) -> int | None:
        """Return the rounds without a better accuracy before the clone grows, when it has grown `step` times."""
        if self.patience is None or self.last_patience is None:
            return self.patience
        return round(self.patience + (self.last_patience - self.patience) * step / (self.num_rounds - 1))

    def identity(self) -> dict[str, Any]:
        """Return the values that shape the rounds: the way, and its own options."""
        own = {
            "budgets": ["floor"],
            "select": ["pool_factor", "window", *(["agreement"] if self.agreement else [])],
            "entropy": ["weight", "every", "through_denoiser"],
        }.get(self.way, [])
        shared = ["way", "num_rounds", "first_share", "round_epochs"]
        shared += ["training"] if self.training != "anew" else []
        shared += ["patience", "max_rounds"] if self.patience is not None else []
        shared += ["last_patience"] if self.last_patience is not None else []
        return {name: getattr(self, name) for name in [*shared, *own]}
