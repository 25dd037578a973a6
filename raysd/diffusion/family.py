"""Facts about a pipeline before it is loaded, read from the checkpoint's JSON files."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from raysd.diffusion.conventions import Convention, Guidance, find_convention
from raysd.errors import UserError

# Arguments of the pipeline's call that `encode_prompt` returns, in order; None is discarded. Other pipelines encode
# prompts themselves.
PAIR = ("prompt_embeds", "negative_prompt_embeds")
POOLED = (*PAIR, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
MASKED = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
EMBEDDINGS: dict[str, tuple[str | None, ...]] = {
    "StableDiffusionPipeline": PAIR,
    "StableDiffusionXLPipeline": POOLED,
    "StableDiffusion3Pipeline": POOLED,
    "LatentConsistencyModelPipeline": ("prompt_embeds", None),
    "FluxPipeline": ("prompt_embeds", "pooled_prompt_embeds", None),
    "PixArtAlphaPipeline": MASKED,
    "PixArtSigmaPipeline": MASKED,
    "SanaPipeline": MASKED,
    "SanaSprintPipeline": ("prompt_embeds", "prompt_attention_mask"),
}
# Schedulers that follow a plain noise schedule, so that another solver can take their place.
EXCHANGEABLE = (
    "PNDM",
    "DDIM",
    "DDPM",
    "LMSDiscrete",
    "EulerDiscrete",
    "HeunDiscrete",
    "DPMSolver",
    "UniPC",
    "DEIS",
    "KDPM2Discrete",
)
SIZE_MULTIPLES = {"SanaPipeline": 32, "SanaSprintPipeline": 32, "GlmImagePipeline": 32}
IN_PIXELS = ("IFPipeline",)  # those that denoise the image itself
FEW_STEPS = 4
FEW_STEP_SCHEDULERS = ("LCM", "TCD", "SCM", "FlowMatchLCM")
# Latent, trajectory and phased consistency (LCM, TCD, PCM), adversarial and distribution matching distillation (Turbo,
# Lightning, DMD), and the like.
FEW_STEP_WORDS = re.compile(
    r"(?<![a-z])(turbo|lightning|lcm|tcd|pcm|hyper[-_ ]?(?:sd(?:xl)?|flux)|schnell|sprint"
    r"|flash|dmd2?|insta-?flow|vega-?rt)(?![a-z])"
    r"|(?<![a-z\d])((?:1|2|4|8|16)[-_ ]?steps?)(?![a-z])"
)
# Blocks that a denoiser repeats, by its class: most of its work, in few kinds of graphs.
REGIONS = {
    "UNet2DConditionModel": ("BasicTransformerBlock", "ResnetBlock2D"),
    "SD3Transformer2DModel": ("JointTransformerBlock",),
    "FluxTransformer2DModel": ("FluxTransformerBlock", "FluxSingleTransformerBlock"),
    "PixArtTransformer2DModel": ("BasicTransformerBlock",),
    "SanaTransformer2DModel": ("SanaTransformerBlock",),
}
FLUX_SAMPLE_SIZE = 128
DENOISERS = ("unet", "transformer")


@dataclass(frozen=True)
class Family:
    """Facts about a checkpoint's pipeline."""

    pipeline: str
    """A pipeline class of diffusers."""
    denoiser: str
    """`unet` or `transformer`."""
    convention: Convention | None
    """What a guidance scale means to it; None when nobody knows, and nothing may be generated."""
    native_size: int | None
    """Side in pixels that the denoiser was trained at; None when the checkpoint does not say."""
    size_multiple: int
    """Number of pixels of which sides must be a multiple."""
    has_exchangeable_scheduler: bool
    is_few_step: bool
    few_step_sign: str | None
    """Sign of few steps in the files, as a clause; no proof."""
    has_safety_checker: bool
    regions: tuple[str, ...]
    """Classes of the blocks that the denoiser repeats; empty when they are not known."""

    @property
    def guidance(self) -> Guidance:
        """The kind of guidance."""
        return self.known.guidance

    @property
    def takes_interval(self) -> bool:
        """Whether guidance can be left out in a part of the steps."""
        return self.known.guidance == "classifier_free" and self.known.one_call

    @property
    def known(self) -> Convention:
        """The convention of a family that was not refused."""
        assert self.convention is not None, self.pipeline
        return self.convention


@cache
def read_family(folder: Path) -> Family:
    """Return the family of a checkpoint in diffusers format."""
    index = _json(folder / "model_index.json")
    pipeline = str(index.get("_class_name", ""))
    denoiser = next((part for part in DENOISERS if (folder / part / "config.json").is_file()), "unet")
    config, scheduler = _json(folder / denoiser / "config.json"), _json(folder / "scheduler" / "scheduler_config.json")
    reduction = 1 if pipeline in IN_PIXELS else _reduction(_json(folder / "vae" / "config.json"))
    own_scheduler = str((index.get("scheduler") or ["", ""])[1])
    sample_size = config.get("sample_size") or (FLUX_SAMPLE_SIZE if pipeline.startswith("Flux") else None)
    convention = find_convention(pipeline, index, config)
    is_distilled = convention is not None and convention.guidance == "none"
    patch = 1 if denoiser == "unet" else 2
    return Family(
        pipeline=pipeline,
        denoiser=denoiser,
        convention=convention,
        native_size=int(sample_size) * reduction if isinstance(sample_size, int) else None,
        size_multiple=max(SIZE_MULTIPLES.get(pipeline, 8), reduction * patch),
        has_exchangeable_scheduler=own_scheduler.startswith(EXCHANGEABLE) and not _is_flow(scheduler),
        is_few_step=is_distilled or own_scheduler.startswith(FEW_STEP_SCHEDULERS),
        few_step_sign=_few_step_sign(is_distilled, own_scheduler, scheduler, str(index.get("_name_or_path", ""))),
        has_safety_checker=bool((index.get("safety_checker") or [None])[0]),
        regions=REGIONS.get(str(config.get("_class_name", "")), ()),
    )


def few_step_word(name: str) -> str | None:
    """Return the word of a model's name, or of a path, that is a sign of few steps; None when there is none."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()  # sdxlTurbo, SDXLTurbo
    found = FEW_STEP_WORDS.search(words)
    return found[0] if found else None


def _few_step_sign(is_distilled: bool, own_scheduler: str, config: dict[str, Any], saved_from: str) -> str | None:
    """Return the sign of few steps in a checkpoint's files, or None.

    SD-Turbo and SDXL-Turbo are stored with Euler steps and trailing timesteps; Stable Diffusion and SDXL are not. But
    models with a noise schedule of zero terminal signal are, too.
    """
    if is_distilled:
        return "it was distilled without guidance"
    if own_scheduler.startswith(FEW_STEP_SCHEDULERS):
        return f"its scheduler is {own_scheduler}"
    is_trailing = config.get("timestep_spacing") == "trailing" and config.get("prediction_type", "epsilon") == "epsilon"
    if (
        is_trailing
        and own_scheduler.startswith(("EulerDiscrete", "EulerAncestral"))
        and not config.get("rescale_betas_zero_snr")
    ):
        return f"its scheduler is {own_scheduler} with trailing timesteps"
    return f"it was saved from {saved_from!r}" if few_step_word(saved_from) else None


def _is_flow(config: dict[str, Any]) -> bool:
    return bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"


def _reduction(config: dict[str, Any]) -> int:
    blocks = config.get("encoder_block_out_channels") or config.get("block_out_channels") or [0, 0, 0, 0]
    return int(2 ** (len(blocks) - 1))


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError("generation.model", str(path), "is no valid JSON; copy or download it again")
    return value
