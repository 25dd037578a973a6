"""The result of training: a classifier in its folder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from raysd.commands.share import PushedRepository
    from raysd.storage.location import Location


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained classifier in its folder, which timm also opens."""

    seed: int
    fingerprint: str
    """Hash of everything that shapes the weights; the folder's name."""
    folder: "Location"
    root: "Location"
    """The storage root, which also holds its accuracies."""

    @property
    def path(self) -> str:
        """The folder with the checkpoint: a path, or a URI in an object store."""
        return self.folder.uri

    @property
    def record(self) -> dict[str, Any]:
        """Recipe, data, and the course of the training."""
        from raysd.classifier.architecture import load_record

        return load_record(self.folder) or {}

    def load(self) -> "torch.nn.Module":
        """Return the timm model in evaluation mode; with a projector, the model and its head as one module. The input
        is images [B, 3, S, S] in [-1, 1]."""
        from raysd.classifier.model import load_classifier

        classifier, _ = load_classifier(self.folder)
        return classifier if classifier.head is not None else classifier.backbone

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        license: str | None = None,
        dry_run: bool = False,
    ) -> "PushedRepository":
        """Make a model repository of the hub hold this classifier; arguments and errors are those of `raysd.push`."""
        from raysd.commands.share import push_classifier

        options = {"private": private, "token": token, "revision": revision, "dry_run": dry_run}
        return push_classifier(self.root, self.fingerprint, repo_id, license, **options)
