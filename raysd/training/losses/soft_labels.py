"""Soft labels in the loss: a teacher's distribution, softened by a temperature (Hinton et al. 2015)."""

import torch
from timm.data.mixup import Mixup
from torch.nn.functional import kl_div, log_softmax, softmax

from raysd.training.recipe import Recipe


class WeighedMixup(Mixup):
    """Mixup and CutMix that keep the share of the batch in the last mixture, so that all targets mix alike."""

    share = 1.0

    def _mix_batch(self, images: torch.Tensor) -> float:
        self.share = float(super()._mix_batch(images))
        return self.share

    def mix(self, targets: torch.Tensor) -> torch.Tensor:
        """Return targets [B, K] mixed as the last batch of images was."""
        return targets * self.share + targets.flip(0) * (1 - self.share)


def mixup_of(recipe: Recipe, num_classes: int) -> WeighedMixup | None:
    """Return the Mixup and CutMix of a recipe; None where it has none."""
    if not recipe.mixup and not recipe.cutmix:
        return None
    return WeighedMixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=num_classes)


def softened(soft: torch.Tensor, num_classes: int, temperature: float) -> torch.Tensor:
    """Return the teacher's distribution at a temperature, float32 [B, K].

    Args:
        soft: float32 [B, 2, k]: some classes, and the logarithms of their probabilities. The rest of the probability is
            spread evenly over the other classes.
        num_classes: K.
        temperature: softens the distribution: 1 leaves it as it is.
    """
    classes, logs = soft[:, 0].long(), soft[:, 1]
    full = torch.empty((len(soft), num_classes), device=soft.device)
    if num_classes > logs.shape[1]:
        rest = (1 - logs.exp().sum(dim=1, keepdim=True)).clamp_min(1e-8) / (num_classes - logs.shape[1])
        full[:] = rest.log()
    return softmax(full.scatter_(1, classes, logs) / temperature, dim=1)


def soft_loss(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 * KL(targets || softmax(logits / T)), the mean over the images; targets [B, K] are softened."""
    return temperature**2 * kl_div(log_softmax(logits / temperature, dim=1), targets, reduction="batchmean")
