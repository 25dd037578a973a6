"""The sets that an experiment's classifiers are measured on, brought into the storage root."""

from dataclasses import dataclass, replace
from typing import Any

from raysd.data.catalog import Metric, built_in_sets
from raysd.data.images import ImageSet, class_names, read_labels
from raysd.data.readers import Split
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.evaluation.settings import EvaluationSettings, ProbeSettings, TestSet, TransferSet
from raysd.prompts.table import ClassTable
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location

ROW_VERSION = 2  # of what a row holds
FIELDS = {"validation": "evaluation.validation_set", "test": "evaluation.test_set", "shift": "evaluation.test_sets"}


@dataclass(frozen=True)
class MeasuredOn:
    """One set that classifiers are measured on."""

    role: str
    """`validation`, `test`, `shift` for a further test set, or `transfer`."""
    images: ImageSet
    train: ImageSet | None = None
    """The images that a transfer set's probe learns from."""
    shots: int | None = None
    probe: ProbeSettings | None = None
    seeds: tuple[int, ...] = ()
    """Of the probe; empty for the classifier's own."""
    metric: Metric = "top1"
    shared: tuple[int, ...] | None = None
    """The classes of the table that a subset has; None when it has all."""
    num_left_out: int = 0
    """Images of classes that the table does not have."""

    @property
    def label(self) -> str:
        """Difference between a probe and the usual one of its set, for a table: two such rows must not be averaged."""
        probe = [] if self.probe is None or not self.probe.label else [self.probe.label]
        metric = ["mean per class"] if self.metric == "mean_per_class" else []
        return ", ".join([*probe, *metric, *([f"seeds {' '.join(map(str, self.seeds))}"] if self.seeds else [])])

    def identity(self) -> dict[str, Any]:
        """Return the part of a row's fingerprint that depends on the set."""
        train = None if self.train is None else self.train.identity()
        probe = None if self.probe is None else {**self.probe.model_dump(by_alias=True), "scale": self.probe.used_scale}
        measured = {"role": self.role, "set": self.images.identity(), "train": train, "shots": self.shots}
        return {**measured, "probe": probe, "seeds": self.seeds, "metric": self.metric, "version": ROW_VERSION}


def resolve_sets(
    root: Location, settings: EvaluationSettings, table: ClassTable
) -> tuple[list[MeasuredOn], dict[str, str]]:
    """Return all sets, and for each set that was skipped the reason, by its name.

    Raises:
        UserError: a set that is not available or cannot be read, unless `skip_absent` is set.
    """
    sets: list[MeasuredOn] = []
    skipped: dict[str, str] = {}
    if settings.validation_set is not None:
        images = validation_images(root, settings, settings.validation_set, table)
        sets.append(_same_classes("validation", images, table))
    if settings.test_set is not None:
        sets.append(_same_classes("test", class_images(root, settings.test_set, "test", table), table))
    further: list[TestSet | TransferSet] = [*settings.test_sets, *settings.transfer_sets]
    for wanted in further:
        try:
            if isinstance(wanted, TransferSet):
                sets += _transfer(root, wanted)
            else:
                sets.append(_same_classes("shift", class_images(root, wanted, "test", table), table))
        except UserError as error:
            if not settings.skip_absent:
                raise
            skipped[wanted.name] = str(error)
    return list({fingerprint(measured.identity()): measured for measured in sets}.values()), skipped


def class_images(
    root: Location,
    wanted: TestSet,
    split: Split,
    table: ClassTable | None,
    images_per_class: int | None = None,
    from_end: bool = False,
) -> ImageSet:
    """Return real images of the classifier's own classes; the arguments and errors are those of `real_dataset`."""
    return real_dataset(
        wanted.name,
        split,
        root,
        images_per_class,
        table,
        from_end,
        path=wanted.path,
        shared_classes=wanted.shared_classes,
        class_map=wanted.class_map,
    )


def validation_images(
    root: Location, settings: EvaluationSettings, wanted: TestSet, table: ClassTable | None
) -> ImageSet:
    """Return the images of a validation set that a sweep or a training chooses by: the last ones of each class."""
    count = settings.validation_images_per_class
    return class_images(root, wanted, "train", table, count, from_end=count is not None)


def _same_classes(role: str, images: ImageSet, table: ClassTable) -> MeasuredOn:
    labels = images.to_labels(read_labels(images))
    there = sorted({int(label) for label in labels if label >= 0})
    if not there:
        raise UserError(
            FIELDS[role],
            images.name,
            "has no image of a class of the table; check names, or give a class_map",
        )
    others = {label for first, *rest in images.groups for label in rest if first in there}
    shared = tuple(sorted({*there, *others}))
    return MeasuredOn(
        role, images, shared=None if len(shared) == len(table) else shared, num_left_out=int((labels < 0).sum())
    )


def _transfer(root: Location, wanted: TransferSet) -> list[MeasuredOn]:
    entry = built_in_sets().get(wanted.name)
    train, test = (real_dataset(wanted.name, split, root, halve=True, path=wanted.path) for split in ("train", "test"))
    test = _aligned(train, test)
    probe = wanted.probe or ProbeSettings()
    if entry is not None and "kind" not in probe.model_fields_set:
        probe = probe.model_copy(update={"kind": entry.probe})
    metric: Metric = entry.metric if entry else "top1"
    return [
        MeasuredOn("transfer", test, train, shots, probe, tuple(wanted.seeds), metric) for shots in wanted.all_shots
    ]


def _aligned(train: ImageSet, test: ImageSet) -> ImageSet:
    """Return the test images with the labels of the training images; each part may number its classes differently.

    Raises:
        UserError: a class that only the test images have.
    """
    learnt, asked = class_names(train), class_names(test)
    if learnt == asked or not learnt or not asked:
        return test
    places = {name: label for label, name in enumerate(learnt)}
    if unknown := [asked[label] for label in sorted(set(read_labels(test).tolist())) if asked[label] not in places]:
        raise UserError(
            "transfer set", test.name, f"has test images of {unknown[0]!r} and no training images; leave the class out"
        )
    return replace(test, label_map=tuple(places.get(name, -1) for name in asked))
