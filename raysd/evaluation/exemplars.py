"""Choose the exemplars that guide generation, and keep them as a table below the storage root.

They are the first images of each class of a real data set or, where none is real, the medoids of a class's own
generated images in the features of a classifier.
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from raysd.classifier.architecture import load_record
from raysd.classifier.entropy import classifier_digest
from raysd.classifier.exemplars import ABOUT, FIELD, FILE, Exemplars, FeatureModel
from raysd.clone.settings import OWN, ExemplarGuidanceSettings
from raysd.data.images import ImageSet, decode_image
from raysd.data.overlap import image_hash
from raysd.data.real_datasets import check_real_dataset, real_dataset
from raysd.errors import UserError
from raysd.evaluation.extraction import Extraction
from raysd.evaluation.features import extract
from raysd.evaluation.medoids import k_medoids
from raysd.evaluation.models import EvaluatedModel, own_model_in, pretrained_model
from raysd.evaluation.teachers import find_own, pretrained_saw_real, saw_real
from raysd.prompts.table import ClassTable
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.tables import read_table, write_table

LARGEST = 512  # pixels a side; larger exemplars are made smaller
Place = tuple[int, int]
"""Label in the files of a set, and index."""
Choice = list[list[Place]]
"""The chosen images of each class of the table."""
_KNOWN: dict[str, tuple[Exemplars, FeatureModel]] = {}
"""What this process found before, by what was asked for."""


@dataclass(frozen=True)
class _Found:
    """Where exemplars are from, and how they are chosen once they are wanted."""

    images: ImageSet
    identity: dict[str, Any]
    choose: Callable[[], Choice]
    is_real: bool


def find_exemplars(
    wanted: ExemplarGuidanceSettings, root: Location, table: ClassTable, pool: Callable[[], ImageSet]
) -> tuple[Exemplars, FeatureModel]:
    """Return the exemplars of some settings, and the classifier in whose features images are compared. Exemplars are
    chosen once, and kept in `exemplars/<fingerprint>`.

    Args:
        wanted: the settings.
        root: the storage root.
        table: the classes.
        pool: returns the generated images that exemplars are chosen from, where none is to be real.

    Raises:
        UserError: no such classifier or set, a class with too few images, or generated ones that are not there yet.
    """
    asked = {**wanted.model_dump(), "root": root.uri, "table": [table.keys, table.names]}
    images = pool() if wanted.images == OWN else None
    key = fingerprint({**asked, "pool": None if images is None else images.identity()})
    if key in _KNOWN and Location(_KNOWN[key][0].folder).exists(ABOUT):
        return _KNOWN[key]
    model, seen = _feature_model(wanted.model, root, table)
    found = _real(wanted, root, table) if images is None else _own(wanted, root, table, images, model, seen)
    folder = root.child("exemplars", fingerprint({**found.identity, "per_class": wanted.per_class}))
    if not folder.exists(ABOUT):
        _write(folder, found, wanted.per_class)
    _KNOWN[key] = Exemplars(folder.uri, **json.loads(folder.read(ABOUT))), seen
    return _KNOWN[key]


def source_hashes(exemplars: Exemplars) -> np.ndarray:
    """Return the hashes of the images that exemplars were made from, uint64 [N]; those of `raysd.data.overlap`."""
    hashes = read_table(Location(exemplars.folder), FILE, ["hash"])["hash"].to_pylist()
    return np.frombuffer(b"".join(hashes), dtype="<u8")


def _feature_model(name: str, root: Location, table: ClassTable) -> tuple[EvaluatedModel, FeatureModel]:
    """Return the classifier in whose features images are compared.

    Raises:
        UserError: there is none of that name.
    """
    field = f"{FIELD}.model"
    if (folder := find_own(field, name, root)) is not None:
        model, record = own_model_in(folder), load_record(folder) or {}
        digest, saw = classifier_digest(folder.uri), saw_real(record["trained_on"])
    else:
        model = pretrained_model(name, table, needs_classes=False, field=field)
        digest, saw = model.fingerprint, pretrained_saw_real(model)
    shown = model.preprocessing
    return model, FeatureModel(name, model.folder, digest, model.is_own, shown.size, shown.mean, shown.std, saw)


def _real(wanted: ExemplarGuidanceSettings, root: Location, table: ClassTable) -> _Found:
    """Return the real images with the numbers seed * per_class, ... of each class."""
    check_real_dataset(f"{FIELD}.images", wanted.images)
    images = real_dataset(wanted.images, "train", root, table=table)
    first = wanted.seed * wanted.per_class
    identity = {"set": images.identity(), "first": first}
    return _Found(images, identity, lambda: _stretch(wanted, images, table, first), is_real=True)


def _stretch(wanted: ExemplarGuidanceSettings, images: ImageSet, table: ClassTable, first: int) -> Choice:
    last = first + wanted.per_class
    places: list[list[Place]] = [[] for _ in table.rows]
    for labels, index, rows in _light(images):
        near = rows & (index < last)
        for label, place in zip(labels[near].tolist(), index[near].tolist(), strict=True):
            places[int(images.to_labels(np.array([label]))[0])].append((label, place))
    chosen = [sorted(each, key=lambda place: place[::-1])[first:last] for each in places]
    for group in images.groups:
        for label in group[1:]:
            chosen[label] = chosen[group[0]]
    for key, each in zip(table.keys, chosen, strict=True):
        if len(each) < wanted.per_class:
            have = f"{images.name} has too few images of {key}: the images {first} to {last - 1} of it are wanted"
            remedy = f"{have}; lower per_class or seed, or use another set"
            raise UserError(f"{FIELD}.per_class", wanted.per_class, remedy)
    return chosen


def _own(
    wanted: ExemplarGuidanceSettings,
    root: Location,
    table: ClassTable,
    images: ImageSet,
    model: EvaluatedModel,
    seen: FeatureModel,
) -> _Found:
    """Return the medoids of generated images."""
    images = replace(images, images_per_class=wanted.pool)
    identity = {"pool": images.identity(), "model": seen.digest}
    extraction = Extraction(root, model, images, "features")
    return _Found(images, identity, lambda: _medoids(wanted, table, extraction), is_real=False)


def _medoids(wanted: ExemplarGuidanceSettings, table: ClassTable, extraction: Extraction) -> Choice:
    for error in extract([extraction]).values():
        raise error
    stored = extraction.read(["label", "index"])
    labels, index = stored["label"].to_numpy(), stored["index"].to_numpy()
    features, chosen = extraction.read_features()[0], list[list[Place]]()
    for label, key in enumerate(table.keys):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(index[rows], kind="stable")]
        if len(rows) < wanted.per_class:
            remedy = f"only {len(rows)} of the {wanted.pool} images of {key} to choose from are there; raise pool"
            raise UserError(f"{FIELD}.per_class", wanted.per_class, remedy)
        chosen.append([(label, int(index[row])) for row in rows[k_medoids(features[rows], wanted.per_class)]])
    return chosen


def _light(images: ImageSet) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield labels and indices of the rows of each file, and which of them count."""
    for file in images.files():
        rows = read_table(images.folder, file, ["label", "index"])
        yield rows["label"].to_numpy(), rows["index"].to_numpy(), images.kept_rows(file)


