"""Tiny checkpoints with random weights, one for each architecture that raysd should generate with; none needs a
download."""

import json

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from raysd.diffusion.checkpoint import EMBEDDED

WIDTH = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz ,.-"


def clip_tokenizer():
    return CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")


def clip_config(width=WIDTH):
    sizes = {
        "hidden_size": width,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": width,
    }
    tokenizer = clip_tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length, **sizes, **ends
    )


def t5_tokenizer():
    """A tokenizer that knows letters only."""
    special = ["<pad>", "</s>", "<unk>"]
    return T5Tokenizer(
        vocab=[(token, 0.0) for token in special] + [(letter, -3.0) for letter in "▁" + LETTERS], extra_ids=0
    )


def gemma_tokenizer():
    """A tokenizer that knows letters only."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    return GemmaTokenizer(vocab={token: number for number, token in enumerate([*special, "▁", *LETTERS])}, merges=[])


def t5():
    config = T5Config(vocab_size=64, d_model=WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return T5EncoderModel(config)


def autoencoder(latent_channels=4, **options):
    blocks = {
        "block_out_channels": (16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return AutoencoderKL(latent_channels=latent_channels, norm_num_groups=8, sample_size=32, **blocks, **options)


def unet(**options):
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    sizes = {"block_out_channels": (16, 32), "layers_per_block": 1, "attention_head_dim": (2, 4), "norm_num_groups": 8}
    return UNet2DConditionModel(sample_size=16, **{"cross_attention_dim": WIDTH, **blocks, **sizes, **options})


def sd1(scheduler=None, **options):
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=clip_tokenizer(),
        unet=unet(**options),
        scheduler=scheduler or PNDMScheduler(skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd2():
    return sd1(DDIMScheduler(prediction_type="v_prediction"), use_linear_projection=True)


def sdxl():
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(),
    )


def sd3():
    clip, large = CLIPTextModelWithProjection(clip_config()), CLIPTextModelWithProjection(clip_config())
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        out_channels=4,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip,
        tokenizer=clip_tokenizer(),
        text_encoder_2=large,
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=t5_tokenizer(),
    )


def flux(guidance_embeds=True):
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(latent_channels=1, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def flux_schnell():
    return flux(guidance_embeds=False)


def pixart(kind=PixArtSigmaPipeline):
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
    )
    return kind(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        vae=autoencoder(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def sana(kind=SanaPipeline, scheduler=None, **options):
    transformer = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=16,
        **options,
    )
    vae = AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    text = Gemma2Config(
        head_dim=4,
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=1,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=1,
    )
    tokenizer = gemma_tokenizer()
    scheduler = scheduler or DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    return kind(
        tokenizer=tokenizer, text_encoder=Gemma2Model(text), vae=vae, transformer=transformer, scheduler=scheduler
    )


def lcm():
    pipeline = sd1(LCMScheduler(), time_cond_proj_dim=16)
    return LatentConsistencyModelPipeline(
        **{**pipeline.components, "image_encoder": None}, requires_safety_checker=False
    )


def sana_sprint():
    return sana(SanaSprintPipeline, SCMScheduler(), guidance_embeds=True)


FAMILIES = {make.__name__: make for make in (sd1, sd2, sdxl, sd3, flux, flux_schnell, pixart, sana, sana_sprint, lcm)}
FAMILIES["pixart_alpha"] = lambda: pixart(PixArtAlphaPipeline)


def save_tiny(name, folder):
    """Write a checkpoint in diffusers format; returns its folder."""
    torch.manual_seed(0)
    path = folder / name
    FAMILIES[name]().save_pretrained(path, safe_serialization=True)
    assert json.loads((path / "model_index.json").read_text())["_class_name"]
    return path


def clip():
    """A CLIP with its processor."""
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = CLIPConfig(
        text_config=clip_config().to_dict(), vision_config={**vision, "projection_dim": WIDTH}, projection_dim=WIDTH
    )
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return CLIPModel(config), CLIPProcessor(CLIPImageProcessor(**size), clip_tokenizer())


def siglip2():
    """A SigLIP 2 with its processor."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    text = {**sizes, "vocab_size": 64, "max_position_embeddings": 16, "projection_size": WIDTH}
    tokenizer = gemma_tokenizer()
    tokenizer.model_max_length = 16
    model = SiglipModel(SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}))
    return model, SiglipProcessor(SiglipImageProcessor(size={"height": 32, "width": 32}), tokenizer)


def image_text_models():
    """Image-text models by name."""
    return {"clip": clip, "siglip2": siglip2}
