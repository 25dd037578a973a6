"""The full architecture of Stable Diffusion 1.x, with random weights, at 512 px: python benchmarks/full_size.py
--storage <an empty folder>

Makes the checkpoint (about 4 GB in float32), generates two images with `raysd generate`, and writes down the peak
memory of all processes together. The images are noise; the memory and the code path are those of the real model. Needs
about 12 GB of memory.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import record

COMMAND = "python benchmarks/full_size.py"
STEPS = 4
TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
    "vocab_size": 49408,
}
UNET = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}  # else the defaults, which are those of 1.x
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}


def make_checkpoint(folder):
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from raysd.diffusion.checkpoint import EMBEDDED

    torch.manual_seed(0)
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(down_block_types=down, up_block_types=up, **AUTOENCODER),
        text_encoder=CLIPTextModel(CLIPTextConfig(max_position_embeddings=77, **TEXT, **ends)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**UNET),
        scheduler=PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return sum(
        part.numel() for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder) for part in model.parameters()
    )


def memory_of(process):
    """Resident megabytes of a process and all below it, and of the largest of them."""
    sizes = []
    for one in [process, *process.children(recursive=True)]:
        try:
            sizes.append(one.memory_info().rss / 2**20)
        except psutil.Error:
            continue
    return sum(sizes), max(sizes, default=0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--storage", required=True, help="a folder for the checkpoint and the clone; both are deleted in the end"
    )
    storage = Path(parser.parse_args().storage).resolve()
    num_weights = make_checkpoint(storage / "model")
    words = [
        f"generation.model={storage / 'model'}",
        f"storage={storage / 'runs'}",
        "classes=[cat,dog]",
        "generation.dtype=float32",
    ]
    words += [
        "generation.images_per_class=1",
        "generation.batch_size=1",
        f"generation.num_inference_steps={STEPS}",
        "generation.flagged=keep",
    ]
    words += ["generation.num_actors=1", f"generation.cpus_per_actor={os.cpu_count()}"]
    began = time.time()
    driver = psutil.Popen([sys.executable, "-m", "raysd.cli", "generate", *words])
    total = largest = 0.0
    while driver.poll() is None:
        now = memory_of(driver)
        total, largest = max(total, now[0]), max(largest, now[1])
        time.sleep(0.2)
    assert driver.returncode == 0
    seconds = time.time() - began
    (shard,) = (storage / "runs").glob("clones/*/data/*.parquet")
    assert pq.read_metadata(shard).num_rows == 2
    about = (
        f"Stable Diffusion 1.x, {num_weights / 1e6:.0f} M random weights, float32 on the CPU, 2 images of 512 px, "
        f"{STEPS} steps, guidance 2, batch 1"
    )
    record.write(
        "full_size",
        [
            record.metric("actor_peak_mb", largest, "MB", "lower", COMMAND, baseline=about),
            record.metric(
                "all_processes_peak_mb",
                total,
                "MB",
                "lower",
                COMMAND,
                baseline="the same run with the driver and Ray; shared pages count each time",
            ),
            record.metric(
                "seconds",
                seconds,
                "s",
                "lower",
                COMMAND,
                baseline="from the command to its end, model loading and Ray's start included",
            ),
        ],
    )
    shutil.rmtree(storage)
