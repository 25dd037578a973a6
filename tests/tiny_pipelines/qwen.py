"""Pipelines whose prompt goes through a Qwen model."""

from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage21,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    PRXPixelPipeline,
    PRXTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImageOmniPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    ByT5Tokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    T5Config,
    T5EncoderModel,
)

from tiny_pipelines.parts import (
    WIDTH,
    flow,
    flow_autoencoder,
    qwen3_config,
    qwen3_vl_config,
    qwen25_vl_config,
    qwen_autoencoder,
    qwen_processor,
    qwen_tokenizer,
)


def qwenimage():
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    return QwenImagePipeline(
        scheduler=flow(),
        vae=qwen_autoencoder(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(qwen25_vl_config()),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


def z_image_transformer(**options):
    return ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=WIDTH,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
        **options,
    )


def z_image():
    return ZImagePipeline(
        scheduler=flow(),
        vae=flow_autoencoder(),
        text_encoder=Qwen3Model(qwen3_config()),
        tokenizer=qwen_tokenizer(),
        transformer=z_image_transformer(),
    )


def z_image_omni():
    """Generates from the prompt alone where no image is given."""
    vision = Siglip2VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_patches=16,
        patch_size=8,
    )
    return ZImageOmniPipeline(
        scheduler=flow(),
        vae=flow_autoencoder(),
        text_encoder=Qwen3Model(qwen3_config()),
        tokenizer=qwen_tokenizer(),
        transformer=z_image_transformer(siglip_feat_dim=WIDTH),
        siglip=Siglip2VisionModel(vision),
        siglip_processor=Siglip2ImageProcessor(patch_size=8, max_num_patches=16),
    )


def flux2_autoencoder():
    return AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=8,
        sample_size=32,
    )


def flux2_transformer(layers, guidance_embeds):
    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=layers * WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


def flux2_klein(is_distilled=True):
    """The text states are those after layers 9, 18 and 27."""
    return Flux2KleinPipeline(
        scheduler=flow(),
        vae=flux2_autoencoder(),
        text_encoder=Qwen3ForCausalLM(qwen3_config(layers=28)),
        tokenizer=qwen_tokenizer(),
        transformer=flux2_transformer(3, guidance_embeds=False),
        is_distilled=is_distilled,
    )


def flux2_klein_base():
    return flux2_klein(is_distilled=False)


def krea2(is_distilled=False):
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=8,
        text_hidden_dim=WIDTH,
        num_text_layers=3,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
    )
    return Krea2Pipeline(
        scheduler=flow(use_dynamic_shifting=True, max_image_seq_len=6400),
        vae=qwen_autoencoder(),
        text_encoder=Qwen3VLModel(qwen3_vl_config()),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
        text_encoder_select_layers=(0, 1, 2),
        is_distilled=is_distilled,
    )


def krea2_turbo():
    return krea2(is_distilled=True)


def ovis():
    transformer = OvisImageTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    return OvisImagePipeline(
        scheduler=flow(),
        vae=flow_autoencoder(channels=1),
        text_encoder=Qwen3Model(qwen3_config()),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


def qwenimage21():
    """Sixteen times smaller latents; images have four channels."""
    channels = 4
    vae = AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )
    transformer = QwenImage21Transformer2DModel(
        in_channels=channels,
        out_channels=channels,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    return QwenImage21Pipeline(
        scheduler=flow(),
        vae=vae,
        text_encoder=Qwen3VLForConditionalGeneration(qwen3_vl_config()),
        processor=qwen_processor(),
        transformer=transformer,
    )


def hunyuan_image(guidance_embeds=False):
    """Also reads the words in quotation marks of a prompt, byte by byte."""
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1),
        guidance_embeds=guidance_embeds,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        rope_axes_dim=(4, 4),
    )
    vae = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        scaling_factor=0.75,
        spatial_compression_ratio=8,
        sample_size=64,
    )
    bytes_config = T5Config(
        vocab_size=384, d_model=WIDTH, d_kv=8, d_ff=37, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu"
    )
    guiders = {}
    if not guidance_embeds:
        guiders = {name: AdaptiveProjectedMixGuidance() for name in ("guider", "ocr_guider")}
    return HunyuanImagePipeline(
        scheduler=flow(shift=7.0),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(qwen25_vl_config(layers=3)),
        tokenizer=qwen_tokenizer(),
        text_encoder_2=T5EncoderModel(bytes_config),
        tokenizer_2=ByT5Tokenizer(),
        transformer=transformer,
        **guiders,
    )


def hunyuan_image_distilled():
    return hunyuan_image(guidance_embeds=True)


def nucleusmoe_image():
    """The text states are those eight layers before the last."""
    transformer = NucleusMoEImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=5,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
        num_experts=4,
        capacity_factors=2.0,
        moe_intermediate_dim=16,
    )
    return NucleusMoEImagePipeline(
        scheduler=flow(),
        vae=qwen_autoencoder(),
        text_encoder=Qwen3VLForConditionalGeneration(qwen3_vl_config(layers=9)),
        processor=qwen_processor(),
        transformer=transformer,
    )


def prx_pixel():
    """Generates pixels, without an autoencoder."""
    transformer = PRXTransformer2DModel(
        patch_size=4,
        in_channels=3,
        context_in_dim=WIDTH,
        hidden_size=WIDTH,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        axes_dim=[8, 8],
        bottleneck_size=8,
        resolution_embeds=True,
    )
    return PRXPixelPipeline(
        transformer=transformer,
        scheduler=flow(),
        text_encoder=Qwen3Model(qwen3_config()),
        tokenizer=qwen_tokenizer(),
    )


PIPELINES = (
    qwenimage,
    qwenimage21,
    z_image,
    z_image_omni,
    flux2_klein,
    flux2_klein_base,
    krea2,
    krea2_turbo,
    hunyuan_image,
    hunyuan_image_distilled,
    ovis,
    nucleusmoe_image,
    prx_pixel,
)
