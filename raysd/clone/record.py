"""What `clone.json` says of a clone, and how it changes. Several drivers may change it at a time.

- `planned`: the counts of all runs so far. The first of them is complete if `complete` says so.
- `complete`: all shards were read back, and hold what was planned. It is taken back before anything is taken out of a
  shard, or one is made anew with less.
- `withdrawn`: counts that were complete before; `verify --repair` makes them again, whatever it is called with.
- `repairs`: how often something was taken out of shards. A driver that read the shards back before such a time reads
  them again.
"""

import time
from typing import Any

from raysd.clone.plan import ImageCounts, Plan
from raysd.clone.scan import CloneJob, Findings, check_shards
from raysd.versions import versions


def begin_record(job: CloneJob, batch_size: int, is_changed: bool) -> None:
    """Add the counts of this run to those that were planned so far. A larger clone that lacks a shard is not called
    complete any more, since this run makes the shard anew with its own counts."""

    def begun(record: dict[str, Any]) -> dict[str, Any] | None:
        before = record
        if is_changed and record.get("complete") and not job.plan.counts.covers(job.earlier_counts(record)[0]):
            record = _withdrawn(job, record)
        counts = job.plan.counts.to_json()
        if counts not in record.get("planned", []):
            record = {**_first(job, batch_size), **record, "planned": [*record.get("planned", []), counts]}
        return None if record is before else record

    job.change_record(begun)


def _first(job: CloneJob, batch_size: int) -> dict[str, Any]:
    return {
        "fingerprint": job.plan.spec.fingerprint,
        "complete": False,
        "images_per_shard": job.plan.images_per_shard,
        "batch_size": batch_size,
        "num_classes": job.plan.counts.num_classes,
        "spec": job.plan.spec.describe(),
    }


def num_repairs(job: CloneJob) -> int:
    """How often something was taken out of the clone's shards."""
    return int(job.read_record().get("repairs", 0))


def begin_repair(job: CloneJob) -> CloneJob:
    """Say that something is about to be taken out of shards; returns the clone with all that must be there
    afterwards."""
    wanted = job

    def begun(record: dict[str, Any]) -> dict[str, Any]:
        nonlocal wanted
        record = _withdrawn(job, record) if record.get("complete") else record
        wanted = with_earlier(job, record)
        return {**record, "repairs": record.get("repairs", 0) + 1}

    job.change_record(begun)
    return wanted


def restore_withdrawn(job: CloneJob, repairs: int) -> None:
    """Call the clone complete again up to the counts that were withdrawn, if all of that is there, as when another
    driver made it meanwhile."""
    record = job.read_record()
    if "withdrawn" not in record:
        return
    larger = with_earlier(job, record)
    if larger.plan.counts != job.plan.counts and not (findings := check_shards(larger)).broken:
        end_record(larger, findings, repairs)


def with_earlier(job: CloneJob, record: dict[str, Any] | None = None) -> CloneJob:
    """The clone with at least the counts that its record calls complete, or did before they were withdrawn."""
    record = job.read_record() if record is None else record
    counts = job.plan.counts
    if record.get("complete"):
        counts = counts.united(job.earlier_counts(record)[0])
    if "withdrawn" in record:
        counts = counts.united(ImageCounts.from_json(counts.num_classes, record["withdrawn"]))
    return CloneJob(Plan(job.plan.spec, counts, job.plan.images_per_shard), job.folder)


def _withdrawn(job: CloneJob, record: dict[str, Any]) -> dict[str, Any]:
    counts = job.earlier_counts(record)[0]
    if "withdrawn" in record:
        counts = counts.united(ImageCounts.from_json(counts.num_classes, record["withdrawn"]))
    return {**record, "complete": False, "withdrawn": counts.to_json()}


def end_record(job: CloneJob, findings: Findings, repairs: int) -> bool:
    """Say what the clone holds; the first of the planned counts is then the one that is complete.

    Args:
        job: the clone.
        findings: of its shards.
        repairs: `num_repairs` before they were read.

    Returns:
        False when something was taken out of shards since then: they must be read again.
    """
    is_valid = True

    def ended(record: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal is_valid
        is_valid = record.get("repairs", 0) == repairs
        return _completed(job, findings, record) if is_valid else None

    job.change_record(ended)
    return is_valid


def _completed(job: CloneJob, findings: Findings, record: dict[str, Any]) -> dict[str, Any] | None:
    counts, earlier = job.plan.counts, job.earlier_counts(record)
    if record.get("complete") and earlier[0].covers(counts) and earlier[0] != counts:
        return None  # a larger clone contains this one
    if "withdrawn" in record and counts.covers(ImageCounts.from_json(counts.num_classes, record["withdrawn"])):
        record = {name: value for name, value in record.items() if name != "withdrawn"}
    return {
        **record,
        "complete": True,
        "planned": [counts.to_json(), *(other.to_json() for other in earlier if not counts.covers(other))],
        "images_per_class": int(counts.array.min()),
        "num_images": findings.num_images,
        "flags": {flag: int(values.sum()) for flag, values in findings.flags.items() if flag != "dropped"},
        "short_classes": findings.short_classes(job.plan.spec.table.keys),
        "versions": versions(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
