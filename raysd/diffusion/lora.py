"""LoRA weights: loaded into a pipeline, counted, and fused into its weights."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysd.diffusion.checkpoint import Lora
from raysd.diffusion.inspection import LORA_INPUT, CheckpointError, read_header

COMPONENT = re.compile(r"^(unet|transformer|text_encoder(_\d)?|denoiser)\.")
MISMATCH = re.compile(r"size mismatch for (\S+?):? ")
REMEDY = "use weights for this model, saved with save_lora_weights of its pipeline"
FACTORS = re.compile(r"\.(lokr_w1|lokr_w1_a|hada_w1_a)$")


def fuse_lora(pipeline: Any, denoiser: str, lora: Lora, file: Path) -> None:
    """Fuse LoRA weights into the weights of a pipeline.

    diffusers passes over weights whose names it does not know, without a word. So the layers that got weights are
    counted.

    Args:
        pipeline: of diffusers.
        denoiser: its `unet` or `transformer`.
        lora: with its scale.
        file: its file on this node.

    Raises:
        CheckpointError: they are for another model, or in a form that diffusers cannot convert.
    """
    names = list(read_header(file) or {})
    held = num_layers(names)
    place = {"weight_name": file.name, "use_safetensors": True}
    try:
        with _silent():
            if _is_bare(names, getattr(pipeline, denoiser)):
                getattr(pipeline, denoiser).load_lora_adapter(str(file.parent), prefix=None, **place)
            else:
                pipeline.load_lora_weights(str(file.parent), **place)
    except Exception as error:  # of diffusers, peft and torch, which raise many kinds
        raise CheckpointError(lora.field, lora.name, _reason(error)) from None
    hooked = _num_hooked(pipeline)
    if hooked < max(held, 1):
        raise CheckpointError(lora.field, lora.name, _missing(hooked, held, names))
    pipeline.fuse_lora(lora_scale=lora.scale)
    pipeline.unload_lora_weights()


def num_layers(names: list[str]) -> int:
    """Return the number of layers that a file with tensors of these names has LoRA weights for."""
    return sum(bool(LORA_INPUT.search(name) or FACTORS.search(name)) for name in names)


def _is_bare(names: list[str], denoiser: Any) -> bool:
    """Return whether all names begin as those of the denoiser's own layers, with no component before them."""
    parts = {name for name, _ in denoiser.named_children()}
    return bool(names) and all(name.split(".")[0] in parts and not COMPONENT.match(name) for name in names)


def _num_hooked(pipeline: Any) -> int:
    """Return the number of layers of a pipeline that have LoRA weights now."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Module

    parts = [part for part in pipeline.components.values() if isinstance(part, Module)]
    return sum(isinstance(module, BaseTunerLayer) for part in parts for module in part.modules())


def _missing(hooked: int, held: int, names: list[str]) -> str:
    begin = names[0].split(".")[0] if names else ""
    if not hooked:
        return f"none of its {held} layers is one of the model's (names begin with {begin!r}); {REMEDY}"
    return f"the model has only {hooked} of the {held} layers that it holds; {REMEDY}"


def _reason(error: Exception) -> str:
    if found := MISMATCH.search(str(error)):
        return f"is for a model of another size ({found[1]}); use weights for this model"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"cannot be loaded ({type(error).__name__}: {lines[0].rstrip('.')}); use weights for this model"


@contextmanager
def _silent() -> Iterator[None]:
    """Keep diffusers from printing what is raised as well."""
    import logging

    from diffusers.utils import logging as diffusers_logging

    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
