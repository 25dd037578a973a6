"""What a guidance scale means to each text-to-image pipeline of diffusers, read from the source of diffusers 0.42.

To raysd it has one meaning: eps = eps_uncond + g (eps_cond - eps_uncond), and 1 is none. Pipelines differ in the name
of the argument, in its zero, and in when they guide at all. The kinds of guidance:

- `classifier_free`: two passes of the denoiser, mixed.
- `embedded`: the scale is an input of a distilled denoiser (Flux dev, latent consistency models). One pass, no negative
  prompt.
- `none`: distilled without a scale (Flux schnell). Only 1 is possible.

A pipeline that is not in the table is refused, since nobody knows what a scale would do there.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

Guidance = Literal["classifier_free", "embedded", "none"]


@dataclass(frozen=True)
class Convention:
    """How the call of a pipeline takes guidance."""

    guidance: Guidance = "classifier_free"
    argument: str | None = "guidance_scale"
    """The call's argument for the scale; None where the call takes none."""
    offset: float = 0.0
    """What is taken from g to get the argument: 1 where a pipeline adds g (eps_cond - eps_uncond) to eps_cond."""
    guides_above: float = 1.0
    """The g up to which the pipeline does not guide."""
    takes_negative_prompt: bool = True
    no_negative_prompt: str | None = None
    """The negative prompt that stands for none, where the pipeline would not guide, or fail, without one."""
    always_two_passes: bool = False
    """Whether it makes the unconditional pass without guidance too."""
    one_call: bool = False
    """Whether it calls its denoiser once a step, with the unconditional half of a doubled batch before the conditional
    one, whatever the prompts are. Others call it once for each pass, or with parts of other sizes."""
    replaces_guider: bool = False
    """Whether the pipeline mixes both passes in a component `guider`, whose place a plain one takes."""
    one_by_one: bool = False
    """Whether each image gets a call of its own: where a call pads prompts to the longest of its batch, so that an
    image would depend on its neighbors, or takes one prompt or one seed (PRX, DreamLite, GLM Image)."""
    only_size: int | None = None
    """The side in pixels that it generates whatever is asked for."""
    package: str | None = None
    """A package that its code needs, and that diffusers does not install."""
    version: int = 1
    """Counts up when images of the same settings become other ones. It is in the fingerprint, except for 1."""

    def scale(self, guidance_scale: float) -> float:
        """Return the value of the call's argument for a guidance scale g."""
        return guidance_scale - self.offset

    def makes_two_passes(self, guidance_scale: float) -> bool:
        """Return whether a step with the guidance scale g has an unconditional pass."""
        return self.guidance == "classifier_free" and (guidance_scale > 1 or self.always_two_passes)


PLAIN = Convention()
ONE_CALL = Convention(one_call=True)
EMBEDDED = Convention("embedded", takes_negative_prompt=False)
NONE = Convention("none", argument=None, takes_negative_prompt=False)
FROM_ZERO = Convention(offset=1.0, version=2)
TRUE_CFG = Convention(argument="true_cfg_scale", no_negative_prompt=" ", one_by_one=True, version=2)
ONE_BY_ONE = Convention(one_by_one=True, version=2)

