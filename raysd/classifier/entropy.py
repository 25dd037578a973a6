"""Entropy of a classifier's answer to generated images, whose gradient leads generation to what it does not know.

Source: Askari Hemmat et al., Improving the scaling laws of synthetic data with deliberate practice (ICML 2025).
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from raysd.classifier.architecture import HEAD, RECORD, WEIGHTS, Architecture, load_record
from raysd.errors import UserError
from raysd.storage.location import Location

if TYPE_CHECKING:
    import torch

FIELD = "generation.entropy_guidance"
DIGITS = 16


@dataclass(frozen=True)
class EntropyGuide:
    """A classifier by which images are guided, and how strongly; make one with `find_guide`."""

    folder: str
    """Folder of the classifier."""
    digest: str
    """Hash of its weights and its shape."""
    weight: float
    """Share of the norm of an image's latents by which a guided step moves them."""
    every: int
    """Denoising steps from one guided step to the next."""
    through_denoiser: bool
    """Whether the gradient passes through the denoiser."""

    def identity(self) -> dict[str, Any]:
        """Return the values that shape images, as plain JSON."""
        return {
            "classifier": self.digest,
            "weight": self.weight,
            "every": self.every,
            "through_denoiser": self.through_denoiser,
        }

    def __str__(self) -> str:
        return f"entropy guidance {self.weight:g}"

    @property
    def key(self) -> tuple[str, ...]:
        """Hash of the classifier."""
        return (self.digest,)


def find_guide(classifier: str, weight: float, every: int, through_denoiser: bool) -> EntropyGuide:
    """Return the guide of a classifier that raysd trained, by its folder.

    Raises:
        UserError: there is none.
    """
    folder = Location(classifier)
    if load_record(folder) is None:
        remedy = "holds no classifier that raysd trained; name a folder as runs/classifiers/<fingerprint>"
        raise UserError(f"{FIELD}.classifier", classifier, remedy)
    return EntropyGuide(folder.uri, classifier_digest(folder.uri), weight, every, through_denoiser)


@cache
def classifier_digest(folder: str) -> str:
    """Return the hash of a classifier's weights and shape; they do not change once its record is there."""
    place = Location(folder)
    digest = hashlib.sha256(json.dumps(json.loads(place.read(RECORD))["architecture"], sort_keys=True).encode())
    for name in (WEIGHTS, HEAD):
        if place.exists(name):
            digest.update(hashlib.sha256(place.read(name)).digest())
    return digest.hexdigest()[:DIGITS]


class Entropy:
    """The entropy of a classifier's softmax; gradients pass from it to the images.

    Args:
        folder: of the classifier.
        device: where it computes.
        color: of the stored images that it was trained on, `rgb` or `gray`.
    """

    def __init__(self, folder: Location, device: "torch.device", color: str) -> None:
        from raysd.classifier.model import load_classifier

        self.model, architecture = load_classifier(folder)
        self.model.requires_grad_(False).to(device)
        self.size, self.is_gray = _size(architecture), color == "gray"

    def __call__(self, images: "torch.Tensor", rows: slice = slice(None)) -> "torch.Tensor":
        """Return the entropies in nats, float32 [B], of images float [B, 3, H, W] in -1..1, whatever their rows."""
        from torch.nn import functional

        logs = functional.log_softmax(self.model(as_seen(images, self.size, self.is_gray)).float(), dim=1)
        return -(logs.exp() * logs).sum(dim=1)


def as_seen(images: "torch.Tensor", size: int, is_gray: bool) -> "torch.Tensor":
    """Return images float [B, 3, H, W] as a classifier sees them once they are stored, [B, 3, size, size] in -1..1;
    gradients pass."""
    from torch.nn import functional

    images = images.float().clamp(-1, 1)
    if is_gray:
        images = images.mean(dim=1, keepdim=True).expand_as(images)
    if images.shape[-2:] != (size, size):
        images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return images


def _size(architecture: Architecture) -> int:
    return architecture.image_size
