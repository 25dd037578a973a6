"""Training settings of an experiment file, and the recipes that they name."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from raysd.clone.settings import LEAST_PART, GenerationSettings, Seed
from raysd.curation.settings import FilterSettings
from raysd.errors import UserError
from raysd.settings import Section, Unit
from raysd.training.recipe import Recipe, built_in_recipes


class SourceSettings(Section):
    """Some of the images that classifiers learn from: a clone, or a real data set."""

    clone: dict[str, Any] | None = None
    """Clone by its differences from `generation`, as `{guidance_scale: 4}`; `{}` is the experiment's own."""
    real: str | None = None
    """Real data set: a built-in one as `fashion_mnist`, a Parquet file, or a folder with one folder per class."""
    images_per_class: Annotated[int, Field(ge=1), Unit("images")] | None = None
    """Images to take from the start of each class; when null, all of a real data set, of a clone all planned."""
    share: Annotated[float, Field(gt=0, le=1), Unit("share of a batch")] | None = None
    """Share of each batch that comes from this source. Without shares, each image comes once an epoch."""
    filters: FilterSettings = FilterSettings()
    """Limits that leave out images of this clone; it must be scored before."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "SourceSettings":
        if (self.clone is None) == (self.real is None):
            raise ValueError("name either a clone or a real data set")
        if self.real is not None and self.filters:
            raise ValueError("only clones have scores; leave the filters out for real images")
        return self

    @field_validator("clone")
    @classmethod
    def _differs_in_known_settings(cls, clone: dict[str, Any] | None) -> dict[str, Any] | None:
        given = {key: value for key, value in (clone or {}).items() if key != "seeds"}  # which has an error of its own
        try:
            GenerationSettings(**given)
        except ValidationError as error:
            raise UserError.from_validation(error, "", given, GenerationSettings) from None
        return clone


class TrainingSettings(Section):
    """The classifiers to train, and the workers that train them."""

    backbone: str = "resnet18"
    """Classifier by its name in timm, as `resnet50` or `vit_small_patch16_224`; its weights start at random."""
    backbone_options: dict[str, Any] = {}
    """Further arguments of `timm.create_model`, as `{drop_path_rate: 0.1}`."""
    stem_stride: Literal[1, 2] = 1
    """Stride of a ResNet's first convolution on images up to 64 px; 2 takes a quarter of the time."""
    recipe: str = "small"
    """Name of a recipe, from augmentation to optimizer: `small`, `standard`, `paper`, `timm`, or `fast`."""
    recipe_options: dict[str, Any] = {}
    """Values that replace those of the recipe, as `{learning_rate: 0.001}`."""
    num_epochs: Annotated[int, Field(ge=1), Unit("epochs")] = 20
    """Passes over all images; without effect where `num_steps` is set."""
    num_steps: Annotated[int, Field(ge=1), Unit("steps")] | None = None
    """Steps of the whole training, instead of epochs: clones of different sizes then take the same time."""
    batch_size: Annotated[int, Field(ge=1), Unit("images")] = 128
    """Images per optimizer step, over all workers together."""
    forward_size: Annotated[int, Field(ge=1), Unit("images")] | None = None
    """Most images that a worker passes through the model at once, which saves memory: it accumulates the gradients of
    its larger share of a batch. The whole share at once when null."""
    image_size: Annotated[int, Field(ge=8, le=1024), Unit("pixels")] = 32
    """Side in pixels of the square images that the classifier sees."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of forward and backward passes: `auto` is bfloat16 if the devices of all workers have it built in, else
    float32. `float16` needs GPUs."""
    compile: bool = False
    """Compile the classifier with `torch.compile`: a minute at the start, then faster on GPUs."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    """Seeds of the classifiers, one classifier each: several show how far results vary."""
    num_workers: Annotated[int, Field(ge=1), Unit("workers")] = 2
    """Workers of Ray Train that share each batch, each on one GPU, or on CPUs without GPUs."""
    min_workers: Annotated[int, Field(ge=1), Unit("workers")] | None = None
    """Fewest workers to go on with, with the same batch, while nodes are lost; always `num_workers` when null."""
    cpus_per_worker: Annotated[float, Field(ge=LEAST_PART, allow_inf_nan=False), Unit("CPUs")] = 1
    """CPUs that Ray reserves for each worker, and threads that it computes with on a CPU."""
    checkpoint_steps: Annotated[int, Field(ge=1), Unit("steps")] = 400
    """Steps between two checkpoints; a killed training goes on from the last one."""
    validate_epochs: Annotated[int, Field(ge=1), Unit("epochs")] | None = None
    """Epochs between two measurements on `evaluation.validation_set`; none when null."""
    logger: Literal["tensorboard", "mlflow", "wandb", "none"] = "tensorboard"
    """Where loss, learning rate and validation accuracy are logged during the training."""
    sources: list[SourceSettings] = []
    """Clones and real data sets to learn from; the experiment's own clone when empty."""
    filters: FilterSettings = FilterSettings()
    """Limits that leave out images of the experiment's own clone; it must be scored before."""
    real: str | None = None
    """Real data set to train on in the place of a clone, with as many images: built-in, a Parquet file or a folder."""

    @model_validator(mode="after")
    def _workers_agree(self) -> "TrainingSettings":
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers is {self.min_workers} and num_workers {self.num_workers}; give it no more than those"
            )
        return self

    @property
    def least_workers(self) -> int:
        """Fewest workers to start with."""
        return self.min_workers or self.num_workers

    @model_validator(mode="after")
    def _sources_agree(self) -> "TrainingSettings":
        if self.real is not None and self.filters:
            raise ValueError("only clones have scores; leave the filters out when training on real images")
        if self.sources and (self.real is not None or self.filters):
            raise ValueError("with `sources`, name real data sets and filters there, not beside them")
        shares = [source.share for source in self.sources if source.share is not None]
        if shares and len(shares) < len(self.sources):
            raise ValueError("give every source a share of the batch, or none")
        if shares and abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"the shares add up to {sum(shares):g}; make it 1")
        return self

    @field_validator("seeds")
    @classmethod
    def _once_each(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed is given twice; name each once")
        return seeds

    @property
    def num_threads(self) -> int:
        """Threads of each worker on CPUs; the rounding of sums depends on them."""
        return max(1, int(self.cpus_per_worker))

    def resolve_recipe(self) -> Recipe:
        """Return the named recipe with the overrides.

        Raises:
            UserError: unknown recipe or option.
        """
        recipes = built_in_recipes()
        if self.recipe not in recipes:
            raise UserError("training.recipe", self.recipe, f"unknown; use one of {', '.join(recipes)}")
        values = {**recipes[self.recipe].model_dump(), **self.recipe_options}
        try:
            recipe = Recipe(**values).for_size(self.image_size)
            self._check_contrast(recipe)
            return recipe
        except ValidationError as error:
            found = UserError.from_validation(error, "training.recipe_options", values, Recipe)
            is_whole = found.field == "training.recipe_options"  # of the recipe as a whole, the user wrote the options
            raise UserError(found.field, self.recipe_options if is_whole else found.value, found.remedy) from None

    def _check_contrast(self, recipe: Recipe) -> None:
        """Check that the images that a recipe contrasts are there, and together.

        Raises:
            UserError: prompts of real images, which have none, or batches in parts.
        """
        if not recipe.contrastive_weight:
            return
        real = [self.real, *(source.real for source in self.sources)]
        if recipe.contrastive_groups == "prompt" and (named := next((name for name in real if name is not None), None)):
            remedy = f"the real images of {named} have no prompts; use class, or train on clones alone"
            raise UserError("training.recipe_options.contrastive_groups", "prompt", remedy)
        if self.forward_size is not None:
            remedy = "cuts batches into parts, and contrastive_weight compares all images of a batch; set it to null"
            raise UserError("training.forward_size", self.forward_size, remedy)
