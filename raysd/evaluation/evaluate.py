"""Measure a classifier: accuracy on real pictures of its classes, and linear probes of its features on other sets."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from raysd.evaluation.features import extract
from raysd.evaluation.metrics import per_class_accuracy, top1, wilson_interval
from raysd.evaluation.probe import choose_shots, linear_probe
from raysd.evaluation.settings import EvaluationSettings, TransferSet
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.results import Row, find_result, write_result
from raysd.training.classifier import load_classifier, load_record
from raysd.training.pictures import PictureArrays, PictureSet, decode_all
from raysd.training.real_sets import real_set
from raysd.versions import versions

KIND = "accuracy"
Measure = Callable[[], tuple[float, int, list[float] | None]]


class Evaluation:
    """Measures classifiers on the sets of one experiment; each set is decoded once.

    Args:
        root: the storage root, where rows go.
        settings: which sets.
        class_keys: class keys in label order, for folders of real pictures.
        command: the command that repeats the rows.
    """

    def __init__(self, root: Location, settings: EvaluationSettings, class_keys: list[str], command: str) -> None:
        self.root, self.settings, self.class_keys, self.command = root, settings, class_keys, command
        self._decoded: dict[tuple[str, int | None, int], PictureArrays] = {}

    def measure(self, classifier: str) -> list[Row]:
        """All rows of one classifier, by its fingerprint; rows that are there are not measured again."""
        folder = self.root.child("classifiers", classifier)
        record = load_record(folder)
        if record is None:
            raise FileNotFoundError(f"no finished classifier in {folder.uri}")
        model, architecture = load_classifier(folder)
        size, seed = architecture.image_size, record["seed"]
        rows = []
        for role, pictures, transfer in self._sets():
            if transfer is None:
                measure: Measure = partial(self._accuracy, model, pictures, size)
            else:
                train = real_set(transfer.name, "train", self.root)
                measure = partial(self._probe, model, train, pictures, transfer, size, seed)
            rows.append(self._row(record, role, pictures, transfer, measure))
        return rows

    def is_measured(self, classifier: str) -> bool:
        """True when all rows of a classifier are there."""
        keys = (self._identity(classifier, role, pictures, transfer) for role, pictures, transfer in self._sets())
        return all(find_result(self.root, KIND, fingerprint(key)) is not None for key in keys)

    def _sets(self) -> list[tuple[str, PictureSet, TransferSet | None]]:
        """(role, pictures to be tested on, transfer settings) of everything that is measured."""
        sets: list[tuple[str, PictureSet, TransferSet | None]] = []
        if self.settings.validation_set is not None:
            per_class = self.settings.validation_images_per_class
            sets.append(("validation", real_set(self.settings.validation_set, "train", self.root, per_class, self.class_keys), None))
        if self.settings.test_set is not None:
            sets.append(("test", real_set(self.settings.test_set, "test", self.root, None, self.class_keys), None))
        sets += [("transfer", real_set(transfer.name, "test", self.root), transfer) for transfer in self.settings.transfer_sets]
        return sets

    @staticmethod
    def _identity(classifier: str, role: str, pictures: PictureSet, transfer: TransferSet | None) -> dict[str, Any]:
        """What a row's fingerprint is made of."""
        return {"classifier": classifier, "role": role, "set": pictures.identity(), "shots": transfer.shots if transfer else None}

    def _row(self, record: dict[str, Any], role: str, pictures: PictureSet, transfer: TransferSet | None, measure: Measure) -> Row:
        identity = self._identity(record["fingerprint"], role, pictures, transfer)
        if (found := find_result(self.root, KIND, fingerprint(identity))) is not None:
            return found
        began = time.monotonic()
        value, num_images, per_class = measure()
        low, high = wilson_interval(value, num_images)
        row: Row = {
            "fingerprint": fingerprint(identity),
            "role": role,
            "dataset": pictures.name,
            "dataset_fingerprint": pictures.fingerprint,
            "shots": identity["shots"],
            "value": value,
            "low": low,
            "high": high,
            "num_images": num_images,
            "per_class": per_class,
            "class_names": self.class_keys if per_class else None,
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

    def _probe(self, model: Any, train: PictureSet, test: PictureSet, transfer: TransferSet, size: int, seed: int) -> tuple[float, int, None]:
        learn, check = self._pictures(train, size), self._pictures(test, size)
        chosen = choose_shots(learn.labels, transfer.shots, seed)
        features, _ = extract(model, learn.images[chosen])
        test_features, _ = extract(model, check.images)
        accuracy = linear_probe((features, learn.labels[chosen]), (test_features, check.labels), seed)
        return accuracy, len(check.labels), None
