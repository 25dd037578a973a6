"""What several tiny pipelines share: tokenizers that know single bytes or letters, text encoders, autoencoders, and
weights that let a prompt change the image."""

import torch
from diffusers import AutoencoderKL, AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler
from tiny_models import LETTERS
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3Config,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

WIDTH = 32
SHARP = {"norm_q", "norm_k", "norm_added_q", "norm_added_k", "q_norm", "k_norm"}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>"]
VOCABULARY = 512
EIGHT = (16, 16, 16, 16)  # blocks of an autoencoder whose latents are eight times smaller
# Pipelines cut the first 34 tokens off: this and the 25 letters after it, with 8 tokens around them.
DESCRIBE = "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of"
DESCRIBE += " the objects and background:"
DESCRIBE = DESCRIBE[:-25]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_vocabulary(special):
    """Special tokens, then one token for each byte."""
    return {token: number for number, token in enumerate([*special, *sorted(ByteLevel.alphabet())])}


def qwen_tokenizer(*more):
    """A tokenizer that knows single bytes and the names of roles, with the chat format of Qwen."""
    special = [*SPECIAL, *more]
    tokenizer = Qwen2Tokenizer(vocab=byte_vocabulary(special), merges=[], extra_special_tokens=special[1:])
    tokenizer.add_tokens(["system", "user", "assistant", DESCRIBE])
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen_processor():
    """The tokenizer within a processor that takes images too."""
    return Qwen3VLProcessor(Qwen2VLImageProcessor(), qwen_tokenizer(), Qwen3VLVideoProcessor(), chat_template=CHAT)


def text_sizes(width=WIDTH, layers=2):
    """Sizes of a small language model."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 37,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }


def qwen3_config(width=WIDTH, layers=2):
    return Qwen3Config(**text_sizes(width, layers), head_dim=8, max_position_embeddings=2048)


def vision_sizes(width=WIDTH):
    """Sizes of the image side of a Qwen model, which text to image never calls."""
    return {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": width,
    }


def qwen25_vl_config(width=WIDTH, layers=2):
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return Qwen2_5_VLConfig(
        text_config={**text_sizes(width, layers), "rope_parameters": rope},
        vision_config=vision_sizes(width),
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=3,
        vision_end_token_id=4,
    )


def qwen3_vl_config(width=WIDTH, layers=2):
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return Qwen3VLConfig(
        text_config={**text_sizes(width, layers), "head_dim": 8, "rope_parameters": rope},
        vision_config={**vision_sizes(width), "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=3,
        vision_end_token_id=4,
    )


def qwen_autoencoder(channels=4):
    """Four times smaller, for images and videos."""
    return AutoencoderKLQwenImage(
        base_dim=16,
        z_dim=channels,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )


def flow_autoencoder(channels=4, blocks=(16, 16)):
    """Without quantization layers, with a shift."""
    return AutoencoderKL(
        block_out_channels=blocks,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )


def glm_tokenizer(*more, **options):
    """A tokenizer that knows single bytes and puts two tokens before each text, as those of GLM do."""
    prefix = ["[gMASK]", "<sop>"]
    special = [*SPECIAL, *prefix, *more]
    model = Tokenizer(BPE(vocab=byte_vocabulary(special), merges=[]))
    model.pre_tokenizer, model.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    model.post_processor = TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[(token, special.index(token)) for token in prefix]
    )
    model.add_special_tokens(special)
    end = {"eos_token": SPECIAL[0], "pad_token": SPECIAL[0]}
    return PreTrainedTokenizerFast(tokenizer_object=model, padding_side="left", chat_template=CHAT, **end, **options)


def bert():
    """A text encoder with a tokenizer that knows letters only."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, model_max_length=77)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertModel(BertConfig(vocab_size=len(tokens), **sizes)), tokenizer


def flow(**options):
    return FlowMatchEulerDiscreteScheduler(**options)


def spread_weights(pipeline, seed=0):
    """Give every weight matrix normal values of its fan-in: layers that start at zero would hide the prompt."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in sorted(pipeline.components.items()):
        if isinstance(module, torch.nn.Module):
            _spread(module.eval(), generator)
            assert all(value.isfinite().all() for value in module.parameters()), name
    return pipeline


@torch.no_grad()
def _spread(module, generator):
    tables = {id(part.weight) for part in module.modules() if isinstance(part, torch.nn.Embedding)}
    for name, value in module.named_parameters():
        if value.ndim >= 2 and value.numel():
            scale = 1.0 if id(value) in tables else value[0].numel() ** -0.5
            value.copy_(torch.randn(value.shape, generator=generator) * scale)
        elif value.ndim == 1 and any(part in SHARP for part in name.split(".")):
            value.fill_(3.0)  # attention that is not alike for all tokens, of which most are padding
        elif value.ndim == 1 and (name.endswith("token") or not (value.any() or name.endswith("bias"))):
            value.fill_(0.5)  # a gate that starts at zero, or memory as it lies
