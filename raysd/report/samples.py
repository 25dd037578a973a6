"""Sample pictures: the first few of each class, read from the first shards of a clone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raysd.clone.shard import DATA
from raysd.storage.location import Location

NUM_IMAGES = 3
MAX_CLASSES = 12
COLUMNS = ["image", "label", "index", "flag", "prompt", "seed"]


@dataclass(frozen=True)
class Sample:
    """One encoded picture of a clone."""

    data: bytes
    flag: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class CloneSamples:
    """The first pictures of the first classes of one clone."""

    class_names: tuple[str, ...]
    """All class names, in label order; empty when the clone cannot be read."""
    images: Mapping[tuple[int, int], Sample]
    """(label, image index) -> picture; what is missing is not there."""


def read_samples(folder: Location, num_images: int = NUM_IMAGES, num_classes: int = MAX_CLASSES) -> CloneSamples:
    """The pictures of labels < `num_classes` and indices < `num_images`, from the first shards only."""
    data = folder.child(DATA)
    names: tuple[str, ...] = ()
    images: dict[tuple[int, int], Sample] = {}
    try:
        for name in data.list_files(".parquet"):
            path = data.file(name)
            metadata = pq.read_metadata(path, filesystem=data.filesystem)
            names = names or _class_names(metadata.schema.to_arrow_schema())
            # Shards are in order of the image index, so the first one beyond the wanted images ends the search.
            if _least_index(metadata) >= num_images:
                break
            wanted = [("index", "<", num_images), ("label", "<", num_classes)]
            table = pq.read_table(path, filesystem=data.filesystem, columns=COLUMNS, filters=wanted, use_threads=False)
            for row in table.to_pylist():
                images[row["label"], row["index"]] = Sample(row["image"]["bytes"], row["flag"] or "", row["prompt"] or "", row["seed"])
            if names and len(images) >= num_images * min(num_classes, len(names)):
                break
    except (OSError, pa.ArrowInvalid):
        # A clone may have been removed since; its column stays empty, and the caption says so.
        pass
    return CloneSamples(names, images)


def _class_names(schema: pa.Schema) -> tuple[str, ...]:
    """Class names from the metadata that Hugging Face reads."""
    try:
        return tuple(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _least_index(metadata: pq.FileMetaData) -> int:
    """The lowest image index of a shard by its footer; 0 when the footer does not say."""
    # Columns of a footer are leaves, and `image` is two of them; so the column is found by its path.
    leaf = next((i for i in range(metadata.num_columns) if metadata.schema.column(i).path == "index"), None)
    if leaf is None or metadata.num_row_groups == 0:
        return 0
    statistics = metadata.row_group(0).column(leaf).statistics
    return int(statistics.min) if statistics is not None and statistics.has_min_max else 0