CONVENTIONS: dict[str, Convention] = {
    "StableDiffusionPipeline": ONE_CALL,
    "StableDiffusionXLPipeline": ONE_CALL,
    "StableDiffusion3Pipeline": ONE_CALL,
    "PixArtAlphaPipeline": ONE_CALL,
    "PixArtSigmaPipeline": ONE_CALL,
    "SanaPipeline": ONE_CALL,
    "Dummy": ONE_CALL,
    "LatentConsistencyModelPipeline": EMBEDDED,
    "SanaSprintPipeline": EMBEDDED,
    "FluxPipeline": EMBEDDED,
    "FluxKontextPipeline": replace(EMBEDDED, version=2),  # it generated 1024 px whatever was asked for
    "Flux2Pipeline": EMBEDDED,
    "Flux2KleinPipeline": replace(PLAIN, takes_negative_prompt=False),
    "Flux2KleinKVPipeline": NONE,
    "AuraFlowPipeline": PLAIN,
    "BriaPipeline": PLAIN,
    "BriaFiboPipeline": ONE_BY_ONE,
    "ChromaPipeline": PLAIN,
    "CogView3PlusPipeline": PLAIN,
    "CogView4Pipeline": ONE_BY_ONE,
    "DreamLitePipeline": replace(ONE_BY_ONE, always_two_passes=True),
    "DreamLiteMobilePipeline": replace(NONE, one_by_one=True, version=2),
    "ErnieImagePipeline": ONE_BY_ONE,  # it rewrote prompts, too
    "GlmImagePipeline": replace(ONE_BY_ONE, takes_negative_prompt=False),
    "HiDreamImagePipeline": replace(PLAIN, only_size=1024),
    "HunyuanDiTPipeline": PLAIN,
    "HunyuanImagePipeline": Convention(argument=None, replaces_guider=True, version=2),
    "Ideogram4Pipeline": replace(ONE_BY_ONE, takes_negative_prompt=False, always_two_passes=True),
    "IFPipeline": PLAIN,
    "Kandinsky3Pipeline": replace(FROM_ZERO, guides_above=2.0, one_by_one=True),
    "Kandinsky5T2IPipeline": replace(ONE_BY_ONE, only_size=1024),
    "KolorsPipeline": PLAIN,
    "Krea2Pipeline": FROM_ZERO,
    "LongCatImagePipeline": replace(PLAIN, no_negative_prompt="", version=2),  # it rewrote prompts
    "LuminaPipeline": ONE_BY_ONE,
    "Lumina2Pipeline": ONE_BY_ONE,
    "NucleusMoEImagePipeline": ONE_BY_ONE,
    "OmniGenPipeline": replace(ONE_BY_ONE, takes_negative_prompt=False, always_two_passes=True),
    "OvisImagePipeline": PLAIN,
    "PRXPipeline": replace(ONE_BY_ONE, package="ftfy"),  # it rewrote prompts, too
    "PRXPixelPipeline": replace(ONE_BY_ONE, package="ftfy"),
    "QwenImagePipeline": TRUE_CFG,
    "QwenImage21Pipeline": TRUE_CFG,
    "ZImagePipeline": replace(FROM_ZERO, one_by_one=True),
    "ZImageOmniPipeline": replace(FROM_ZERO, one_by_one=True),
}
STEPPED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "SanaPipeline")
"""Pipelines that call the denoiser once a step, hand out their latents after it, and decode images from them alone."""
DISTILLED: dict[str, Convention] = {
    "HunyuanImagePipeline": replace(EMBEDDED, argument="distilled_guidance_scale", replaces_guider=True),
    "QwenImagePipeline": replace(EMBEDDED, one_by_one=True),
}
"""Those whose checkpoints may have the scale as an input."""

TWO_MODELS = "guides two models, each with a scale of its own"
REFUSED: dict[str, str] = {
    "CogView4ControlPipeline": "needs an image beside the prompt",
    "FluxControlPipeline": "needs an image beside the prompt",
    "HeliosPipeline": "generates videos",
    "HeliosPyramidPipeline": "generates videos",
    "KandinskyCombinedPipeline": TWO_MODELS,
    "KandinskyV22CombinedPipeline": TWO_MODELS,
    "StableCascadeCombinedPipeline": TWO_MODELS,
    "StableUnCLIPPipeline": TWO_MODELS,
    "UnCLIPPipeline": TWO_MODELS,
    "WuerstchenCombinedPipeline": TWO_MODELS,
}
"""Why a pipeline is refused, as the end of a sentence that begins with its name."""
REFUSED_KINDS = {
    "ControlNet": "needs an image beside the prompt",
    "Img2Img": "needs an image beside the prompt",
    "Inpaint": "needs an image beside the prompt",
    "PAG": "adds perturbed-attention guidance, which no guidance scale leaves out",
}
"""The same for all pipelines with a word in their names."""


def find_convention(pipeline: str, index: dict[str, Any], config: dict[str, Any]) -> Convention | None:
    """Return the convention of a checkpoint; None where its pipeline is not in the table.

    Args:
        pipeline: its class.
        index: `model_index.json`.
        config: of its denoiser.
    """
    convention = CONVENTIONS.get(pipeline)
    if convention is None:
        return None
    has_embedded = bool(config.get("guidance_embeds", pipeline == "Flux2Pipeline"))
    if pipeline in ("FluxPipeline", "FluxKontextPipeline", "Flux2Pipeline") and not has_embedded:
        return replace(NONE, version=convention.version)
    if pipeline == "Flux2KleinPipeline" and index.get("is_distilled"):
        return NONE
    if config.get("time_cond_proj_dim") is not None:
        return EMBEDDED
    if pipeline in DISTILLED and has_embedded:
        return replace(DISTILLED[pipeline], version=convention.version)
    return convention


def why_refused(pipeline: str) -> str:
    """Return why a pipeline without a convention is refused, as a clause."""
    kind = next((reason for word, reason in REFUSED_KINDS.items() if word in pipeline), None)
    if reason := REFUSED.get(pipeline, kind):
        return f"{pipeline} {reason}"
    return f"raysd does not know what a guidance scale means to {pipeline or 'its pipeline, which has no name'}"
