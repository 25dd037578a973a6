"""Changes of the record of a clone, which several drivers may change at once.

- `planned`: the counts of all runs so far. The first of them is complete if `complete` says so.
- `complete`: all shards were read back, and hold what was planned. It becomes false before images are taken out of a
  shard, or a shard is generated anew with fewer images.
- `withdrawn`: counts that were complete before; `verify --repair` restores them, whatever counts it is called with.
- `repairs`: number of repairs that took images out of shards. A driver that read the shards back before a repair reads
  them again.
- `device_seconds`: what the images took that finished runs generated, by device. A killed run does not count.
"""

import time

from raysd.clone.clone import Clone, CloneRecord, DeviceSeconds
from raysd.clone.scan import ShardCheck, check_shards
from raysd.versions import versions


def begin_record(clone: Clone, batch_size: int, is_changed: bool) -> None:
    """Add the counts of this run to the planned ones.

    A larger clone that lacks a shard no longer counts as complete: this run generates the shard with its own counts.
    """

    def begun(record: CloneRecord) -> CloneRecord | None:
        before = record
        if is_changed and record.complete and not clone.counts.covers(record.planned_counts[0]):
            record = _withdrawn(record)
        counts = clone.counts.to_json()
        if counts not in record.planned:
            first = {} if record.planned else _first(clone, batch_size)
            record = record.changed(**first, planned=(*record.planned, counts))
        return None if record is before else record

    clone.change_record(begun)


def _first(clone: Clone, batch_size: int) -> dict[str, object]:
    return {
        "fingerprint": clone.spec.fingerprint,
        "complete": False,
        "images_per_shard": clone.images_per_shard,
        "batch_size": batch_size,
        "num_classes": clone.counts.num_classes,
        "spec": clone.spec.describe(),
    }


def add_seconds(clone: Clone, spent: dict[str, DeviceSeconds]) -> None:
    """Record what a run took, by device, beside what the earlier ones did."""

    def added(record: CloneRecord) -> CloneRecord | None:
        sums = dict(record.device_seconds)
        for device, run in spent.items():
            before = sums.get(device, DeviceSeconds(num_images=0, seconds=0.0))
            sums[device] = DeviceSeconds(
                num_images=before.num_images + run.num_images, seconds=before.seconds + run.seconds
            )
        return record.changed(device_seconds=sums)

    if spent:
        clone.change_record(added)


def num_repairs(clone: Clone) -> int:
    """Return how many repairs took images out of the clone's shards."""
    return clone.read_record().repairs


def begin_repair(clone: Clone) -> Clone:
    """Record that a repair begins; return the clone with all that must be there afterwards."""
    wanted = clone

    def begun(record: CloneRecord) -> CloneRecord:
        nonlocal wanted
        record = _withdrawn(record) if record.complete else record
        wanted = with_earlier(clone, record)
        return record.changed(repairs=record.repairs + 1)

    clone.change_record(begun)
    return wanted


def restore_withdrawn(clone: Clone, repairs: int) -> None:
    """Call the clone complete again up to the withdrawn counts, if another driver made those images meanwhile."""
    record = clone.read_record()
    if record.withdrawn is None:
        return
    larger = with_earlier(clone, record)
    if larger.counts != clone.counts and not (check := check_shards(larger)).broken:
        end_record(larger, check, repairs)


def with_earlier(clone: Clone, record: CloneRecord | None = None) -> Clone:
    """Return the clone with at least the counts that its record calls complete, or did before they were withdrawn."""
    record = clone.read_record() if record is None else record
    counts = clone.counts
    if record.complete:
        counts = counts.united(record.planned_counts[0])
    if (withdrawn := record.withdrawn_counts) is not None:
        counts = counts.united(withdrawn)
    return clone.with_counts(counts)


def _withdrawn(record: CloneRecord) -> CloneRecord:
    counts = record.planned_counts[0]
    if (earlier := record.withdrawn_counts) is not None:
        counts = counts.united(earlier)
    return record.changed(complete=False, withdrawn=counts.to_json())


def end_record(clone: Clone, check: ShardCheck, repairs: int) -> bool:
    """Record what the clone holds, and its counts as the first of the planned ones.

    Args:
        clone: the clone.
        check: what the shards hold.
        repairs: `num_repairs` before the shards were read.

    Returns:
        False when a repair began since then, and the shards must be read again.
    """
    is_valid = True

    def ended(record: CloneRecord) -> CloneRecord | None:
        nonlocal is_valid
        is_valid = record.repairs == repairs
        return _completed(clone, check, record) if is_valid else None

    clone.change_record(ended)
    return is_valid


def _completed(clone: Clone, check: ShardCheck, record: CloneRecord) -> CloneRecord | None:
    counts, earlier = clone.counts, record.planned_counts
    if record.complete and earlier[0].covers(counts) and earlier[0] != counts:
        return None  # a larger clone contains this one
    if (withdrawn := record.withdrawn_counts) is not None and counts.covers(withdrawn):
        record = record.changed(withdrawn=None)
    return record.changed(
        complete=True,
        num_classes=counts.num_classes,
        planned=(counts.to_json(), *(other.to_json() for other in earlier if not counts.covers(other))),
        images_per_class=int(counts.array.min()),
        num_images=check.num_images,
        flags={flag: int(values.sum()) for flag, values in check.flags.items() if flag != "dropped"},
        short_classes=check.short_classes(clone.spec.table.keys),
        versions=versions(),
        written=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
