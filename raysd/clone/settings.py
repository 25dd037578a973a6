"""Generation settings of an experiment file."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raysd.renamed import rename_value
from raysd.settings import Section, Unit

SchedulerOption = str | int | float | bool
MOST_IMAGES = 10**12
"""Of one class: numbers of images in memory have 64 bits, also their sums."""
Count = Annotated[int, Field(ge=0, le=MOST_IMAGES), Unit("images")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""The range of every seed; a library that takes 32 bits gets a hash of a larger one."""
Scale = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]
LEAST_PART = 1e-4  # of a CPU or GPU; Ray counts in ten-thousandths


class LoraSettings(Section):
    """LoRA weights that are fused into the model."""

    path: str
    """Safetensors file with the LoRA weights, or a folder that holds one."""
    scale: Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)] = 1.0
    """Factor on the LoRA weights before they are added to the model's, as `lora_scale` in diffusers."""


class StepCacheSettings(Section):
    """Deep features of a U-Net that serve several denoising steps."""

    interval: Annotated[int, Field(ge=1, le=1000), Unit("denoising steps")] = 3
    """Calls of the U-Net from one that runs in full to the next; 1 caches nothing."""
    depth: Annotated[int, Field(ge=1, le=100), Unit("layers")] = 1
    """Layers on the way down of the U-Net that run in every call; fewer are faster, and further from the model."""

    def __str__(self) -> str:
        return f"deep features every {self.interval} steps, depth {self.depth}"


OWN = "own"
"""In the place of a real data set: exemplars are generated images."""
MOST_EXEMPLARS = 1000
MOST_OF_POOL = 5000  # images of a class, whose distances are all in memory


class LatentGuidanceSettings(Section):
    """How latents move along a gradient after some denoising steps."""

    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Unit("share of the latents' norm")] = 0.05
    """Share of the norm of an image's latents by which a guided step moves them; 0 guides nothing."""
    every: Annotated[int, Field(ge=1, le=1000), Unit("denoising steps")] = 5
    """Denoising steps from one guided step to the next."""
    through_denoiser: bool = False
    """Take the gradient through the denoiser, which costs a pass and its gradient in each guided step."""


class EntropyGuidanceSettings(LatentGuidanceSettings):
    """A classifier whose doubt guides generation: images become such as it does not know yet."""

    classifier: str
    """Folder of a classifier that raysd trained, as `runs/classifiers/<fingerprint>`."""

    def __str__(self) -> str:
        return f"entropy guidance {self.weight:g}"


class ExemplarGuidanceSettings(LatentGuidanceSettings):
    """A few images of each class to which generation is guided: image number i of a class to exemplar i modulo their
    number."""

    images: str
    """Real data set whose train part holds the exemplars, by name or path; or `own`: no real image, but the most
    central ones of the class's own images at guidance scale 1."""
    model: str
    """Classifier in whose features images are compared: the name or folder of one that raysd trained, or one in timm's
    format, a folder or a hub id as `timm/resnet50.a1_in1k`."""
    per_class: Annotated[int, Field(ge=1, le=MOST_EXEMPLARS), Unit("images")] = 2
    """Exemplars of each class: the first images of the class, or for `own` its medoids."""
    seed: Seed = 0
    """Number of the choice: seed 1 takes the images of each class after those of seed 0, and so on. For `own`, the seed
    of the clone that exemplars are chosen from."""
    pool: Annotated[int, Field(ge=1, le=MOST_OF_POOL), Unit("images")] = 100
    """Images of each class that `own` exemplars are chosen from."""

    @model_validator(mode="after")
    def _fewer_than_the_pool(self) -> "ExemplarGuidanceSettings":
        if self.images == OWN and self.pool < self.per_class:
            raise ValueError(f"per_class = {self.per_class} is more than pool = {self.pool}; raise pool")
        return self

    def __str__(self) -> str:
        return f"exemplar guidance {self.weight:g}, {self.per_class} a class of {self.images}"


