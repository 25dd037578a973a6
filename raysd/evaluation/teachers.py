"""Classifiers as teachers: those of raysd, and timm's."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raysd.classifier.architecture import CONFIG, RECORD, load_record
from raysd.classifier.model import Classifier
from raysd.curation.teachers import ANSWERS, SawReal, log_softmax
from raysd.device import find_device
from raysd.errors import UserError
from raysd.evaluation.models import EvaluatedModel, own_model_in, pretrained_model
from raysd.prompts.table import ClassTable
from raysd.storage.address import local_path
from raysd.storage.location import Location

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
OF_REAL_IMAGES = re.compile(r"in(1|12|21|22)k|lvd142m|jft|openai|laion|webli|mim", re.IGNORECASE)
"""In the tag of timm weights that were trained on real images."""

OF_KIND: dict[str, SawReal] = {"clone": "no", "random": "no", "real": "yes"}


@dataclass(frozen=True)
class ClassifierTeacher:
    """A classifier that teaches."""

    model: EvaluatedModel
    name: str
    saw_real: SawReal

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes its answers."""
        return self.model.fingerprint

    def load(self) -> "LoadedClassifier":
        """Return it on the device of this process."""
        return LoadedClassifier(self.model, self.model.load().to(find_device()))


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier on the device of this process."""

    model: EvaluatedModel
    classifier: Classifier

    @torch.inference_mode()
    def log_probabilities(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Return the logarithm of each class's probability of encoded images, float64 [B, K]."""
        decoded = np.stack([self.model.preprocessing.decode(data) for data in encoded])
        images = torch.from_numpy(decoded).to(next(self.classifier.parameters()).device)
        logits = self.classifier(self.model.preprocessing.normalize(images)).float().cpu()
        return log_softmax((logits if self.model.columns is None else logits[:, self.model.columns]).numpy())


def find_teacher(field: str, name: str, root: Location, table: ClassTable) -> ClassifierTeacher:
    """Return a classifier that teaches.

    Args:
        field: the setting that names it.
        name: the name or the folder of a classifier of raysd, or a timm classifier as in `evaluation.pretrained`.
        root: the storage root, which holds the classifiers of that name.
        table: the classes.

    Raises:
        UserError: no such classifier, or one of other classes.
    """
    if (folder := find_own(field, name, root)) is not None:
        return own_teacher(field, name, folder, table)
    model = pretrained_model(name, table, needs_classes=True, field=field)
    return ClassifierTeacher(model, name, pretrained_saw_real(model))


def find_own(field: str, name: str, root: Location) -> Location | None:
    """Return the folder of a classifier that raysd trained, by its name or folder; None where it is none of raysd's.

    Raises:
        UserError: a name of raysd's, and no such classifier.
    """
    if FINGERPRINT.fullmatch(name):
        if load_record(folder := root.child("classifiers", name)) is None:
            remedy = f"no finished classifier of that name in {root.child('classifiers').uri}; raysd list shows them"
            raise UserError(field, name, remedy)
        return folder
    if "://" in name and not name.startswith("file:"):
        folder = Location(name)
    else:
        folder = Location(str(local_path(field, name.removeprefix("hf-hub:"), "a classifier")))
    return folder if folder.exists(RECORD) else None


def pretrained_saw_real(model: EvaluatedModel) -> SawReal:
    """Return whether a classifier of timm learned from real images, by the tag of its weights."""
    config = json.loads(Location(model.folder).read(CONFIG))
    tag = str(config.get("pretrained_cfg", {}).get("tag") or "")
    return "yes" if OF_REAL_IMAGES.search(tag) else "unknown"


def own_teacher(field: str, name: str, folder: Location, table: ClassTable) -> ClassifierTeacher:
    """Return a classifier that raysd trained, from its folder; the arguments and errors are those of `find_teacher`."""
    record: dict[str, Any] = load_record(folder) or {}
    num_classes, names = record["architecture"]["num_classes"], record.get("class_names", table.names)
    if num_classes != len(table) or list(names) != list(table.names):
        found = f"{num_classes} classes ({', '.join(names[:3])}, ...)"
        remedy = (
            f"tells {found} apart, the class table has {len(table)} ({', '.join(table.names[:3])}, ...); use one of "
        )
        raise UserError(field, name, remedy + "the same classes in the same order")
    seed = record.get("seed")
    shown = f"{record['trained_on']['name']}, seed {seed} ({record.get('fingerprint', name)})"
    return ClassifierTeacher(own_model_in(folder), shown, saw_real(record["trained_on"]))


def saw_real(trained_on: Mapping[str, Any]) -> SawReal:
    """Return whether a classifier, or a teacher of it, ever learned from a real image; the generator does not count."""
    answers: list[SawReal] = ["no"]
    for part in trained_on.get("parts", [trained_on]):
        answers.append("yes" if part.get("num_real_images") else OF_KIND.get(part["kind"], "unknown"))
        answers.append(part.get("exemplars", {}).get("model_saw_real", "no"))
        if "teacher" in part:
            answers.append(part["teacher"]["saw_real"])
    return max(answers, key=ANSWERS.index)
