"""Pipelines with perturbed-attention guidance: the parts of the plain ones."""

from diffusers import (
    HunyuanDiTPAGPipeline,
    KolorsPAGPipeline,
    PixArtSigmaPAGPipeline,
    SanaPAGPipeline,
    SD3Transformer2DModel,
    StableDiffusion3PAGPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionXLPAGPipeline,
)
from tiny_models import WIDTH, pixart, sana, sd1, sd3, sdxl

from tiny_pipelines.language import kolors
from tiny_pipelines.t5 import hunyuan_dit


def sd1_pag():
    return StableDiffusionPAGPipeline(**sd1().components, requires_safety_checker=False)


def sdxl_pag():
    return StableDiffusionXLPAGPipeline(**sdxl().components)


def sd3_pag():
    """The default is to perturb the second block."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        out_channels=4,
    )
    parts = {**sd3().components, "transformer": transformer}
    return StableDiffusion3PAGPipeline(**{name: part for name, part in parts.items() if part is not None})


def pixart_pag():
    return pixart(PixArtSigmaPAGPipeline)


def sana_pag():
    return sana(SanaPAGPipeline)


def hunyuan_dit_pag():
    return hunyuan_dit(HunyuanDiTPAGPipeline)


def kolors_pag():
    return kolors(KolorsPAGPipeline)


PIPELINES = (sd1_pag, sdxl_pag, sd3_pag, pixart_pag, sana_pag, hunyuan_dit_pag, kolors_pag)
