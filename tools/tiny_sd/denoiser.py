"""Train the U-Net and the text encoder on latents and captions."""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from tiny_sd.loop import Batch, Schedule, fit, mixed_precision, shuffled_indices
from tiny_sd.models import build_scheduler, build_text_encoder, build_unet

CAPTION_DROPOUT = 0.12
WEAK_WIDTHS = (24, 48)


class DenoiserLoss(torch.nn.Module):
    """Squared error of the predicted velocity v = alpha eps - sigma x (Salimans & Ho 2022)."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's half-precision backward is slow on CPU
        self.unet = unet
        self.text_encoder = text_encoder
        self.scheduler = build_scheduler()

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss for latents and noise [B, 8, 8, 8], timesteps [B] and token ids [B, T]."""
        noised = self.scheduler.add_noise(latents, noise, timesteps)
        alpha = self.scheduler.alphas_cumprod[timesteps][:, None, None, None]
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        unique, place = torch.unique(tokens, dim=0, return_inverse=True)
        with mixed_precision():
            context = self.text_encoder(unique).last_hidden_state[place]
            predicted = self.unet(noised, timesteps, context, return_dict=False)[0]
        return (predicted.float() - velocity).square().mean()


def train_denoiser(
    means: np.ndarray,
    stds: np.ndarray,
    caption: Callable[[int, np.random.Generator], str],
    tokenizer: CLIPTokenizer,
    schedule: Schedule,
    weak_for: CLIPTextModel | None = None,
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Train inside a Ray Train worker; return the averaged U-Net and text encoder.

    Args:
        means: the posterior mean of each image's latent, float32 [N, 8, 8, 8].
        stds: the posterior standard deviation, float32 [N, 8, 8, 8].
        caption: function that returns a caption for an image number and a random generator.
        tokenizer: the text encoder's tokenizer.
        schedule: steps and rates.
        weak_for: a trained text encoder; a denoiser of half the width then learns from it alone.
    """
    torch.manual_seed(schedule.seed)
    if weak_for is None:
        module = DenoiserLoss(build_unet(), build_text_encoder(tokenizer))
    else:
        module = DenoiserLoss(build_unet(WEAK_WIDTHS), weak_for.requires_grad_(False))
    num_timesteps = len(module.scheduler.alphas_cumprod)
    encoded: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        if text not in encoded:
            encoded[text] = tokenizer(text, padding="max_length", truncation=True)["input_ids"]
        return encoded[text]

    def make_batch(step: int, rank: int, world_size: int) -> Batch:
        rng = np.random.default_rng([schedule.seed, step, rank])
        chosen = shuffled_indices(step, len(means), schedule.batch_size, rank, world_size, schedule.seed)
        texts = ["" if rng.random() < CAPTION_DROPOUT else caption(i, rng) for i in chosen]
        latents = means[chosen] + stds[chosen] * rng.standard_normal(means[chosen].shape, dtype=np.float32)
        # One sample per equal slice of the schedule: the same expectation as uniform samples, with less variance.
        slices = (rng.permutation(len(chosen)) + rng.random(len(chosen))) / len(chosen)
        timesteps = torch.from_numpy((slices * num_timesteps).astype(np.int64))
        noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        return torch.from_numpy(latents), timesteps, noise, torch.tensor([encode(text) for text in texts])

    average = fit(module, make_batch, schedule)
    return average.unet, average.text_encoder
