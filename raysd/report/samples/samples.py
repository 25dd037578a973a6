"""Sample images: the first few of each class, read from the first shards of a clone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysd.clone.shard import DATA
from raysd.storage.location import Location

NUM_IMAGES = 3
MAX_CLASSES = 12
COLUMNS = ["image", "label", "index", "flag", "prompt", "seed"]


@dataclass(frozen=True)
class Sample:
    """One encoded image of a clone."""

    data: bytes
    flag: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class CloneSamples:
    """The first images of the first classes of one clone."""

    class_names: tuple[str, ...]
    """All class names, in label order; empty when the clone cannot be read."""
    images: Mapping[tuple[int, int], Sample]
    """(label, image index) -> image; what is missing is not there."""


def read_samples(folder: Location, num_images: int = NUM_IMAGES, num_classes: int = MAX_CLASSES) -> CloneSamples:
    """Return the images of labels < `num_classes` and indices < `num_images`, from the first shards only."""
    data = folder.child(DATA)
    names: tuple[str, ...] = ()
    images: dict[tuple[int, int], Sample] = {}
    try:
        for name in data.list_files(".parquet"):
            path = data.file(name)
            names = names or _class_names(pq.read_schema(path, filesystem=data.filesystem))
            wanted = [("index", "<", num_images), ("label", "<", num_classes)]
            table = pq.read_table(path, filesystem=data.filesystem, columns=COLUMNS, filters=wanted, use_threads=False)
            # Shards are in order of the image index, so the first one without a wanted image ends the search.
            if images and not table.num_rows:
                break
            for row in table.to_pylist():
                images[row["label"], row["index"]] = _sample(row)
            if names and len(images) >= num_images * min(num_classes, len(names)):
                break
    except (OSError, pa.ArrowInvalid):
        # A clone may have been removed since; its column stays empty, and the caption says so.
        pass
    return CloneSamples(names, images)


def read_places(folder: Location, places: Mapping[tuple[int, int], tuple[int, int]]) -> CloneSamples:
    """Return the images of some labels and indices.

    Args:
        folder: of the clone.
        places: (label, image index) -> the key that the image gets.
    """
    data, images = folder.child(DATA), dict[tuple[int, int], Sample]()
    indices = [index for _, index in places]
    try:
        names = data.list_files(".parquet") if places else []
        for name in reversed(names):  # what was added lies in the last shards
            wanted = [("index", ">=", min(indices)), ("index", "<=", max(indices)), ("label", "<=", max(places)[0])]
            path = data.file(name)
            table = pq.read_table(path, filesystem=data.filesystem, columns=COLUMNS, filters=wanted, use_threads=False)
            for row in table.to_pylist():
                if (key := places.get((row["label"], row["index"]))) is not None:
                    images[key] = _sample(row)
            # Shards are in order of the image index, so once some were found, one without any ends the search.
            if len(images) == len(places) or (images and not table.num_rows):
                break
    except (OSError, pa.ArrowInvalid):
        pass  # a clone may have been removed since
    return CloneSamples((), images)


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(row["image"]["bytes"], row["flag"] or "", row["prompt"] or "", row["seed"])


def _class_names(schema: pa.Schema) -> tuple[str, ...]:
    """Return the class names from the metadata that Hugging Face reads."""
    try:
        return tuple(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
