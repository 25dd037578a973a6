"""The memory of a generation actor as `raysd doctor` estimates it, against fake-tensor runs that share no code with
it: python benchmarks/memory.py

Six public architectures, from their configs, without weights. The estimate runs their pipelines
(`raysd.generation.fake_run`). The reference calls denoiser and VAE by hand, with inputs made here, while torch's own
tracker counts. Needs no GPU, and ten minutes: the tracker is slow.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
import transformers
from record import metric, write
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import resolve_clone_spec
from raysd.diffusion.checkpoint import EMBEDDED, Model
from raysd.generation.fake_run import run_on_fake_tensors
from raysd.prompts.resolve import built_in_variants
from raysd.prompts.table import load_class_table

COMMAND = "python benchmarks/memory.py"
BATCHES = (1, 8, 32)
GB = 1e9

CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
T5_XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 32128,
}
GEMMA_2B = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 1024}
VAE |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
VAE_16 = {
    **VAE,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "shift_factor": 0.1,
    "scaling_factor": 1.5,
}
SANA_VAE = {"scaling_factor": 0.41407, "downsample_block_type": "conv", "upsample_block_type": "interpolate"}
SANA_VAE |= {f"{side}_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3 for side in ("encoder", "decoder")}
SDXL = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
    "out_channels": 16,
}
PIXART = {
    "sample_size": 128,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
}
PIXART |= {"caption_channels": 4096, "out_channels": 8, "use_additional_conditions": False}


def clip_tokenizer():
    return transformers.CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")


def word_tokenizer(kind):
    """One that knows no word, since prompts are filled up to one length."""
    special = ["<pad>", "</s>", "<unk>", "<eos>", "<bos>", "▁"]
    if kind is transformers.T5Tokenizer:
        return kind(vocab=[(token, 0.0) for token in special], extra_ids=0)
    return kind(vocab={token: number for number, token in enumerate(special)}, merges=[])


def clip(sizes, kind=transformers.CLIPTextModelWithProjection):
    tokenizer = clip_tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return kind(transformers.CLIPTextConfig(max_position_embeddings=77, vocab_size=49408, **sizes, **ends))


def t5():
    return transformers.T5EncoderModel(transformers.T5Config(**T5_XXL))


def tokenizers(**kinds):
    return {name: clip_tokenizer() if kind is None else word_tokenizer(kind) for name, kind in kinds.items()}


def models(name):
    """A pipeline class, and its models by component."""
    if name == "sd15":
        unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        parts = {
            "unet": unet,
            "vae": diffusers.AutoencoderKL(**VAE),
            "text_encoder": clip(CLIP_L, transformers.CLIPTextModel),
        }
        return diffusers.StableDiffusionPipeline, parts
    if name == "sdxl":
        texts = {"text_encoder": clip(CLIP_L, transformers.CLIPTextModel), "text_encoder_2": clip(CLIP_G)}
        return diffusers.StableDiffusionXLPipeline, {
            "unet": diffusers.UNet2DConditionModel(**SDXL),
            "vae": diffusers.AutoencoderKL(**VAE),
            **texts,
        }
    if name == "sd3":
        texts = {"text_encoder": clip(CLIP_L), "text_encoder_2": clip(CLIP_G), "text_encoder_3": t5()}
        return diffusers.StableDiffusion3Pipeline, {
            "transformer": diffusers.SD3Transformer2DModel(**SD3),
            "vae": diffusers.AutoencoderKL(**VAE_16),
            **texts,
        }
    if name == "flux":
        parts = {
            "transformer": diffusers.FluxTransformer2DModel(guidance_embeds=True),
            "vae": diffusers.AutoencoderKL(**VAE_16),
        }
        return diffusers.FluxPipeline, {
            **parts,
            "text_encoder": clip(CLIP_L, transformers.CLIPTextModel),
            "text_encoder_2": t5(),
        }
    if name == "pixart":
        parts = {"transformer": diffusers.PixArtTransformer2DModel(**PIXART), "vae": diffusers.AutoencoderKL(**VAE)}
        return diffusers.PixArtSigmaPipeline, {**parts, "text_encoder": t5()}
    text = transformers.Gemma2Model(transformers.Gemma2Config(**GEMMA_2B))
    return diffusers.SanaPipeline, {
        "transformer": diffusers.SanaTransformer2DModel(),
        "vae": diffusers.AutoencoderDC(**SANA_VAE),
        "text_encoder": text,
    }


OTHERS = {  # scheduler, tokenizers, and what else the pipeline wants
    "sd15": (
        diffusers.DDIMScheduler,
        {"tokenizer": None},
        {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
    "sdxl": (diffusers.EulerDiscreteScheduler, {"tokenizer": None, "tokenizer_2": None}, {}),
    "sd3": (
        diffusers.FlowMatchEulerDiscreteScheduler,
        {"tokenizer": None, "tokenizer_2": None, "tokenizer_3": transformers.T5Tokenizer},
        {},
    ),
    "flux": (
        diffusers.FlowMatchEulerDiscreteScheduler,
        {"tokenizer": None, "tokenizer_2": transformers.T5Tokenizer},
        {},
    ),
    "pixart": (diffusers.DPMSolverMultistepScheduler, {"tokenizer": transformers.T5Tokenizer}, {}),
    "sana": (diffusers.FlowMatchEulerDiscreteScheduler, {"tokenizer": transformers.GemmaTokenizer}, {}),
}
SIZES = {"sd15": 512}  # the others 1024
HALF = {"sd15": torch.float16, "sdxl": torch.float16}  # the others bfloat16


def checkpoint(name, folder):
    """A folder in diffusers format that lacks its weights."""
    with FakeTensorMode():
        kind, parts = models(name)
    scheduler, tokens, rest = OTHERS[name]
    pipeline = kind(**parts, **tokenizers(**tokens), scheduler=scheduler(), **rest)
    pipeline.save_config(folder)
    for component, part in pipeline.components.items():
        if isinstance(part, transformers.PreTrainedModel):
            part.config.save_pretrained(folder / component)
        elif isinstance(part, diffusers.ModelMixin):
            part.save_config(folder / component)
        elif part is not None:
            part.save_pretrained(folder / component)
    return folder


def spec_of(name, folder):
    """The spec of a guided clone by that model."""
    size, dtype = SIZES.get(name, 1024), HALF.get(name, torch.bfloat16)
    spec = resolve_clone_spec(GenerationSettings(), load_class_table("fashion_mnist"), built_in_variants())
    changes = {"scheduler": None, "image_size": size, "stored_size": size, "dtype": str(dtype).removeprefix("torch.")}
    return replace(spec, model=Model(name, None, folder, "0" * 16), **changes)


def denoiser_inputs(name, batch, new):
    """As the model's paper and its class in diffusers say; classifier-free guidance takes two of each image."""
    both, time_steps = 2 * batch, new(2 * batch)
    if name == "sd15":
        return (new(both, 4, 64, 64), time_steps, new(both, 77, 768)), {}
    if name == "sdxl":
        return (new(both, 4, 128, 128), time_steps, new(both, 77, 2048)), {
            "added_cond_kwargs": {"text_embeds": new(both, 1280), "time_ids": new(both, 6)}
        }
    if name == "sd3":
        return (new(both, 16, 128, 128), new(both, 77 + 256, 4096), new(both, 2048), time_steps), {}
    if name == "flux":
        ids = {"img_ids": new(64 * 64, 3), "txt_ids": new(512, 3)}
        return (new(batch, 64 * 64, 64), new(batch, 512, 4096), new(batch, 768), new(batch)), {
            "guidance": new(batch),
            **ids,
        }
    mask = {"encoder_attention_mask": new(both, 300)}
    if name == "pixart":
        return (new(both, 4, 128, 128), new(both, 300, 4096), time_steps), mask
    return (new(both, 32, 32, 32), new(both, 300, 2304), time_steps), mask


