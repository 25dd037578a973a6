"""A clone: its plan, its folder, and the record that says how much of it is there."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raysd.clone.plan import ImageCounts, Plan, StoredCounts, resolve_counts
from raysd.clone.settings import MOST_IMAGES, GenerationSettings
from raysd.clone.spec import CloneSpec
from raysd.diffusion.checkpoint import SHIPPED
from raysd.diffusion.earlier_digest import earlier_model
from raysd.errors import UserError
from raysd.storage.change import change
from raysd.storage.location import Location

CLONES = "clones"
RECORD = "clone.json"
MOST_SHARDS = 10_000_000
"""Of a clone; what is done is kept in memory for each, and 65 million images make 250,000."""


class DeviceSeconds(BaseModel):
    """What generating took on one kind of device, over all runs."""

    model_config = ConfigDict(frozen=True, extra="allow")

    num_images: int
    seconds: float
    """Seconds of one GPU by the clock, or of one CPU core as it computed."""


class CloneRecord(BaseModel):
    """The content of `clone.json`, empty for a clone that nobody began; `raysd.clone.record` says how it changes."""

    model_config = ConfigDict(frozen=True, extra="allow")

    fingerprint: str | None = None
    complete: bool = False
    """All shards were read back and hold the first of the planned counts."""
    images_per_shard: int | None = None
    batch_size: int | None = None
    num_classes: int = 0
    spec: dict[str, Any] = {}
    """Values that shape the images, from `CloneSpec.describe`."""
    planned: tuple[StoredCounts, ...] = ()
    """The counts of all runs so far."""
    withdrawn: StoredCounts | None = None
    """Counts that were complete before a repair; `verify --repair` restores them, whatever counts it is called with."""
    repairs: int = 0
    """Number of repairs that took images out of shards."""
    images_per_class: int | None = None
    """Images of the class that has the fewest."""
    num_images: int = 0
    """Images of the complete clone."""
    flags: dict[str, int] = {}
    """Images with each flag."""
    short_classes: dict[str, int] = {}
    """Images that each short class lacks, by key."""
    device_seconds: dict[str, DeviceSeconds] = {}
    """What the runs took that came to their end, by device."""
    versions: dict[str, str] = {}
    written: str | None = None
    """Time at which the clone was complete: UTC, as ISO 8601."""

    @property
    def planned_counts(self) -> list[ImageCounts]:
        """The counts of the runs so far; the first are complete if any are."""
        return [ImageCounts.from_json(self.num_classes, value) for value in self.planned]

    @property
    def withdrawn_counts(self) -> ImageCounts | None:
        """Counts that were complete before a repair."""
        return None if self.withdrawn is None else ImageCounts.from_json(self.num_classes, self.withdrawn)

    def changed(self, **values: Any) -> "CloneRecord":
        """Return a copy with other values."""
        return self.model_copy(update=values)

    def to_json(self) -> bytes:
        """Return the content of `clone.json`."""
        values = self.model_dump(exclude_unset=True)
        if self.withdrawn is None:
            values.pop("withdrawn", None)
        return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"

    @staticmethod
    def from_json(data: bytes | None, num_classes: int) -> "CloneRecord":
        """Return the record that `to_json` wrote; an empty one where the file is missing, torn, or makes no sense."""
        try:
            record = CloneRecord.model_validate_json(data or b"{}").changed(num_classes=num_classes)
        except ValidationError:
            record = CloneRecord(num_classes=num_classes)
        return record if record.is_sound else CloneRecord(num_classes=num_classes)

    @property
    def is_sound(self) -> bool:
        """Whether the numbers can be those of a clone."""
        stored = [*self.planned, *([] if self.withdrawn is None else [self.withdrawn])]
        own = [each for counts in stored for each in counts["own"]]
        return (
            (self.images_per_shard is None or self.images_per_shard > 0)
            and (bool(self.planned) or not self.complete)
            and all(0 <= counts["default"] <= MOST_IMAGES for counts in stored)
            and all(len(each) == 2 and 0 <= each[0] < self.num_classes and 0 <= each[1] <= MOST_IMAGES for each in own)
        )


@dataclass(frozen=True)
class Clone(Plan):
    """A clone of a given size: its planned images, and the folder that holds them."""

    folder: Location

    @staticmethod
    def of(plan: Plan, folder: Location) -> "Clone":
        """Return the clone of a plan in a folder."""
        return Clone(plan.spec, plan.counts, plan.images_per_shard, folder)

    def with_counts(self, counts: ImageCounts) -> "Clone":
        """Return the same clone with other numbers of images."""
        return Clone(self.spec, counts, self.images_per_shard, self.folder)

    def read_record(self) -> CloneRecord:
        """Return what `clone.json` holds; an empty record when it is missing or torn."""
        try:
            return CloneRecord.from_json(self.folder.read(RECORD), self.counts.num_classes)
        except FileNotFoundError:
            return CloneRecord(num_classes=self.counts.num_classes)
        except OSError:
            if self.folder.exists(RECORD) and not self.folder.is_file(RECORD):
                raise UserError("storage", self.folder.file(RECORD), "is a folder; move it away") from None
            raise

    def change_record(self, update: Callable[[CloneRecord], CloneRecord | None]) -> None:
        """Write the record that `update` returns, or nothing when that is None. Lose no change by another process."""

        def updated(data: bytes | None) -> bytes | None:
            record = update(CloneRecord.from_json(data, self.counts.num_classes))
            return None if record is None else record.to_json()

        change(self.folder, RECORD, updated)

    def is_complete(self) -> bool:
        """Return whether the record says that all planned images are there, or that they were dropped."""
        record = self.read_record()
        return record.complete and record.planned_counts[0].covers(self.counts)


def clone_folder(root: Location, spec: CloneSpec) -> Location:
    """Return the folder of a clone below a storage root."""
    return root.child(CLONES, spec.fingerprint)


def spec_as_begun(root: Location, spec: CloneSpec) -> CloneSpec:
    """Return the spec with the digest of version 0.1.0 if a clone was begun with it, and none with the digest of today.

    What hangs on the clone's fingerprint is then found as well: classifiers, scores and rows.
    """
    if spec.model.name in SHIPPED or not root.exists(CLONES) or clone_folder(root, spec).exists(RECORD):
        return spec
    model = earlier_model(spec.model)
    earlier = spec if model is None else replace(spec, model=model)
    return earlier if clone_folder(root, earlier).exists(RECORD) else spec


def plan_clone(root: Location, spec: CloneSpec, settings: GenerationSettings) -> Clone:
    """Return the clone with the counts of `settings`; a clone that was begun keeps its shard size.

    Raises:
        UserError: counts for classes that the table does not have, or more shards than can be listed.
    """
    counts = resolve_counts(settings.images_per_class, settings.class_counts, spec.table)
    clone = Clone(spec, counts, settings.images_per_shard, clone_folder(root, spec))
    begun = clone.read_record().images_per_shard
    clone = clone if begun is None else Clone(spec, counts, begun, clone.folder)
    check_size(clone)
    return clone


def check_size(clone: Clone) -> None:
    """Check that a clone's shards can be listed.

    Raises:
        UserError: there are too many.
    """
    if clone.num_shards > MOST_SHARDS:
        what = f"makes {clone.num_shards:,} shards, and no more than {MOST_SHARDS:,} can be listed"
        remedy = f"{what}; generate fewer, or raise generation.images_per_shard"
        raise UserError("generation.images_per_class", int(clone.counts.array.max()), remedy)
