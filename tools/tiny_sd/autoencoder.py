"""Train the autoencoder, and put its latents on unit scale."""

import numpy as np
import torch
from diffusers import AutoencoderKL

from tiny_sd.loop import Batch, Schedule, fit, mixed_precision, shuffled_indices
from tiny_sd.models import build_autoencoder

KL_WEIGHT = 1e-4


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """Convert uint8 [B, H, W] gray to float [B, 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(images).float().div_(127.5).sub_(1.0)
    return pixels[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


class AutoencoderLoss(torch.nn.Module):
    """Squared error of the reconstruction plus a small KL term (mean over dimensions)."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae.to(memory_format=torch.channels_last)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the loss for float [B, 3, 32, 32] in [-1, 1]."""
        with mixed_precision():
            posterior = self.vae.encode(pixels).latent_dist
            sampled = self.vae.decode(posterior.sample()).sample
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return (sampled.float() - pixels).square().mean() + KL_WEIGHT * divergence


def train_autoencoder(images: np.ndarray, schedule: Schedule) -> AutoencoderKL:
    """Train on uint8 [N, 32, 32] inside a Ray Train worker; return the averaged model."""
    torch.manual_seed(schedule.seed)
    module = AutoencoderLoss(build_autoencoder())

    def make_batch(step: int, rank: int, world_size: int) -> Batch:
        chosen = shuffled_indices(step, len(images), schedule.batch_size, rank, world_size, schedule.seed)
        return (to_pixels(images[chosen]),)

    return fit(module, make_batch, schedule).vae


@torch.inference_mode()
def encode_all(vae: AutoencoderKL, images: np.ndarray, batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior mean and standard deviation of each image, float32 [N, 8, 8, 8] each."""
    means, stds = [], []
    for start in range(0, len(images), batch_size):
        posterior = vae.encode(to_pixels(images[start : start + batch_size])).latent_dist
        means.append(posterior.mean.contiguous().numpy())
        stds.append(posterior.std.contiguous().numpy())
    return np.concatenate(means), np.concatenate(stds)


@torch.inference_mode()
def decode_all(vae: AutoencoderKL, latents: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Decode latents to uint8 [N, 32, 32] gray images."""
    images = []
    for start in range(0, len(latents), batch_size):
        pixels = vae.decode(torch.from_numpy(latents[start : start + batch_size])).sample
        images.append(((pixels.mean(dim=1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(images)


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, means: np.ndarray) -> None:
    """Fold a shift and a scale per channel into the 1 x 1 convolutions, so that latents have mean 0 and variance 1.

    The decoder undoes both, so images do not change.
    """
    shift = torch.from_numpy(means.mean(axis=(0, 2, 3)))
    scale = torch.from_numpy(means.std(axis=(0, 2, 3)))
    channels = len(shift)
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    weight[:channels] /= scale[:, None, None, None]
    bias[:channels] = (bias[:channels] - shift) / scale
    bias[channels:] -= 2 * scale.log()
    after = vae.post_quant_conv
    after.bias += (after.weight[:, :, 0, 0] @ shift).reshape(-1)
    after.weight *= scale[None, :, None, None]
