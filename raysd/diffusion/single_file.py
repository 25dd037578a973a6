"""Single-file checkpoints, as communities share them: raysd loads folders, and says how to convert a file to one."""

import json
from pathlib import Path

from raysd.errors import UserError

LARGEST_HEADER = 100_000_000  # bytes of a safetensors file
# The start of a tensor's name in single files, by the pipeline that they hold.
SINGLE_FILES = {
    "conditioner.embedders.": "StableDiffusionXLPipeline",
    "text_encoders.clip_g.": "StableDiffusion3Pipeline",
    "model.diffusion_model.joint_blocks.": "StableDiffusion3Pipeline",
    "model.diffusion_model.double_blocks.": "FluxPipeline",
    "double_blocks.": "FluxPipeline",
}


def conversion_command(file: Path) -> str:
    """Return the command that brings a single safetensors file into diffusers format. The pipeline's class is guessed
    from the names of its tensors."""
    kind, folder = _guessed_pipeline(file), file.with_suffix("")
    code = f"from diffusers import {kind}; {kind}.from_single_file({str(file)!r}).save_pretrained({str(folder)!r})"
    return f'python -c "{code}", then generation.model={folder}'


def _guessed_pipeline(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            size = min(int.from_bytes(stream.read(8), "little"), LARGEST_HEADER)
            tensors = json.loads(stream.read(size))
    except ValueError:
        raise UserError(
            "generation.model", str(file), "is no safetensors file; use a folder in diffusers format"
        ) from None
    if any("lora" in name for name in tensors):
        remedy = "holds LoRA weights; name them in generation.lora, beside a whole model"
        raise UserError("generation.model", str(file), remedy)
    signs = (kind for sign, kind in SINGLE_FILES.items() if any(name.startswith(sign) for name in tensors))
    return next(signs, "StableDiffusionPipeline")
