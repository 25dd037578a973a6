"""Recipes for training a classifier, from augmentation to optimizer; `recipes.yaml` holds the built-in ones."""

import math
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from raysd.settings import Section, Unit

GROWTH = (0.35, 0.85)  # shares of the steps between which images grow (Leclerc et al. 2023)
SIZE_MULTIPLES = ((128, 32), (0, 4))  # pixels: a size from which on sizes are multiples of the second number


def cosine_factor(step: int, num_steps: int, warmup_steps: int, floor: float, decay_steps: int | None = None) -> float:
    """Return the factor on the learning rate at a step: linear from 0 to 1, then half a cosine down to `floor`; with
    `decay_steps` the cosine takes the last ones alone, and the rate is constant before."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    begin = warmup_steps if decay_steps is None else max(warmup_steps, num_steps - decay_steps)
    if step < begin:
        return 1.0
    progress = (step - begin) / max(1, num_steps - begin)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def size_at(step: int, num_steps: int, image_size: int, smallest_share: float) -> int:
    """Return the side of the images in pixels at a step: it grows from `smallest_share` of `image_size`."""
    begin, end = GROWTH
    progress = min(1.0, max(0.0, (step / num_steps - begin) / (end - begin)))
    size = image_size * (smallest_share + (1 - smallest_share) * progress)
    multiple = next(multiple for least, multiple in SIZE_MULTIPLES if image_size >= least)
    return min(image_size, max(multiple, round(size / multiple) * multiple))


SMALL_IMAGE = 64  # pixels
SIZE_MULTIPLE = 8  # pixels; of a local crop's side
Probability = Annotated[float, Field(ge=0, le=1), Unit("probability")]
Groups = Literal["class", "prompt"]
AreaShares = tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]]
"""Smallest and largest area of a crop, as shares of the image."""
Strength = Annotated[float, Field(ge=0, le=2)]
Pixels = Annotated[float, Field(gt=0), Unit("pixels")]


class Recipe(Section):
    """A recipe for training a classifier. Rates and sizes are for the whole batch, over all workers."""

    model_config = ConfigDict(allow_inf_nan=False)

    # The optimizer and its schedule.
    optimizer: Literal["adamw", "sgd", "lamb"] = "adamw"
    """Optimizer of torch or timm; its weight decay never touches biases and norms."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the optimizer `sgd`; the others do not use it."""
    nesterov: bool = False
    """Use Nesterov's momentum with the optimizer `sgd`."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.004
    """Largest learning rate, which holds at the end of the warmup."""
    reference_batch: Annotated[int, Field(ge=1), Unit("images")] | None = None
    """Batch size for which the learning rate holds; another one scales it in proportion. Not scaled when null."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Weight decay of the optimizer, on all parameters but biases and norms."""
    warmup_share: Annotated[float, Field(ge=0, lt=1), Unit("share of the steps")] = 0.2
    """Share of the steps with a rising rate; after them it falls along half a cosine."""
    decay_share: Annotated[float, Field(ge=0, le=1), Unit("share of the steps")] | None = None
    """Share of the steps, the last ones, in which the rate falls; it is constant before, and 0 keeps it so to the end.
    It falls from the end of the warmup when null."""
    final_learning_rate: Annotated[float, Field(ge=0)] = 0.00004
    """Learning rate that the cosine falls to at the last step."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    """Largest norm of the gradient, to which larger ones are clipped; never clipped when null."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the weights, which is then the classifier; it warms up with the steps. No average
    when null."""
    sync_batch_norm: bool = False
    """Compute the statistics of batch norm over all workers; on GPUs only."""

    # The head and the loss.
    head: Literal["linear", "projector"] = "linear"
    """Head on the features: `linear`, or `projector` with hidden layers, a bottleneck and a cosine softmax, which is
    dropped for transfer (t-ReX, Sariyildiz et al. 2023)."""
    projector_layers: Annotated[int, Field(ge=1, le=8), Unit("layers")] = 1
    """Hidden layers of the projector."""
    projector_width: Annotated[int, Field(ge=8), Unit("features")] = 2048
    """Width of each hidden layer of the projector."""
    bottleneck_width: Annotated[int, Field(ge=2), Unit("features")] = 256
    """Width of the bottleneck between the projector and the cosine softmax."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of the cosine softmax of the head `projector`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of each target that is spread evenly over all classes."""
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of the soft labels of `scoring.teachers` in the loss, `(1 - weight) * CE + weight * T^2 * KL(teacher ||
    classifier)`, T the temperature (Hinton et al. 2015); 0 is none."""
    soft_temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Temperature T that softens both distributions of the soft labels; without effect at weight 0."""

    contrastive_weight: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Weight of a contrastive loss beside the other losses, for transfer: images of one group attract each other in the
    projector's output (Khosla et al. 2020, with the denominator of SINCERE, Feeney and Hughes 2023); 0 is none. It
    needs the head `projector`, and neither Mixup nor CutMix."""
    contrastive_groups: Groups = "class"
    """Images that attract each other: those of one class, or those of one class and prompt, which only clones have;
    without effect at weight 0."""
    contrastive_temperature: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Temperature of the contrastive loss; without effect at weight 0."""
    contrastive_block: Annotated[int, Field(ge=1, le=64), Unit("images")] = 4
    """Images of a group that follow each other, so that a batch holds several of each; 1 keeps the plain order. Without
    effect at weight 0."""

    # Crops.
    crop: Literal["auto", "shift", "random_resized", "none"] = "auto"
    """Random crop: `shift` by up to 1/16 of the side, `random_resized` for a resized part of the image, `none`, or
    `auto`, which is `shift` up to 64 pixels and a part above."""
    crop_area: AreaShares = (0.25, 1.0)
    """Smallest and largest area of a `random_resized` crop, as shares of the image."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Interpolation that resizes crops."""
    crop_aspect: Annotated[float, Field(ge=1, le=4)] = 4 / 3
    """Largest ratio of a random crop's longer to its shorter side."""
    flip: Probability = 0.5
    """Probability that an image is mirrored from left to right."""
    local_crops: Annotated[int, Field(ge=0, le=32), Unit("crops")] = 0
    """Further small crops of each image (multi-crop, Caron et al. 2020)."""
    local_crop_area: AreaShares = (0.05, 0.25)
    """Smallest and largest area of a local crop, as shares of the image."""
    local_size_share: Annotated[float, Field(gt=0, le=1), Unit("share of the side")] = 96 / 224
    """Side of a local crop as a share of the image size, rounded to a multiple of 8 pixels."""
    smallest_size_share: Annotated[float, Field(gt=0, le=1), Unit("share of the side")] = 1.0
    """Share of the image size from which images grow, from 35 to 85 % of the steps (progressive resizing)."""

    # Colors.
    jitter: tuple[Strength, Strength, Strength, Annotated[float, Field(ge=0, le=0.5)]] = (0.4, 0.4, 0.2, 0.1)
    """Strengths of the changes of brightness, contrast, saturation and hue."""
    jitter_probability: Probability = 0.0
    """Probability that the colors of a view are changed with these strengths."""
    grey_probability: Probability = 0.0
    """Probability that a view is made gray."""
    blur_sigma: tuple[Pixels, Pixels] = (0.1, 2.0)
    """Narrowest and widest Gaussian in pixels for global views of 224 px; smaller views are blurred in proportion."""
    blur_probability: Probability = 0.0
    """Probability that a global view is blurred."""
    local_blur_probability: Probability = 0.0
    """Probability that a local crop is blurred."""
    solarize_probability: Probability = 0.0
    """Probability of solarizing a global view; local crops are not solarized."""

    # Mixtures.
    rand_augment_operations: Annotated[int, Field(ge=0, le=8), Unit("operations")] = 0
    """Random operations per image (RandAugment, Cubuk et al. 2020); 0 is none."""
    rand_augment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Magnitude of the operations of RandAugment."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of the Beta distribution that mixes pairs of images with Mixup (Zhang et al. 2018); 0 is none."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of the Beta distribution of areas that CutMix exchanges between images (Yun et al. 2019); 0 is none."""
    pixmix_rounds: Annotated[int, Field(ge=0, le=16), Unit("rounds")] = 0
    """Most rounds of PixMix, k; 0 is none (Hendrycks et al. 2022). The mixing set is fractals that raysd generates."""
    num_fractals: Annotated[int, Field(ge=1), Unit("images")] = 300
    """Fractals in the mixing set of PixMix."""
    fractal_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the fractals of PixMix."""
    pixmix_beta: Annotated[float, Field(gt=0)] = 4.0
    """Parameter of the Beta distribution of PixMix's mixing weights; a larger one keeps more of the image."""
    pixmix_severity: Annotated[int, Field(ge=1, le=10)] = 1
    """Severity of the operations that PixMix applies to an image before it is mixed with itself."""

    @model_validator(mode="after")
    def _mixes_whole_images(self) -> "Recipe":
        if self.local_crops and (self.mixup or self.cutmix):
            raise ValueError(
                "mixup and cutmix do not go with local crops; set local_crops to 0, or mixup and cutmix to 0"
            )
        return self

    @model_validator(mode="after")
    def _contrasts_projections_of_whole_images(self) -> "Recipe":
        if self.contrastive_weight and self.head != "projector":
            raise ValueError("contrastive_weight needs a projector; set head to projector, or contrastive_weight to 0")
        if self.contrastive_weight and (self.mixup or self.cutmix):
            raise ValueError(
                "mixup and cutmix do not go with contrastive_weight, since a mixed image is of no one group; set it to "
                "0, or mixup and cutmix to 0"
            )
        return self

    @field_validator("crop_area", "local_crop_area", "blur_sigma")
    @classmethod
    def _rising(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if pair[0] > pair[1]:
            raise ValueError("the first must not be more than the second; swap them")
        return pair

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Recipe":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum; set nesterov to false, or momentum over 0")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not used, so that fingerprints of earlier versions stay."""
        weights = {"soft_": self.soft_weight, "contrastive_": self.contrastive_weight}
        unused = tuple(prefix for prefix, weight in weights.items() if not weight)
        kept = {name: value for name, value in dump(self).items() if not name.startswith(unused)}
        return {name: value for name, value in kept.items() if name != "decay_share" or value is not None}

    @property
    def projector(self) -> dict[str, Any] | None:
        """Arguments of `raysd.classifier.model.Projector`; None with a linear head."""
        sizes = {"layers": self.projector_layers, "width": self.projector_width, "bottleneck": self.bottleneck_width}
        return {**sizes, "temperature": self.temperature} if self.head == "projector" else None

    def local_size(self, size: int) -> int:
        """Return the side of the local crops in pixels beside a global view of `size` pixels."""
        return max(SIZE_MULTIPLE, round(size * self.local_size_share / SIZE_MULTIPLE) * SIZE_MULTIPLE)

    def view_sizes(self, image_size: int) -> list[int]:
        """Return the sides in pixels of the smallest and the largest views of a training on images of this size."""
        sizes = [size_at(step, 1, image_size, self.smallest_size_share) for step in (0, 1)]
        return sizes + [self.local_size(size) for size in sizes] if self.local_crops else sizes

    def for_size(self, image_size: int) -> "Recipe":
        """Return the recipe with the crop that `auto` means for images of this size in pixels."""
        return (
            self
            if self.crop != "auto"
            else self.model_copy(update={"crop": "shift" if image_size <= SMALL_IMAGE else "random_resized"})
        )


@cache
def built_in_recipes() -> dict[str, Recipe]:
    """Return the recipes that ship with raysd, by name."""
    text = (Path(__file__).parent / "recipes.yaml").read_text(encoding="utf-8")
    return {name: Recipe(**body) for name, body in yaml.safe_load(text).items()}
