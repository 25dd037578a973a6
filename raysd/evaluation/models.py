"""A classifier that is measured: one of raysd's own, or a pretrained one in timm's format."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, resolve_data_config

from raysd.classifier.architecture import CONFIG, WEIGHTS, load_record
from raysd.classifier.model import Classifier, load_classifier, normalize
from raysd.data.images import decode_image
from raysd.errors import UserError
from raysd.prompts.table import ClassTable
from raysd.storage.address import local_path
from raysd.storage.fingerprint import fingerprint, folder_digest
from raysd.storage.hub import FILES, fetch_model
from raysd.storage.location import Location

FIELD = "evaluation.pretrained"


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of an encoded image to a classifier's input: Resize, CenterCrop, normalization."""

    size: int
    """Side of the crop in pixels."""
    resize: int
    """Shorter side before the crop, in pixels."""
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def whole(self) -> "Preprocessing":
        """The same with the shorter side resized to the crop, as transfer sets are seen."""
        return Preprocessing(self.size, self.size, self.interpolation, self.mean, self.std)

    def decode(self, data: bytes) -> Any:
        """Decode an encoded image to uint8 [3, S, S]."""
        return decode_image(data, self.size, self.resize, self.interpolation)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Convert uint8 [B, 3, S, S] to the classifier's input, float32, channels last."""
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1).mul_(255) for values in (self.mean, self.std)
        )
        return normalize(images, mean, std)


@dataclass(frozen=True)
class EvaluatedModel:
    """A classifier that is measured."""

    fingerprint: str
    folder: str
    """Folder of the weights: a storage location, or a local folder of a pretrained one."""
    about: dict[str, Any]
    """Entries of its rows: `seed`, `backbone`, `trained_on`."""
    preprocessing: Preprocessing
    is_own: bool = True
    outputs: tuple[int, ...] | None = None
    """Which of its outputs are the class table's, in the table's order; all when empty."""
    num_outputs: int = 0

    def load(self) -> Classifier:
        """Return the model in evaluation mode."""
        if self.is_own:
            return load_classifier(Location(self.folder))[0]
        return _load_pretrained(Path(self.folder))

    @cached_property
    def columns(self) -> torch.Tensor | None:
        """`outputs` as an index."""
        return None if self.outputs is None else torch.tensor(self.outputs)


def own_model(root: Location, classifier: str) -> EvaluatedModel:
    """Return a classifier that raysd trained, by its fingerprint.

    Raises:
        FileNotFoundError: it is not there, or not finished.
    """
    return own_model_in(root.child("classifiers", classifier))


def own_model_in(folder: Location) -> EvaluatedModel:
    """Return a classifier that raysd trained, from its folder.

    Raises:
        FileNotFoundError: it is not there, or not finished.
    """
    record = load_record(folder)
    if record is None:
        raise FileNotFoundError(f"no finished classifier in {folder.uri}")
    architecture = record["architecture"]
    about = {"seed": record["seed"], "backbone": architecture["backbone"], "trained_on": record["trained_on"]}
    size = architecture["image_size"]
    return EvaluatedModel(
        record["fingerprint"], folder.uri, about, Preprocessing(size, size), num_outputs=architecture["num_classes"]
    )


def pretrained_model(name: str, table: ClassTable, needs_classes: bool, field: str = FIELD) -> EvaluatedModel:
    """Return a classifier in timm's format, from a folder or the hub.

    Args:
        name: a folder with `config.json` and `model.safetensors`, or a hub id as `timm/resnet50.a1_in1k`.
        table: the classes; an ImageNet-1k classifier serves each table whose keys are wnids of that set.
        needs_classes: whether it is measured on the table's classes, beside transfer sets.
        field: the setting that names it.

    Raises:
        UserError: no such folder or id, no safetensors weights, or classes that it does not know.
    """
    folder = _find(name, field)
    try:
        with torch.device("meta"):
            model = timm.create_model(f"local-dir:{folder}", pretrained=False)
    except Exception as error:  # timm fails in many ways on a configuration that does not fit
        raise UserError(
            field, name, f"timm cannot open it ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from None
    config = resolve_data_config({}, model=model)
    if config["crop_mode"] != "center":
        raise UserError(
            field,
            name,
            (
                f"was made for images that are cut in another way ({config['crop_mode']}), which raysd does not "
                "do; use another one"
            ),
        )
    size = config["input_size"][-1]
    preprocessing = Preprocessing(
        size, int(size / config["crop_pct"]), config["interpolation"], tuple(config["mean"]), tuple(config["std"])
    )
    outputs = _outputs(name, model.num_classes, table, field) if needs_classes else None
    digest = folder_digest(folder, FILES)
    identity = {"weights": digest, "preprocessing": asdict(preprocessing), "outputs": outputs}
    backbone = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["architecture"]
    trained_on = {"kind": "pretrained", "name": name, "fingerprint": digest, "images_per_class": None}
    about = {"seed": 0, "backbone": backbone, "trained_on": trained_on}
    return EvaluatedModel(fingerprint(identity), str(folder), about, preprocessing, False, outputs, model.num_classes)


def _find(name: str, field: str) -> Path:
    name = name.removeprefix("hf-hub:")
    folder = local_path(field, name, "a classifier").resolve()
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise UserError(
                field, name, "no such folder; use a folder in timm's format, or a hub id like timm/resnet50.a1_in1k"
            )
        folder = fetch_model(field, name, None)
    if absent := [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]:
        raise UserError(field, name, f"has no {absent[0]}; timm.models.push_to_hf_hub and save_for_hf write one")
    return folder


def _load_pretrained(folder: Path) -> Classifier:
    if not folder.is_dir():
        raise UserError(FIELD, str(folder), "is not on this node; put it where all nodes see it")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return Classifier(model).eval().to(memory_format=torch.channels_last)


def _outputs(name: str, num_outputs: int, table: ClassTable, field: str) -> tuple[int, ...] | None:
    """Return the indices of the outputs for the table's classes; None when outputs and classes are the same."""
    wnids = ImageNetInfo("imagenet-1k").label_names()
    if num_outputs == len(wnids) and set(table.keys) <= set(wnids):
        places = {wnid: place for place, wnid in enumerate(wnids)}
        outputs = tuple(places[key] for key in table.keys)
        return None if outputs == tuple(range(num_outputs)) else outputs
    if num_outputs == len(table):
        return None
    raise UserError(
        field,
        name,
        f"has {num_outputs} classes, the class table {len(table)}; leave out the test sets, or use another table",
    )
