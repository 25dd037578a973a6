"""Measure a classifier: accuracy on real pictures of its classes, and linear probes of its features on other sets."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from raysd.evaluation.features import extract
from raysd.evaluation.metrics import per_class_accuracy, top1
from raysd.evaluation.probe import choose_shots, linear_probe
from raysd.evaluation.settings import EvaluationSettings
from raysd.evaluation.statistics import wilson_interval
from raysd.prompts.table import ClassTable
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.results import Row, find_result, write_result
from raysd.training.classifier import load_classifier, load_record
from raysd.training.pictures import PictureArrays, PictureSet, decode_all
from raysd.training.real_sets import Split, real_set
from raysd.versions import versions

KIND = "accuracy"
SPLITS: tuple[Split, Split] = ("train", "test")
Measure = Callable[[], tuple[float, int, list[float] | None]]


@dataclass(frozen=True)
class MeasuredOn:
    """One set that classifiers are measured on."""

    role: str
    """`validation`, `test`, or `transfer`."""
    pictures: PictureSet
    train: PictureSet | None = None
    """The pictures that a transfer set's probe learns from."""
    shots: int | None = None

    def identity(self) -> dict[str, Any]:
        """What a row's fingerprint needs of the set."""
        train = None if self.train is None else self.train.identity()
        return {"role": self.role, "set": self.pictures.identity(), "train": train, "shots": self.shots}


def _resolve(root: Location, settings: EvaluationSettings, table: ClassTable) -> list[MeasuredOn]:
    """Bring all sets into the storage root."""
    sets = []
    if settings.validation_set is not None:
        count = settings.validation_images_per_class
        pictures = real_set(settings.validation_set, "train", root, count, table, from_end=count is not None)
        sets.append(MeasuredOn("validation", pictures))
    if settings.test_set is not None:
        sets.append(MeasuredOn("test", real_set(settings.test_set, "test", root, table=table)))
    for transfer in settings.transfer_sets:
        train, test = (real_set(transfer.name, split, root, halve=True) for split in SPLITS)
        sets.append(MeasuredOn("transfer", test, train, transfer.shots))
    return sets


class Evaluation:
    """Measures classifiers on the sets of one experiment; each set is decoded once.

    Args:
        root: the storage root, where rows go.
        settings: which sets.
        table: the classes; the labels of real pictures are mapped to them.
        command: the command that repeats the rows.
    """

    def __init__(self, root: Location, settings: EvaluationSettings, table: ClassTable, command: str) -> None:
        self.root, self.table, self.command = root, table, command
        self.sets = _resolve(root, settings, table)
        self._decoded: dict[tuple[Any, ...], PictureArrays] = {}

    def measure(self, classifier: str) -> list[Row]:
        """All rows of one classifier, by its fingerprint; rows that are there are not measured again."""
        folder = self.root.child("classifiers", classifier)
        record = load_record(folder)
        if record is None:
            raise FileNotFoundError(f"no finished classifier in {folder.uri}")
        model, architecture = load_classifier(folder)
        size, seed = architecture.image_size, record["seed"]
        rows = []
        for measured in self.sets:
            measure: Measure = partial(self._accuracy, model, measured.pictures, size)
            if measured.train is not None:
                measure = partial(self._probe, model, measured, size, seed)
            rows.append(self._row(record, measured, measure))
        return rows

    def is_measured(self, classifier: str) -> bool:
        """True when all rows of a classifier are there."""
        return all(find_result(self.root, KIND, key) is not None for key in self.row_fingerprints(classifier))

    def row_fingerprints(self, classifier: str) -> list[str]:
        """The fingerprints of a classifier's rows, measured or not."""
        return [fingerprint({"classifier": classifier, **measured.identity()}) for measured in self.sets]

    def _row(self, record: dict[str, Any], measured: MeasuredOn, measure: Measure) -> Row:
        pictures, identity = measured.pictures, {"classifier": record["fingerprint"], **measured.identity()}
        if (found := find_result(self.root, KIND, fingerprint(identity))) is not None:
            return found
        began = time.monotonic()
        value, num_images, per_class = measure()
        low, high = wilson_interval(value, num_images)
        row: Row = {
            "fingerprint": fingerprint(identity),
            "role": measured.role,
            "dataset": pictures.name,
            "dataset_fingerprint": pictures.fingerprint,
            "shots": measured.shots,
            "value": value,
            "low": low,
            "high": high,
            "num_images": num_images,
            "per_class": per_class,
            "class_names": self.table.names if per_class else None,
            "classifier": record["fingerprint"],
            "seed": record["seed"],
            "backbone": record["architecture"]["backbone"],
            "trained_on": record["trained_on"],
            "seconds": time.monotonic() - began,
            "command": self.command,
            "versions": versions(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_result(self.root, KIND, row)
        return row

    def _pictures(self, pictures: PictureSet, size: int) -> PictureArrays:
        key = (pictures.fingerprint, pictures.images_per_class, size)
        if key not in self._decoded:
            self._decoded[key] = decode_all(pictures, size)
        return self._decoded[key]

    def _accuracy(self, model: Any, pictures: PictureSet, size: int) -> tuple[float, int, list[float]]:
        arrays = self._pictures(pictures, size)
        _, logits = extract(model, arrays.images)
        return top1(logits, arrays.labels), len(arrays.labels), per_class_accuracy(logits, arrays.labels)

    def _probe(self, model: Any, measured: MeasuredOn, size: int, seed: int) -> tuple[float, int, None]:
        assert measured.train is not None
        learn, check = self._pictures(measured.train, size), self._pictures(measured.pictures, size)
        chosen = choose_shots(learn.labels, measured.shots, seed)
        features, _ = extract(model, learn.images[chosen])
        test_features, _ = extract(model, check.images)
        return linear_probe((features, learn.labels[chosen]), (test_features, check.labels), seed), len(check.labels), None
