"""Pipelines whose prompt goes through a Mistral, GLM, Gemma or ChatGLM model."""

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import (
    CogView4Pipeline,
    CogView4Transformer2DModel,
    EulerDiscreteScheduler,
    Flux2Pipeline,
    KolorsPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    PRXPipeline,
    PRXTransformer2DModel,
)
from diffusers.pipelines.kolors import ChatGLMModel, ChatGLMTokenizer
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig
from tiny_models import LETTERS, autoencoder, unet
from tiny_models import gemma_tokenizer as letters_only
from tokenizers.processors import TemplateProcessing
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaConfig,
    GemmaForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    T5GemmaConfig,
    T5GemmaModuleConfig,
)
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from tiny_pipelines.parts import (
    CHAT,
    EIGHT,
    VOCABULARY,
    WIDTH,
    flow,
    flow_autoencoder,
    glm_tokenizer,
    qwen_tokenizer,
    text_sizes,
)
from tiny_pipelines.qwen import flux2_autoencoder, flux2_transformer


def mistral3(layers):
    """A language model with a processor that takes images too."""
    marks = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    processor = PixtralProcessor(PixtralImageProcessor(), qwen_tokenizer(*marks), patch_size=6, chat_template=CHAT)
    text = {**text_sizes(layers=layers), "model_type": "mistral", "head_dim": 8, "max_position_embeddings": 2048}
    vision = {"model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    vision |= {"intermediate_size": 37, "image_size": 30, "patch_size": 6}
    config = Mistral3Config(text_config=text, vision_config=vision, image_token_index=7, vision_feature_layer=-1)
    return Mistral3ForConditionalGeneration(config), processor


def flux2():
    """The text states are those after layers 10, 20 and 30."""
    text_encoder, processor = mistral3(layers=31)
    return Flux2Pipeline(
        scheduler=flow(),
        vae=flux2_autoencoder(),
        text_encoder=text_encoder,
        tokenizer=processor,
        transformer=flux2_transformer(3, guidance_embeds=True),
    )


def cogview4():
    transformer = CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        out_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
    )
    return CogView4Pipeline(
        tokenizer=glm_tokenizer(),
        text_encoder=GlmForCausalLM(GlmConfig(**text_sizes(), head_dim=8)),
        vae=autoencoder(),
        transformer=transformer,
        scheduler=flow(base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"),
    )


def gemma_sizes():
    return {**text_sizes(), "head_dim": 8, "bos_token_id": 2, "eos_token_id": 1}


def gemma_tokenizer():
    """The one that knows letters only; it puts a token before each text, so that an empty text has one too."""
    tokenizer = letters_only()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    return tokenizer


def lumina2():
    transformer = Lumina2Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=WIDTH,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(8, 4, 4),
        axes_lens=(512, 64, 64),
        cap_feat_dim=WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=flow(),
        vae=flow_autoencoder(blocks=EIGHT),
        text_encoder=Gemma2Model(Gemma2Config(**gemma_sizes())),
        tokenizer=gemma_tokenizer(),
    )


def lumina():
    transformer = LuminaNextDiT2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=WIDTH,
        num_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        learn_sigma=True,
        cross_attention_dim=WIDTH,
    )
    return LuminaPipeline(
        transformer=transformer,
        scheduler=flow(),
        vae=flow_autoencoder(blocks=EIGHT),
        text_encoder=GemmaForCausalLM(GemmaConfig(**gemma_sizes())),
        tokenizer=gemma_tokenizer(),
    )


def t5_gemma():
    """An encoder with the configuration of the whole model, as checkpoints have it."""
    sizes = gemma_sizes()
    encoder = T5GemmaModuleConfig(**sizes, dropout_rate=0.0)
    model = T5GemmaEncoder(encoder)
    parts = {"encoder": encoder, "decoder": T5GemmaModuleConfig(**sizes), "layer_types": encoder.layer_types}
    model.config = T5GemmaConfig(**parts, **sizes, sliding_window=encoder.sliding_window)
    model.config._attn_implementation = encoder._attn_implementation = "eager"  # as a loaded one has it
    return model


def prx():
    transformer = PRXTransformer2DModel(
        patch_size=2,
        in_channels=4,
        context_in_dim=WIDTH,
        hidden_size=WIDTH,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        axes_dim=[8, 8],
    )
    tokenizer = gemma_tokenizer()
    tokenizer.model_max_length = 64
    return PRXPipeline(
        transformer=transformer,
        scheduler=flow(),
        text_encoder=t5_gemma(),
        tokenizer=tokenizer,
        vae=flow_autoencoder(),
        default_sample_size=32,
    )


@cache
def _kept_folder():
    """A folder that lasts as long as this process: the tokenizer below reads its file again when it is saved."""
    return TemporaryDirectory()


def chatglm_tokenizer():
    """A SentencePiece tokenizer that knows letters only."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([LETTERS] * 9),
        model_writer=model,
        model_type="char",
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    file = Path(_kept_folder().name) / "tokenizer.model"
    file.write_bytes(model.getvalue())
    return ChatGLMTokenizer(str(file))


def chatglm():
    """A language model; the class leaves its vectors as they lie in memory."""
    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        ffn_hidden_size=37,
        kv_channels=8,
        num_attention_heads=4,
        seq_length=256,
        add_qkv_bias=True,
        multi_query_attention=True,
        multi_query_group_num=2,
        original_rope=True,
    )
    model = ChatGLMModel(config)
    for name, value in model.named_parameters():
        if value.ndim == 1:
            torch.nn.init.constant_(value, 0.0 if name.endswith("bias") else 1.0)
    return model


def kolors(kind=KolorsPipeline, **options):
    denoiser = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return kind(
        vae=autoencoder(),
        text_encoder=chatglm(),
        tokenizer=chatglm_tokenizer(),
        unet=denoiser,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.014, beta_schedule="scaled_linear"),
        **options,
    )


PIPELINES = (flux2, cogview4, lumina2, lumina, prx, kolors)
