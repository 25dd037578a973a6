"""The whole job, from real images to a diffusers folder, on Ray Train."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from diffusers import AutoencoderKL, UNet2DConditionModel
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from transformers import CLIPTextModel, CLIPTokenizer

from raysd.data.catalog import load_fashion_mnist
from raysd.diffusion.checkpoint import EMBEDDED
from raysd.prompts.table import load_class_table
from tiny_sd import autoencoder, denoiser
from tiny_sd.captions import describe, measure_attributes, vocabulary_texts
from tiny_sd.loop import Schedule
from tiny_sd.models import build_tokenizer, save_denoiser, save_pipeline

AUTOENCODER_SCHEDULE = Schedule(num_steps=2800, batch_size=128, learning_rate=2e-3, ema_decay=0.995)
DENOISER_SCHEDULE = Schedule(num_steps=9600, batch_size=128, learning_rate=1.5e-3, ema_decay=0.9995)

WEAK_SCHEDULE = Schedule(num_steps=1200, batch_size=128, learning_rate=1.5e-3, ema_decay=0.99)

TRIAL_IMAGES = 2000


@dataclass(frozen=True)
class Job:
    """The output folder of the job, and its schedules."""

    out: str
    num_workers: int = 2
    autoencoder: Schedule = AUTOENCODER_SCHEDULE
    denoiser: Schedule = DENOISER_SCHEDULE
    weak: Schedule = WEAK_SCHEDULE
    num_images: int | None = None
    """Number of images to learn from, from the first on; all when None."""


def train_tiny_sd(job: Job) -> Path:
    """Train the embedded generator, or continue an earlier call; return the diffusers folder.

    Needs the real Fashion-MNIST (see `load_fashion_mnist`).
    """
    out = Path(job.out).resolve()
    images = load_fashion_mnist("train")[0][: job.num_images]
    vae_folder = out / "vae"
    if not vae_folder.exists():
        _fit(_autoencoder_worker, job, "autoencoder", job.autoencoder)
        vae = AutoencoderKL.from_pretrained(out / "autoencoder_average")
        autoencoder.normalize_latents(vae, autoencoder.encode_all(vae, images)[0])
        vae.save_pretrained(out / "vae.partial")
        os.replace(out / "vae.partial", vae_folder)  # the folder gets its name when it is whole
    if not (out / "latents.npz").exists():
        means, stds = autoencoder.encode_all(AutoencoderKL.from_pretrained(vae_folder).eval(), images)
        np.savez(out / "latents.partial.npz", means=means, stds=stds)
        os.replace(out / "latents.partial.npz", out / "latents.npz")
    _fit(_denoiser_worker, job, "denoiser", job.denoiser)
    pipeline = out / "tiny_sd"
    save_pipeline(
        pipeline,
        AutoencoderKL.from_pretrained(vae_folder),
        UNet2DConditionModel.from_pretrained(out / "unet"),
        CLIPTextModel.from_pretrained(out / "text_encoder"),
        CLIPTokenizer.from_pretrained(out / "tokenizer"),
    )
    return pipeline


def train_weak(job: Job) -> Path:
    """Train a weak denoiser for the embedded generator, in its latent space and with its text encoder; return the
    diffusers folder."""
    out = Path(job.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "latents.npz").exists():
        images = load_fashion_mnist("train")[0][: job.num_images]
        vae = AutoencoderKL.from_pretrained(EMBEDDED / "vae").eval()
        means, stds = autoencoder.encode_all(vae, images)
        np.savez(out / "latents.partial.npz", means=means, stds=stds)
        os.replace(out / "latents.partial.npz", out / "latents.npz")
    _fit(_weak_worker, job, "weak", job.weak)
    save_denoiser(out / "tiny_sd_weak", UNet2DConditionModel.from_pretrained(out / "unet"))
    return out / "tiny_sd_weak"


def _fit(worker: Any, job: Job, name: str, schedule: Schedule) -> None:
    trainer = TorchTrainer(
        worker,
        train_loop_config={
            "out": str(Path(job.out).resolve()),
            "schedule": asdict(schedule),
            "num_images": job.num_images,
        },
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=job.num_workers, resources_per_worker={"CPU": 0.9}),
        run_config=RunConfig(
            name=name,
            storage_path=str(Path(job.out).resolve() / "runs"),
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    trainer.fit()


def _autoencoder_worker(config: dict[str, Any]) -> None:
    images = load_fashion_mnist("train")[0][: config["num_images"]]
    vae = autoencoder.train_autoencoder(images, Schedule(**config["schedule"]))
    if ray.train.get_context().get_world_rank() == 0:
        vae.save_pretrained(Path(config["out"]) / "autoencoder_average")


def _weak_worker(config: dict[str, Any]) -> None:
    _denoiser_worker(config, is_weak=True)


def _denoiser_worker(config: dict[str, Any], is_weak: bool = False) -> None:
    out = Path(config["out"])
    images, labels = (part[: config["num_images"]] for part in load_fashion_mnist("train"))
    rows = load_class_table("fashion_mnist").rows
    attributes = measure_attributes(images, labels)
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(EMBEDDED / "text_encoder")
    if not is_weak:
        tokenizer, text_encoder = build_tokenizer(vocabulary_texts(rows)), None
    latents = np.load(out / "latents.npz")

    def caption(i: int, rng: np.random.Generator) -> str:
        return describe(rows[labels[i]], attributes.words(i), rng)

    unet, text_encoder = denoiser.train_denoiser(
        latents["means"], latents["stds"], caption, tokenizer, Schedule(**config["schedule"]), text_encoder
    )
    if ray.train.get_context().get_world_rank() == 0:
        unet.save_pretrained(out / "unet")
        text_encoder.save_pretrained(out / "text_encoder")
        tokenizer.save_pretrained(out / "tokenizer")


def shortened(job: Job, steps: int) -> Job:
    """Return the same job with both parts cut to `steps` steps and few images, for a trial run."""
    return replace(
        job,
        num_images=TRIAL_IMAGES,
        autoencoder=replace(job.autoencoder, num_steps=steps),
        denoiser=replace(job.denoiser, num_steps=steps),
        weak=replace(job.weak, num_steps=steps),
    )