class CadsSettings(Section):
    """Noise on the prompts' embeddings at the beginning of the sampling (condition-annealed sampling)."""

    scale: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.1
    """Amount of noise: more gives more variety, and too much another class."""
    tau1: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Time, 1 where the sampling begins and 0 where it ends, from which on the embeddings are as they were."""
    tau2: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Time until which the embeddings are noise alone."""
    mixing: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the embedding with the mean and deviation that it had without noise."""

    @model_validator(mode="after")
    def _in_order(self) -> "CadsSettings":
        if self.tau1 > self.tau2:
            raise ValueError(f"tau1 = {self.tau1:g} is above tau2 = {self.tau2:g}; the noise ends at tau1, so lower it")
        return self

    def __str__(self) -> str:
        return f"CADS noise {self.scale:g} from {self.tau2:g} to {self.tau1:g}, mixing {self.mixing:g}"


class GenerationSettings(Section):
    """How a clone is generated. The first block shapes the images and enters the fingerprint; the second does not."""

    model: str = "embedded"
    """Generator: `embedded`, a folder in diffusers format, a hub id, or `dummy` to try a cluster without a model."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; its default branch when null."""
    lora: list[LoraSettings] = []
    """LoRA weights that are fused into the model, in this order."""
    variant: str = "name"
    """Prompt variant, which says how a class becomes a prompt: a built-in one, or one from `variants`."""
    negative_prompt: str | None = None
    """Negative prompt that replaces the variant's; the variant's own when null."""
    guidance_scale: Scale = 2.0
    """Scale g of classifier-free guidance, eps_uncond + g (eps_cond - eps_uncond): 1 is no guidance and costs half, and
    a larger scale gives images that fit the prompt better and vary less."""
    guidance_interval: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.0, 1.0)
    """First and last share of the denoising steps that are guided; all others have guidance scale 1."""
    guidance_range: tuple[Scale, Scale] | None = None
    """Least and largest guidance scale, as `[1, 4]`, in the place of `guidance_scale`: each image has one of its own in
    between, from its seed."""
    guidance_schedule: Literal["constant", "rising", "falling", "rising_cosine", "falling_cosine"] = "constant"
    """Course of the guidance over the denoising steps: g - 1 times a factor with the mean 1, from 0 to 2 or from 2 to
    0, in a line or half a cosine."""
    weak_model: str | None = None
    """Weaker model of the same latent space and text embeddings, a folder in diffusers format or a hub id: images are
    guided away from its prediction (autoguidance), in the place of the unconditional one."""
    weak_revision: str | None = None
    """Branch, tag or commit of a weak model on the hub; its default branch when null."""
    skip_blocks: list[Annotated[int, Field(ge=0)]] = []
    """Numbers of transformer blocks of the denoiser, from 0 in the order in which they run: images are guided away from
    the model without these blocks, in the place of the unconditional prediction."""
    cads: CadsSettings | None = None
    """Add noise to the prompts' embeddings in the first steps, as `{scale: 0.1}`, for more variety at high guidance."""
    entropy_guidance: EntropyGuidanceSettings | None = None
    """Guidance towards images that a classifier is in doubt about (Askari Hemmat et al. 2025); none when null."""
    exemplar_guidance: ExemplarGuidanceSettings | None = None
    """Guidance towards a few given images of each class, real or generated ones; none when null."""
    sampler: Literal["fast", "paper"] = "fast"
    """Scheduler and number of steps: `fast` is DPM-Solver++ with 20 steps, `paper` the checkpoint's own with 50."""
    scheduler: str | None = None
    """Scheduler class of diffusers, as `UniPCMultistepScheduler`, in the place of the sampler's."""
    scheduler_options: dict[str, SchedulerOption] = {}
    """Arguments of the scheduler, over those in the checkpoint."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000), Unit("denoising steps")] | None = None
    """Denoising steps per image; when null, the sampler's number, or few for models distilled for few steps."""
    image_size: Annotated[int, Field(ge=8, le=4096), Unit("pixels")] | None = None
    """Side of the square generated images in pixels; the model's own size when null."""
    stored_size: Annotated[int, Field(ge=8, le=4096), Unit("pixels")] | None = None
    """Side of the stored images in pixels, resized with antialiasing; as generated when null."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Precision of the model: `auto` is float32 for the embedded model, float16 for models with a U-Net, and bfloat16
    for transformers."""
    codec: Literal["auto", "png", "jpeg", "webp"] = "auto"
    """Format of the stored images: `auto` is PNG up to 64 pixels a side, and JPEG at quality 95 above."""
    color: Literal["auto", "rgb", "gray"] = "auto"
    """Channels of the stored images: `auto` is gray for the embedded model, which knows gray images only, else RGB."""
    safety_checker: bool = True
    """Run the checkpoint's safety checker, if it has one, and flag what it finds."""
    flagged: Literal["keep", "drop", "redraw"] = "redraw"
    """Treatment of black and unsafe images: `keep` with their flag, `drop`, or `redraw` with derived seeds."""
    max_redraws: Annotated[int, Field(ge=1, le=100), Unit("attempts")] = 3
    """Further attempts after which a flagged image is dropped and its class listed as short."""
    compile: Literal[True, False, "regional"] = False
    """Compile the denoiser with `torch.compile`: minutes at the start, then faster on GPUs. `regional` compiles its
    repeated blocks, each kind once, and is ready sooner."""
    step_cache: StepCacheSettings | None = None
    """Run the whole U-Net only in every third step or so, as `{interval: 3}`, and only its ends in the others."""
    seed: Seed = 0
    """Seed of the clone, from which each image's own seed follows with its class and number."""
    seeds: list[Seed] = []
    """Seeds of several clones, in the place of `seed`: classifier seed number k learns from clone number k modulo
    their number, so that results count what another seed of the clone would change. Empty is one clone, of `seed`."""

    first_image: Annotated[int, Field(ge=0, le=MOST_IMAGES), Unit("images")] = 0
    """Number of the first image of each class, from 0: seeds and prompts are those of the images from there on."""
    images_per_class: Annotated[int, Field(ge=1, le=MOST_IMAGES), Unit("images")] = 100
    """Images of each class; a larger number makes an existing clone grow."""
    max_dropped_share: Annotated[float, Field(ge=0, le=1), Unit("share of the images")] = 0.05
    """Share of dropped images beyond which a clone has failed; 1 accepts any clone that is not empty."""
    class_counts: dict[str, Count] = {}
    """Other numbers of images for some classes, by key, as `{"St. Bernard": 3}`."""
    images_per_shard: Annotated[int, Field(ge=1, le=100_000), Unit("images")] = 256
    """Images per shard, which is one Parquet file and the unit of work; fixed when a clone is begun."""
    batch_size: Annotated[int, Field(ge=1, le=4096), Unit("images")] = 32
    """Images that an actor generates at once. It is in no fingerprint, but another size gives other last bits."""
    num_actors: Annotated[int, Field(ge=1), Unit("actors")] | None = None
    """Generation actors; when null, one per GPU of the cluster, or per CPU without GPUs, and more when nodes join."""
    min_actors: Annotated[int, Field(ge=1), Unit("actors")] | None = None
    """Actors to begin with, `num_actors` when null; the others join with their nodes."""
    cpus_per_actor: Annotated[float, Field(ge=LEAST_PART, allow_inf_nan=False), Unit("CPUs")] = 1
    """CPUs that Ray reserves for each generation actor, and threads that it computes with on a CPU."""
    gpus_per_actor: Annotated[float, Field(ge=0, allow_inf_nan=False), Unit("GPUs")] | None = None
    """GPUs of each actor: a part of one, a whole number, or 0 for CPUs; when null, 1 on a cluster with GPUs, else 0."""

    @model_validator(mode="after")
    def _fewer_before_more(self) -> "GenerationSettings":
        if self.num_actors is not None and self.min_actors is not None and self.min_actors > self.num_actors:
            raise ValueError(f"min_actors = {self.min_actors} is more than num_actors = {self.num_actors}; lower it")
        return self

    @field_validator("seeds")
    @classmethod
    def _once_each(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed is given twice; name each once")
        return seeds

    @field_validator("color", mode="before")
    @classmethod
    def _rename(cls, color: Any) -> Any:
        return rename_value("color", color, {"grey": "gray"})

    @field_validator("gpus_per_actor")
    @classmethod
    def _of_one_gpu_or_whole_ones(cls, gpus: float | None) -> float | None:
        if gpus is None or gpus == int(gpus) or LEAST_PART <= gpus < 1:
            return gpus
        if gpus < 1:
            raise ValueError(
                f"is less than {LEAST_PART:g} of a GPU, the smallest part that Ray hands out; raise it, or set it to 0"
            )
        raise ValueError(f"an actor has a part of one GPU or whole ones; use {int(gpus)} or {int(gpus) + 1}")

    @model_validator(mode="after")
    def _one_weaker_prediction(self) -> "GenerationSettings":
        if self.weak_model is not None and self.skip_blocks:
            raise ValueError("weak_model and skip_blocks each say what to guide away from; name one of them")
        return self

    @model_validator(mode="after")
    def _one_gradient(self) -> "GenerationSettings":
        if self.entropy_guidance is not None and self.exemplar_guidance is not None:
            raise ValueError("entropy_guidance and exemplar_guidance both move the latents; name one of them")
        return self

    @property
    def mean_guidance_scale(self) -> float:
        """The guidance scale, or the mean of its range."""
        return self.guidance_scale if self.guidance_range is None else sum(self.guidance_range) / 2

    @field_validator("guidance_range")
    @classmethod
    def _low_before_high(cls, scales: tuple[float, float] | None) -> tuple[float, float] | None:
        if scales is not None and scales[0] > scales[1]:
            raise ValueError("the least scale must not be above the largest; exchange them")
        return scales

    @field_validator("skip_blocks")
    @classmethod
    def _each_block_once(cls, blocks: list[int]) -> list[int]:
        if len(set(blocks)) != len(blocks):
            raise ValueError("a block is given twice; name each once")
        return blocks

    @field_validator("guidance_interval")
    @classmethod
    def _rising(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] >= interval[1]:
            raise ValueError("the first share must be below the last")
        return interval


class CostSettings(Section):
    """Prices for `raysd plan`."""

    price_per_hour: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """Price of an hour of one device by its name, as `{A100: 2.0}`, in any currency."""


SAMPLER_STEPS = {"fast": 20, "paper": 50}
