"""A classifier as a model repository: what timm opens, a card with the measured accuracies, and the record."""

import json
from collections.abc import Sequence
from typing import Any

from raysd.classifier.architecture import CONFIG, HEAD, RECORD, WEIGHTS, load_record
from raysd.clone.clone import CLONES
from raysd.clone.clone import RECORD as CLONE_RECORD
from raysd.data.catalog import built_in_sets
from raysd.errors import UserError
from raysd.sharing.classifier_card import classifier_card
from raysd.sharing.licenses import License, Stated, agreed_license, generator_license
from raysd.sharing.repository import REAL_SET, Contents, HubFile, without_paths
from raysd.sharing.timm_file import FILE, timm_file
from raysd.storage.location import Location
from raysd.storage.row_types.measured import AccuracyRow
from raysd.storage.rows import ACCURACY, read_rows


def classifier_contents(root: Location, classifier: str, license: str | None = None) -> Contents:
    """Return what a repository of a classifier is to hold.

    Args:
        root: the storage root.
        classifier: its fingerprint.
        license: of the weights; when None, what the cards of the generators of its clones state.

    Raises:
        UserError: it is not there, or its license is not known.
    """
    folder = root.child("classifiers", classifier)
    record = load_record(folder)
    if record is None:
        raise UserError("classifier", folder.uri, "is not trained yet; run raysd train first")
    stated = training_licenses(root, record["trained_on"])
    agreed = agreed_license(stated, license)
    config = json.loads(folder.read(CONFIG))
    sizes = folder.list_sizes()
    module = timm_file(config["architecture"])
    about = json.dumps(without_paths(record), indent=2, sort_keys=True) + "\n"
    files = [
        HubFile(CONFIG, sizes[CONFIG], folder=folder),
        HubFile.of(RECORD, about),
        *([] if module is None else [HubFile.of(FILE, module)]),
        *(HubFile(name, sizes[name], folder=folder) for name in (HEAD, WEIGHTS) if name in sizes),
    ]
    rows = _accuracies(root, classifier)
    card = classifier_card(classifier, record, config, rows, agreed, stated)
    notes = [f"license {agreed.text}"]
    if module is not None:
        notes.append(
            f"timm has no {config['architecture']}: the card is not marked as timm's, and {FILE} in the repository "
            "adds the network to timm"
        )
    if not rows:
        notes.append("no accuracy of this classifier is measured; raysd evaluate does, and the card then holds it")
    return Contents("model", classifier, tuple(files), card, tuple(notes))


def training_licenses(root: Location, trained_on: dict[str, Any]) -> list[Stated]:
    """Return what is stated for all that a classifier learned from."""
    return [_stated(root, part) for part in trained_on.get("parts", [trained_on])]


def _stated(root: Location, part: dict[str, Any]) -> Stated:
    if part["kind"] == "clone":
        spec = _clone_spec(root, part["fingerprint"])
        name = str(spec.get("model", part.get("model")))
        stated = generator_license(name, spec.get("commit"), None)
        if spec.get("loras"):
            return Stated(f"{stated.part} with LoRA files", None)
        return stated
    if part["kind"] == "random":
        return Stated("random weights", None)
    known = built_in_sets().get(part["name"])
    name = without_paths(part["name"], REAL_SET)
    return Stated(f"real data set {name}", None if known is None else _of_catalog(known.license, name))


def _clone_spec(root: Location, fingerprint: str) -> dict[str, Any]:
    folder = root.child(CLONES, fingerprint)
    if not folder.exists(CLONE_RECORD):
        return {}
    spec: dict[str, Any] = json.loads(folder.read(CLONE_RECORD)).get("spec", {})
    return spec


def _of_catalog(text: str, name: str) -> License | None:
    """Return a license that the catalog names by its short name; its longer texts are none of the hub's."""
    is_short = len(text.split()) == 1
    return License(text.lower(), why=f"the publisher of {name}") if is_short else None


def _accuracies(root: Location, classifier: str) -> Sequence[AccuracyRow]:
    rows = [row for row in read_rows(root, ACCURACY) if row["classifier"] == classifier]
    roles = {role: place for place, role in enumerate(("test", "shift", "transfer", "validation"))}
    return sorted(rows, key=lambda row: (roles.get(row["role"], len(roles)), row["dataset"], row["shots"] or 0))
