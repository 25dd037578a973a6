"""Pipelines in two stages, and those that decode with a vector-quantized autoencoder."""

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    KandinskyCombinedPipeline,
    KandinskyV22CombinedPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from tiny_models import LETTERS, clip_config, clip_tokenizer, t5, t5_tokenizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    XLMRobertaTokenizer,
)

from tiny_pipelines.parts import WIDTH


def vq_autoencoder(blocks=(32, 32)):
    count = len(blocks) - 1
    return VQModel(
        block_out_channels=blocks,
        down_block_types=("DownEncoderBlock2D",) * count + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * count,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )


def kandinsky_unet(addition, projection):
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        addition_embed_type=addition,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        layers_per_block=1,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type=projection,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
    )


def kandinsky_prior():
    """The parts of the first stage, from a prompt to an image's embedding."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=1,
        image_size=32,
        patch_size=8,
    )
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    length = clip_tokenizer().model_max_length
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, embedding_dim=WIDTH, num_embeddings=length, num_layers=1
    )
    scheduler = UnCLIPScheduler(
        variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=5.0
    )
    return {
        "prior_prior": prior,
        "prior_image_encoder": CLIPVisionModelWithProjection(vision),
        "prior_text_encoder": CLIPTextModelWithProjection(clip_config()),
        "prior_tokenizer": clip_tokenizer(),
        "prior_scheduler": scheduler,
        "prior_image_processor": CLIPImageProcessor(**size),
    }


def roberta():
    """A text encoder with a tokenizer that knows letters only."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = [*((token, 0.0) for token in special), *((letter, -3.0) for letter in "▁" + LETTERS), ("<mask>", 0.0)]
    config = MCLIPConfig(
        numDims=WIDTH,
        transformerDimensions=WIDTH,
        hidden_size=WIDTH,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=64,
        max_position_embeddings=96,
    )
    return MultilingualCLIP(config), XLMRobertaTokenizer(vocab=tokens)


def kandinsky():
    text_encoder, tokenizer = roberta()
    return KandinskyCombinedPipeline(
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=kandinsky_unet("text_image", "text_image_proj"),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False),
        movq=vq_autoencoder(),
        **kandinsky_prior(),
    )


def kandinsky22():
    return KandinskyV22CombinedPipeline(
        unet=kandinsky_unet("image", "image_proj"),
        scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=False),
        movq=vq_autoencoder(),
        **kandinsky_prior(),
    )


def kandinsky3():
    unet = Kandinsky3UNet(
        time_embedding_dim=16,
        groups=2,
        attention_head_dim=8,
        layers_per_block=3,
        block_out_channels=(32, 64),
        cross_attention_dim=WIDTH,
        encoder_hid_dim=WIDTH,
    )
    return Kandinsky3Pipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        unet=unet,
        scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        movq=vq_autoencoder((32, 32, 32, 32)),
    )


PIPELINES = (kandinsky, kandinsky22, kandinsky3)
