"""Exemplars: a few images of each class, to one of which each generated image is led in the features of a classifier.

Image number i of a class belongs to exemplar i modulo their number. So each exemplar leads as many images as another,
and an image does not depend on its neighbors.

Source: Dall'Asen et al., Increasing the utility of synthetic images through Chamfer guidance (NeurIPS 2025), whose loss
    pairs all images of a batch with all exemplars. Here the pairs are fixed, as the modes of MGD3 are (Chan-Santiago et
    al., ICML 2025).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from raysd.classifier.entropy import as_seen
from raysd.errors import UserError
from raysd.storage.hub import fetch_model, is_hub_id, without_folders
from raysd.storage.location import Location
from raysd.storage.tables import read_table

if TYPE_CHECKING:
    import torch

    from raysd.classifier.model import Classifier
    from raysd.diffusion.latent_steps import Objective

FIELD = "generation.exemplar_guidance"
FILE, ABOUT = "exemplars.parquet", "exemplars.json"


@dataclass(frozen=True)
class FeatureModel:
    """A classifier in whose pooled features images are compared."""

    name: str
    folder: str
    """Folder of the weights: a storage location, or a local folder of timm's."""
    digest: str
    """Hash of its weights, and of what it is shown."""
    is_own: bool
    """Whether raysd trained it."""
    size: int
    """Side in pixels of what it is shown."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    saw_real: str = "unknown"
    """Whether it ever learned from a real image: `no`, `yes` or `unknown`."""

    def load(self) -> "Classifier":
        """Return it in evaluation mode.

        Raises:
            UserError: a local folder that this node does not have.
        """
        from raysd.classifier.model import Classifier, load_classifier

        if self.is_own:
            return load_classifier(Location(self.folder))[0]
        import timm

        folder, name = Path(self.folder), self.name.removeprefix("hf-hub:")
        if not folder.is_dir():
            if not is_hub_id(name):
                raise UserError(f"{FIELD}.model", self.folder, "is not on this node; put it where all nodes see it")
            folder = fetch_model(f"{FIELD}.model", name, folder.name)  # the hub's cache names folders by their commit
        return Classifier(timm.create_model(f"local-dir:{folder}", pretrained=True)).eval()


@dataclass(frozen=True)
class Exemplars:
    """A table of exemplars, as many of each class, in a folder of its own."""

    folder: str
    digest: str
    """Hash of the images, by class and number."""
    per_class: int
    source: str
    """Name of the real data set, or of the clone, that they are from."""
    num_real_images: int
    """Of all classes; 0 where they are generated images."""

    def read(self, label: int) -> list[np.ndarray]:
        """Return the images of a class, by their number, uint8 [H, W, 3] each."""
        table = read_table(Location(self.folder), FILE, ["image", "index"], [("label", "=", label)]).sort_by("index")
        return [_pixels(row["bytes"]) for row in table["image"].to_pylist()]


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@dataclass(frozen=True)
class ExemplarGuide:
    """Exemplars to which images are led, in which features, and how strongly."""

    exemplars: Exemplars
    model: FeatureModel
    weight: float
    """Share of the norm of an image's latents by which a guided step moves them."""
    every: int
    """Denoising steps from one guided step to the next."""
    through_denoiser: bool
    """Whether the gradient passes through the denoiser."""

    def identity(self) -> dict[str, Any]:
        """Return the values that shape images, as plain JSON."""
        return {
            "exemplars": self.exemplars.digest,
            "model": self.model.digest,
            "weight": self.weight,
            "every": self.every,
            "through_denoiser": self.through_denoiser,
        }

    def describe(self) -> dict[str, Any]:
        """Return what a result row says of the exemplars, as plain JSON."""
        return {
            "source": self.exemplars.source,
            "digest": self.exemplars.digest,
            "per_class": self.exemplars.per_class,
            "num_real_images": self.exemplars.num_real_images,
            "model": without_folders(self.model.name),
            "model_saw_real": self.model.saw_real,
            "weight": self.weight,
        }

    def __str__(self) -> str:
        given = self.exemplars
        real = f"{given.num_real_images:,} real images in all" if given.num_real_images else "no real image"
        return f"exemplar guidance {self.weight:g}, {given.per_class} a class of {given.source}, {real}"

    @property
    def key(self) -> tuple[str, ...]:
        """Hash of the exemplars and that of the model."""
        return self.exemplars.digest, self.model.digest


class Nearness:
    """How near images are to their exemplars: minus the square of their distance in a classifier's features.

    Args:
        guide: the exemplars and the classifier.
        device: where it computes.
        color: of the stored images, `rgb` or `gray`; exemplars are seen in the same.
    """

    def __init__(self, guide: ExemplarGuide, device: "torch.device", color: str) -> None:
        self.exemplars, self.seen, self.device, self.is_gray = guide.exemplars, guide.model, device, color == "gray"
        self.model = guide.model.load().requires_grad_(False).to(device)
        self._targets: dict[int, torch.Tensor] = {}

    def features(self, images: "torch.Tensor") -> "torch.Tensor":
        """Return the pooled features, float32 [B, D], of images float [B, 3, H, W] in -1..1."""
        shown = as_seen(images, self.seen.size, self.is_gray)
        mean, std = (shown.new_tensor(values).view(1, 3, 1, 1) for values in (self.seen.mean, self.seen.std))
        return self.model.features_and_logits(((shown + 1) / 2 - mean) / std)[0].float()

    def target(self, label: int, number: int) -> "torch.Tensor":
        """Return the features, float32 [D], of the exemplar of an image, by the label and number of the image."""
        import torch

        if label not in self._targets:
            with torch.no_grad():  # one by one, so that none depends on the others
                each = [self.features(_as_tensor(pixels, self.device)) for pixels in self.exemplars.read(label)]
            self._targets[label] = torch.cat(each)
        targets = self._targets[label]
        return targets[number % len(targets)]

    def of(self, labels: Sequence[int], numbers: Sequence[int]) -> "Objective":
        """Return the objective of a batch, by the label of each image and its number within the class."""
        import torch

        targets = torch.stack([self.target(*each) for each in zip(labels, numbers, strict=True)])

        def objective(images: torch.Tensor, rows: slice) -> torch.Tensor:
            return -(self.features(images) - targets[rows]).square().sum(dim=1)

        return objective


def _as_tensor(pixels: np.ndarray, device: "torch.device") -> "torch.Tensor":
    import torch

    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    return images.to(device, torch.float32).div(127.5).sub(1)