def size_of(part):
    return sum(tensor.nbytes for tensor in [*part.parameters(), *part.buffers()])


def peak_of(call, *held):
    """Bytes at the most, by torch's own tracker; `held` are modules and tensors that are there all the time."""
    tracker = MemTracker()
    tracker.track_external(*held)
    with tracker:
        call()
    return max(snapshot["Total"] for snapshot in tracker.get_tracker_snapshot("peak").values())


def reference(name, batches):
    """Bytes of all weights, and for each batch the most beside them while denoising, and while decoding one image at
    a time or all at once."""
    size, dtype = SIZES.get(name, 1024), HALF.get(name, torch.bfloat16)
    before, found = torch.get_default_dtype(), {}
    with torch.no_grad(), FakeTensorMode():
        torch.set_default_dtype(dtype)
        _, parts = models(name)
        torch.set_default_dtype(torch.float32 if name == "sdxl" else dtype)  # its VAE is too inexact in half precision
        vae = diffusers.AutoencoderDC(**SANA_VAE) if name == "sana" else type(parts["vae"])(**dict(parts["vae"].config))
        torch.set_default_dtype(before)
        weights = sum(map(size_of, parts.values()))
        vae_dtype, channels = next(vae.parameters()).dtype, vae.config.latent_channels
        upcast = size_of(vae) - size_of(parts["vae"])
        denoiser = parts.get("unet") or parts["transformer"]
        for part in (denoiser, vae):
            part.eval()
        for batch in batches:
            args, kwargs = denoiser_inputs(name, batch, lambda *shape: torch.empty(shape, dtype=dtype))
            denoising = peak_of(lambda args=args, kwargs=kwargs: denoiser(*args, **kwargs), denoiser) - size_of(
                denoiser
            )
            side = size // (32 if name == "sana" else 8)
            latents = torch.empty(batch, channels, side, side, dtype=vae_dtype)
            image = 3 * size**2 * vae_dtype.itemsize
            one = peak_of(lambda latents=latents: vae.decode(latents[:1]).sample, vae) - size_of(vae)
            one_by_one = max(
                one + (batch - 1) * image, 2 * batch * image
            )  # those that are decoded, then a copy of all as one tensor
            at_once = peak_of(lambda latents=latents: vae.decode(latents).sample, vae) - size_of(vae)
            found[batch] = (denoising, one_by_one + upcast, at_once + upcast)
    return weights, found


