"""The outputs of one classifier to compute on one set of images, cut into parts, and the files of the parts."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysd.data.images import ImageSet
from raysd.evaluation.models import EvaluatedModel, Preprocessing
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.tables import read_table

Kind = Literal["features", "predictions"]
PART, LARGE_PART, SMALL_PART = 256, 1024, 4096  # most images of a part, in large sets, and of small images
LARGE_SET = 20_000
SMALL_IMAGE = 64


@dataclass(frozen=True)
class Part:
    """The images `first` to `last - 1` of those that count in a row group."""

    file: str
    row_group: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Extraction:
    """The outputs of one classifier to compute on one set of images."""

    root: Location
    model: EvaluatedModel
    images: ImageSet
    kind: Kind
    """Pooled features, or predictions over the classes."""
    shared: tuple[int, ...] | None = None
    """Classes of the table to which predictions are confined in a second reading; those that a subset has."""

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of the images: the whole image for features, the classifier's usual one for predictions."""
        return self.model.preprocessing.whole if self.kind == "features" else self.model.preprocessing

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the classifier, the set, and the preprocessing."""
        identity = {"classifier": self.model.fingerprint, "set": self.images.identity(), "shared": self.shared}
        cut = [PART, LARGE_PART, SMALL_PART, LARGE_SET, SMALL_IMAGE]  # parts of another cut must not stand for these
        return fingerprint({"kind": self.kind, "preprocessing": asdict(self.preprocessing), "cut": cut, **identity})

    @property
    def folder(self) -> Location:
        """Folder of the parts."""
        return self.root.child(self.kind, self.fingerprint)

    @cached_property
    def parts(self) -> list["Part"]:
        """All parts, in the set's order."""
        counts = self.images.row_group_counts()
        most = LARGE_PART if sum(map(sum, counts.values())) > LARGE_SET else PART
        if self.preprocessing.size <= SMALL_IMAGE:
            most = SMALL_PART
        found = []
        for file, groups in counts.items():
            for group, count in enumerate(groups):
                found += [Part(file, group, first, min(first + most, count)) for first in range(0, count, most)]
        return found

    def missing(self) -> list[int]:
        """Return the numbers of the parts that do not exist yet, by one listing."""
        there = set(self.folder.list_files(".parquet"))
        return [number for number in range(len(self.parts)) if part_name(number) not in there]

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Return all parts as one table, in the set's order."""
        return pa.concat_tables(
            [read_table(self.folder, part_name(number), columns) for number in range(len(self.parts))]
        )

    def dimensions(self) -> int:
        """Return the number of features of an image, once the first part exists."""
        schema = pq.read_schema(self.folder.file(part_name(0)), filesystem=self.folder.filesystem)
        return int(schema.field("features").type.list_size)

    def read_features(self) -> tuple[np.ndarray, np.ndarray]:
        """Return features float32 [N, D] and labels int64 [N]; only one copy is in memory."""
        features, labels = np.empty((0, 0), np.float32), np.empty(sum(map(len, self.parts)), np.int64)
        first = 0
        for number in range(len(self.parts)):
            table = read_table(self.folder, part_name(number), ["features", "label"]).combine_chunks()
            last = first + len(table)
            if number == 0:
                features = np.empty((len(labels), table["features"].type.list_size), np.float32)
            features[first:last] = table["features"].chunk(0).flatten().to_numpy().reshape(len(table), -1)
            labels[first:last] = table["label"].to_numpy()
            first = last
        return features, labels


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"part-{number:05d}.parquet"
