"""The parts of the tiny Stable Diffusion, built from diffusers and transformers classes, and their folder on disk."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

IMAGE_SIZE = 32  # pixels; the 28 px images are padded by 2 on each side
LATENT_SIZE = 8
LATENT_CHANNELS = 8
MAX_TOKENS = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def build_autoencoder() -> AutoencoderKL:
    """Build the KL autoencoder: float [B, 3, 32, 32] in [-1, 1] to latents [B, 8, 8, 8]."""
    return AutoencoderKL(
        sample_size=IMAGE_SIZE,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(12, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def build_unet(widths: tuple[int, int] = (48, 96)) -> UNet2DConditionModel:
    """Build the denoiser of latents [B, 8, 8, 8], with cross-attention to the caption at 4 x 4."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,  # in this class the name means the number of heads
        norm_num_groups=widths[0] // 3,
    )


def build_tokenizer(texts: list[str], vocab_size: int = 760) -> CLIPTokenizer:
    """Build a byte-level BPE tokenizer in CLIP's form from `texts`; it encodes any other text byte by byte."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False, min_frequency=1),
    )
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(merge) for merge in merges]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    vocab[START], vocab[END] = len(vocab), len(vocab) + 1
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build a two-layer CLIP text transformer of width 64 over the tokenizer's vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        projection_dim=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return CLIPTextModel(config)


def build_scheduler() -> PNDMScheduler:
    """Build Stable Diffusion's own scheduler and noise schedule, with v-prediction (Salimans & Ho 2022)."""
    return PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def save_pipeline(
    folder: Path, vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> None:
    """Write a diffusers folder with half-precision safetensors that loads in single precision."""
    pipeline = StableDiffusionPipeline(
        vae=vae.to(torch.float16),
        unet=unet.to(torch.float16),
        text_encoder=text_encoder.to(torch.float16),
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    _clean_config(folder / "text_encoder" / "config.json", {"dtype": "float32"})
    for part in ("vae", "unet"):
        _clean_config(folder / part / "config.json", {})


def _clean_config(path: Path, changes: dict[str, Any]) -> None:
    """Drop local paths from a config; transformers would load half-precision weights as such, so the type is set."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config | changes, indent=2, sort_keys=True) + "\n")


def save_denoiser(folder: Path, unet: UNet2DConditionModel) -> None:
    """Write a diffusers folder with a denoiser and a noise schedule alone, which is what a weak model needs."""
    unet.to(torch.float16).save_pretrained(folder / "unet", safe_serialization=True)
    _clean_config(folder / "unet" / "config.json", {})
    build_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