def compare(name):
    """The metrics of one model."""
    with tempfile.TemporaryDirectory() as folder:
        spec, entries = spec_of(name, checkpoint(name, Path(folder))), []
        weights, expected = reference(name, BATCHES)
        ratios = []
        for batch in BATCHES:
            began = time.process_time()
            loaded, activations = run_on_fake_tensors(spec, batch)
            seconds = time.process_time() - began
            denoising, one_by_one, at_once = expected[batch]
            estimate, peak = loaded + max(activations.values()), weights + max(denoising, one_by_one)
            ratios.append(estimate / peak)
            print(name, batch, activations, {"denoising": denoising, "decoding": one_by_one}, flush=True)
        about = (
            f"{spec.image_size} px, {spec.dtype}, guided, batches of {BATCHES}; weights {weights / GB:.1f} GB, "
            f"{peak / GB:.1f} GB in batches of {batch}"
        )
        entries.append(
            metric(
                f"{name}: error of the estimate",
                max(abs(ratio - 1) for ratio in ratios),
                "share",
                "lower",
                COMMAND,
                about,
                ratios,
            )
        )
        entries.append(
            metric(
                f"{name}: peak in batches of {batch}",
                peak / GB,
                "GB",
                "lower",
                COMMAND,
                "weights and activations, by the reference",
            )
        )
        entries.append(
            metric(
                f"{name}: decoding {batch} images one at a time",
                one_by_one / GB,
                "GB",
                "lower",
                COMMAND,
                f"at once: {at_once / GB:.1f} GB",
            )
        )
        entries.append(
            metric(f"{name}: CPU seconds of the estimate", seconds, "s", "lower", COMMAND, "imports not counted")
        )
    return entries


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(OTHERS))
    for name in parser.parse_args().models:
        write("memory", compare(name))
