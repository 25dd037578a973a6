"""Pipelines with several text encoders, or none, and those that also take images."""

from diffusers import (
    AutoencoderTiny,
    DreamLitePipeline,
    DreamLiteUNetModel,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FluxKontextPipeline,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    OmniGenPipeline,
    OmniGenTransformer2DModel,
)
from tiny_models import flux
from transformers import (
    ByT5Tokenizer,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessor,
    GlmImageProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    T5Config,
    T5EncoderModel,
)

from tiny_pipelines.language import mistral3
from tiny_pipelines.parts import (
    CHAT,
    EIGHT,
    VOCABULARY,
    WIDTH,
    flow,
    flow_autoencoder,
    glm_tokenizer,
    qwen3_vl_config,
    qwen25_vl_config,
    qwen_processor,
    qwen_tokenizer,
    text_sizes,
)
from tiny_pipelines.qwen import flux2_autoencoder


def ideogram4():
    """Two transformers, one of which knows no prompt; the text states are those of thirteen layers."""

    def transformer():
        return Ideogram4Transformer2DModel(
            in_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            intermediate_size=37,
            adaln_dim=16,
            llm_features_dim=13 * WIDTH,
            mrope_section=(4, 2, 2),
        )

    return Ideogram4Pipeline(
        scheduler=flow(),
        vae=flux2_autoencoder(),
        text_encoder=Qwen3VLModel(qwen3_vl_config(layers=36)),
        tokenizer=qwen_tokenizer(),
        transformer=transformer(),
        unconditional_transformer=transformer(),
    )


def ernie_image():
    text_encoder, processor = mistral3(layers=3)
    transformer = ErnieImageTransformer2DModel(
        hidden_size=WIDTH,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=37,
        in_channels=4,
        out_channels=4,
        text_in_dim=WIDTH,
        rope_axes_dim=(8, 4, 4),
    )
    return ErnieImagePipeline(
        transformer=transformer,
        vae=flux2_autoencoder(),
        text_encoder=text_encoder.model,
        tokenizer=processor.tokenizer,
        scheduler=flow(),
    )


def longcat_image():
    transformer = LongCatImageTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[8, 4, 4],
    )
    tokenizer = qwen_tokenizer()
    processor = Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT)
    return LongCatImagePipeline(
        scheduler=flow(),
        vae=flow_autoencoder(channels=16),
        text_encoder=Qwen2_5_VLForConditionalGeneration(qwen25_vl_config()),
        tokenizer=tokenizer,
        text_processor=processor,
        transformer=transformer,
    )


def omnigen():
    """The transformer reads the tokens of the prompt itself."""
    transformer = OmniGenTransformer2DModel(
        hidden_size=WIDTH,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=37,
        num_layers=2,
        in_channels=4,
        time_step_dim=8,
        pad_token_id=0,
        vocab_size=VOCABULARY,
        rope_scaling={"long_factor": [1.0] * 4, "short_factor": [1.0] * 4},
    )
    return OmniGenPipeline(
        transformer=transformer,
        scheduler=flow(invert_sigmas=True, num_train_timesteps=1),
        vae=flow_autoencoder(blocks=EIGHT),
        tokenizer=qwen_tokenizer(),
    )


def dreamlite():
    unet = DreamLiteUNetModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
        block_out_channels=(32, 64),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        layers_per_block=1,
        norm_num_groups=8,
        transformer_layers_per_block=1,
    )
    vae = AutoencoderTiny(
        encoder_block_out_channels=(32, 32),
        decoder_block_out_channels=(32, 32),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    return DreamLitePipeline(
        text_encoder=Qwen3VLForConditionalGeneration(qwen3_vl_config()),
        tokenizer=qwen_tokenizer(),
        processor=qwen_processor(),
        vae=vae,
        unet=unet,
        scheduler=flow(),
    )


def flux_kontext():
    """Generates from the prompt alone where no image is given."""
    parts = flux().components
    return FluxKontextPipeline(**{name: part for name, part in parts.items() if part is not None})


def glm_image():
    """A language model first samples a few hundred image tokens."""
    codes = 128
    marks = {"image_token": "<|image|>", "grid_bos_token": "<|grid|>", "grid_eos_token": "<|/grid|>"}
    tokenizer = glm_tokenizer(*marks.values(), extra_special_tokens=marks, bos_token="<sop>")
    config = GlmImageConfig(
        text_config={
            **text_sizes(),
            "vision_vocab_size": codes,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": (2, 1, 1)},
            "eos_token_id": 301,
        },
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "num_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "intermediate_size": 37,
        },
        vq_config={"embed_dim": 16, "num_embeddings": codes, "latent_channels": 16},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        image_start_token_id=300,
        image_end_token_id=301,
    )
    transformer = GlmImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=8,
        prior_vq_quantizer_codebook_size=codes,
    )
    bytes_config = T5Config(vocab_size=384, d_model=WIDTH, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    vae = flow_autoencoder(blocks=EIGHT)
    vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    return GlmImagePipeline(
        tokenizer=ByT5Tokenizer(),
        processor=GlmImageProcessor(GlmImageImageProcessor(), tokenizer, chat_template=CHAT),
        text_encoder=T5EncoderModel(bytes_config),
        vision_language_encoder=GlmImageForConditionalGeneration(config),
        vae=vae,
        transformer=transformer,
        scheduler=flow(),
    )


PIPELINES = (ideogram4, ernie_image, longcat_image, omnigen, dreamlite, flux_kontext, glm_image)
