"""The result of training: a classifier in its folder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from raysd.storage.location import Location


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained classifier in its folder, which timm also opens."""

    seed: int
    fingerprint: str
    """Hash of everything that shapes the weights; the folder's name."""
    folder: "Location"

    @property
    def path(self) -> str:
        """The folder with the checkpoint: a path, or a URI in an object store."""
        return self.folder.uri

    @property
    def record(self) -> dict[str, Any]:
        """Recipe, data, and the course of the training."""
        from raysd.training.architecture import load_record

        return load_record(self.folder) or {}

    def load(self) -> "torch.nn.Module":
        """Return the timm model in evaluation mode; with a projector, the model and its head as one module. The input
        is images [B, 3, S, S] in [-1, 1]."""
        from raysd.training.model import load_classifier

        classifier, _ = load_classifier(self.folder)
        return classifier if classifier.head is not None else classifier.backbone