def _encoded(images: ImageSet, places: set[Place]) -> dict[Place, bytes]:
    """Return some images of a set as its files hold them; only their row groups are read."""
    found: dict[Place, bytes] = {}
    for file in images.files():
        if len(found) == len(places):
            break
        parquet = pq.ParquetFile(images.folder.file(file), filesystem=images.folder.filesystem)
        for group in range(parquet.num_row_groups):
            light = parquet.read_row_group(group, columns=["label", "index"])
            here = list(zip(light["label"].to_pylist(), light["index"].to_pylist(), strict=True))
            rows = [row for row, place in enumerate(here) if place in places]
            if rows:
                column = parquet.read_row_group(group, columns=["image"])["image"].take(pa.array(rows))
                data = pc.struct_field(column.combine_chunks(), "bytes").to_pylist()
                found |= zip([here[row] for row in rows], data, strict=True)
    return found


def _write(folder: Location, found: _Found, per_class: int) -> None:
    """Write the table of exemplars, and last the file that says what they are."""
    chosen = found.choose()
    encoded = _encoded(found.images, {place for places in chosen for place in places})
    rows = [
        (label, number, image_hash(encoded[place]), _png(encoded[place]))
        for label, places in enumerate(chosen)
        for number, place in enumerate(places)
    ]
    digest = fingerprint([[label, number, image_hash(png).hex()] for label, number, _, png in rows])
    table: dict[str, list[Any]] = {
        name: [row[column] for row in rows] for column, name in enumerate(("label", "index", "hash"))
    }
    table["image"] = [{"bytes": png} for *_, png in rows]
    num_real = len({place for places in chosen for place in places}) if found.is_real else 0
    write_table(folder, FILE, pa.table(table), per_class)
    about = Exemplars("", digest, per_class, found.images.name, num_real)
    values = {name: value for name, value in asdict(about).items() if name != "folder"}
    folder.write(ABOUT, json.dumps(values, indent=2, sort_keys=True).encode() + b"\n")


def _png(data: bytes) -> bytes:
    """Return the middle square of an encoded image, as RGB, of at most 512 pixels a side."""
    with Image.open(io.BytesIO(data)) as image:
        side = min(*image.size, LARGEST)
    buffer = io.BytesIO()
    Image.fromarray(decode_image(data, side).transpose(1, 2, 0)).save(buffer, "png")
    return buffer.getvalue()
