"""Generation settings, as they stand in an experiment file."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SchedulerOption = str | int | float | bool


class GenerationSettings(BaseModel):
    """How a clone is drawn. The first block shapes the pictures and enters the fingerprint; the second does not."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = "embedded"
    """`embedded`, a folder in diffusers format, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    variant: str = "name"
    """Prompt variant: a built-in one, or one from `variants`."""
    guidance_scale: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 2.0
    """eps = eps_uncond + g (eps_cond - eps_uncond); 1 is no guidance."""
    sampler: Literal["fast", "paper"] = "fast"
    """`fast`: DPM-Solver++, 20 steps. `paper`: the checkpoint's own scheduler, 50 steps."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Overrides the sampler's number of steps."""
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side of the square pictures in pixels; the model's own size when empty."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto`: float32 for the embedded model, float16 for others."""
    codec: Literal["auto", "png", "jpeg"] = "auto"
    """`auto`: PNG up to 64 px, else JPEG at quality 95."""
    color: Literal["auto", "rgb", "grey"] = "auto"
    """`auto`: grey for the embedded model, which knows grey pictures only."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    images_per_class: Annotated[int, Field(ge=1)] = 100
    """A clone grows: a larger number draws only what is missing."""
    images_per_shard: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Fixed when a clone is begun."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    num_actors: Annotated[int, Field(ge=1)] | None = None
    """Diffusion actors; by default as many as the cluster's GPUs, or its CPUs when it has none."""
    cpus_per_actor: Annotated[float, Field(gt=0)] = 1
    gpus_per_actor: Annotated[float, Field(ge=0)] | None = None
    """By default 1 on a cluster with GPUs, else 0."""


SAMPLER_STEPS = {"fast": 20, "paper": 50}
