"""The generation job: Ray Data maps diffusion actors over the missing shards of one or many clones.

1. For each clone, list its shards; what is absent, torn or short is missing (see `raysd.clone.scan`). The counts of this run are written
   into `clone.json` before anything is drawn.
2. One pool of actors draws the missing shards of all clones that one loaded pipeline can draw. Each actor commits its shard under its
   final name and returns a row of statistics. Pictures never pass through Ray's object store.
3. What each shard covers is read back. A shard that fails is drawn again; then `clone.json` and the card are written.

There is no other state. A run that is killed at any point and started again draws what is missing.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from raysd.clone.actor_pool import TASKS_PER_ACTOR, PoolSize, pool_size
from raysd.clone.card import dataset_card
from raysd.clone.counts import resolve_counts
from raysd.clone.drawer import BatchGenerator, ShardDrawer
from raysd.clone.plan import Plan
from raysd.clone.scan import RECORD, CloneJob, Findings, check_shards, missing_shards
from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import DATA
from raysd.clone.spec import CloneSpec
from raysd.errors import UserError
from raysd.progress import Progress, say
from raysd.storage.location import Location
from raysd.storage.lock import held
from raysd.versions import versions

ROUNDS = 3  # of drawing and reading back


@dataclass(frozen=True)
class CloneSummary:
    """A finished clone."""

    fingerprint: str
    folder: Location
    num_images: int
    num_drawn: int
    """Pictures drawn by this run; 0 when the clone was there."""
    num_flagged: int
    short_classes: dict[str, int]
    """How many pictures each short class lacks, by key."""
    seconds: float
    """Actor seconds spent by this run."""


class DrawShards(Protocol):
    """Draws the shards of some clones that share a pipeline."""

    def __call__(self, jobs: list[CloneJob], shards: list[np.ndarray]) -> Iterable[dict[str, Any]]:
        """Draw `shards[i]` of `jobs[i]`; a row of statistics for each, as they come, whose `job` is i."""


def clone_folder(root: Location, spec: CloneSpec) -> Location:
    """Where a clone lies below a storage root."""
    return root.child("clones", spec.fingerprint)


def plan_clone(root: Location, spec: CloneSpec, settings: GenerationSettings) -> CloneJob:
    """The plan of a clone with the counts of `settings`; a clone that was begun keeps its shard size.

    Raises:
        UserError: counts for classes that the table does not have.
    """
    counts = resolve_counts(settings.images_per_class, settings.class_counts, spec.table)
    record = CloneJob(Plan(spec, counts, 1), clone_folder(root, spec)).read_record()
    return CloneJob(Plan(spec, counts, record.get("images_per_shard", settings.images_per_shard)), clone_folder(root, spec))


def generate_clones(
    jobs: list[CloneJob],
    settings: GenerationSettings,
    make_generator: Callable[[CloneSpec], BatchGenerator] | None = None,
    draw: DrawShards | None = None,
) -> list[CloneSummary]:
    """Draw what is missing of each clone. Ray is started only if there is something to draw.

    Args:
        jobs: the clones.
        settings: batch size and actors.
        make_generator: draws in the place of the model's pipeline, for measurements.
        draw: draws the shards in the place of a pool of Ray Data actors that is started for them.

    Raises:
        UserError: when the cluster has no room for one actor, or the storage is full.
        RuntimeError: when shards are still not whole after they were drawn several times.
    """
    draw = draw or (lambda jobs, shards: _draw(jobs, shards, settings, make_generator))
    missing = []
    for job in jobs:
        job.folder.child(DATA).remove_stale_partials()
        missing.append(missing_shards(job))
        _begin_record(job, settings, bool(len(missing[-1])))
    num_drawn, seconds = np.zeros(len(jobs), dtype=np.int64), np.zeros(len(jobs))
    for _ in range(ROUNDS):
        for pipeline_key in sorted({job.plan.spec.pipeline_key for job, shards in zip(jobs, missing, strict=True) if len(shards)}):
            shards = [part if job.plan.spec.pipeline_key == pipeline_key else part[:0] for job, part in zip(jobs, missing, strict=True)]
            for row in draw(jobs, shards):
                num_drawn[row["job"]] += row["drawn"]
                seconds[row["job"]] += row["seconds"]
        findings = [_check(job, bool(len(part))) for job, part in zip(jobs, missing, strict=True)]
        missing = [np.array(found.broken if found is not None else [], dtype=np.int64) for found in findings]
        if not any(map(len, missing)):
            return [_finish(job, found, int(num_drawn[i]), float(seconds[i])) for i, (job, found) in enumerate(zip(jobs, findings, strict=True))]
    broken = {job.folder.uri: part.tolist() for job, part in zip(jobs, missing, strict=True) if len(part)}
    raise RuntimeError(f"these shards are not whole, though they were drawn {ROUNDS} times: {broken}")


@dataclass
class PoolUse:
    """How busy the actors were over their last shards, and the most memory that one of their GPUs held."""

    noun: str
    shares: deque[float]
    gpu_bytes: int = 0

    def note(self, row: dict[str, Any]) -> str:
        """Count the row of a shard; a few words for the progress line."""
        self.shares.append(row["busy"])
        self.gpu_bytes = max(self.gpu_bytes, row["gpu_bytes"])
        memory = f" at {self.gpu_bytes / 1e9:.1f} GB" if self.gpu_bytes else ""
        return f", {self.noun} {sum(self.shares) / len(self.shares):.0%} busy{memory}"


def _draw(
    jobs: list[CloneJob], shards: list[np.ndarray], settings: GenerationSettings, make_generator: Callable[[CloneSpec], BatchGenerator] | None
) -> Iterable[dict[str, Any]]:
    """Draw the shards of clones that share a pipeline; statistics of each, as they come."""
    from raysd.session import ensure_ray

    numbers = np.concatenate([np.full(len(part), number) for number, part in enumerate(shards)])
    order = np.argsort(np.concatenate(shards), kind="stable")  # all clones grow together, so each is balanced and usable early
    items = np.stack([numbers, np.concatenate(shards)], axis=1)[order]
    used = sorted(set(numbers.tolist()))
    ensure_ray()
    size = pool_size(settings, len(items))
    check_dtype(jobs[used[0]].plan.spec, size.gpus_per_actor)
    total = sum(int(jobs[number].plan.shard_sizes()[shards[number]].sum()) for number in used)
    say(f"drawing {len(items):,} shards of {len(used)} clones, {total:,} images, with {size}")
    num_flagged = num_dropped = 0
    use = PoolUse("GPUs" if size.gpus_per_actor else "actors", deque(maxlen=size.first))
    own = [jobs[number] for number in used]
    place = {number: i for i, number in enumerate(used)}
    with Progress("drawn", total) as progress:
        for start in range(0, len(items), size.wave_shards):
            wave = [{"job": place[int(number)], "shard": int(shard)} for number, shard in items[start : start + size.wave_shards]]
            for row in _draw_wave(own, wave, settings, size, make_generator):
                num_flagged, num_dropped = num_flagged + row["flagged"], num_dropped + row["dropped"]
                notes = [f", {count} {what}" for what, count in (("flagged", num_flagged), ("dropped", num_dropped)) if count]
                progress.advance(row["drawn"], use.note(row) + "".join(notes))
                yield {**row, "job": used[row["job"]]}


def _draw_wave(
    jobs: list[CloneJob],
    wave: list[dict[str, int]],
    settings: GenerationSettings,
    size: PoolSize,
    make_generator: Callable[[CloneSpec], BatchGenerator] | None,
) -> Iterable[dict[str, Any]]:
    import ray.data

    options = {"batch_size": settings.batch_size, "num_threads": max(1, int(settings.cpus_per_actor)), "make_generator": make_generator}
    stage = ray.data.from_items(wave, override_num_blocks=len(wave)).map_batches(
        ShardDrawer,
        fn_constructor_kwargs={"spec": jobs[0].plan.spec, **options},
        fn_kwargs={"jobs": jobs},
        compute=ray.data.ActorPoolStrategy(
            **size.bounds(len(wave)),
            max_tasks_in_flight_per_actor=TASKS_PER_ACTOR,
            max_concurrent_calls_per_actor=TASKS_PER_ACTOR,
            enable_true_multi_threading=True,
        ),
        batch_size=1,
        num_cpus=settings.cpus_per_actor,
        num_gpus=size.gpus_per_actor or None,
    )
    for row in stage.iter_rows():
        if row["error"]:
            raise UserError(*json.loads(row["error"]))
        yield row


def check_dtype(spec: CloneSpec, gpus_per_actor: float) -> None:
    """Half precision needs GPUs.

    Raises:
        UserError: there are none.
    """
    if spec.dtype == "float16" and not gpus_per_actor:
        raise UserError("generation.dtype", spec.dtype, "needs GPUs, and the actors have none; set it to float32 or bfloat16")


def _check(job: CloneJob, is_changed: bool) -> Findings | None:
    """What the shards hold; None when nothing was drawn and the record says that the clone is whole."""
    return None if not is_changed and job.is_complete() else check_shards(job)


def _finish(job: CloneJob, findings: Findings | None, num_drawn: int, seconds: float) -> CloneSummary:
    if findings is not None:
        _end_record(job, findings)
        job.folder.write("README.md", dataset_card(job.plan, job.read_record()).encode())
    record = job.read_record()
    spec = job.plan.spec
    short = findings.short_classes(spec.table.keys) if findings is not None else record["short_classes"]
    num_flagged = findings.num_flagged if findings is not None else sum(record["flags"].values())
    return CloneSummary(spec.fingerprint, job.folder, len(job.plan) - sum(short.values()), num_drawn, num_flagged, short, seconds)


def _begin_record(job: CloneJob, settings: GenerationSettings, is_changed: bool) -> None:
    """Add the counts of this run to those that were planned so far. A larger clone that lacks a shard is not called complete any more, since this run makes
    the shard anew with its own counts."""
    with held(job.folder, RECORD):
        record = job.read_record()
        if is_changed and record.get("complete") and not job.plan.counts.covers(job.earlier_counts(record)[0]):
            record = {**record, "complete": False}
            job.write_record(record)
        if job.plan.counts.to_json() not in record.get("planned", []):
            _add_counts(job, settings, record)


def _add_counts(job: CloneJob, settings: GenerationSettings, record: dict[str, Any]) -> None:
    planned = record.get("planned", [])
    if not record:
        record = {
            "fingerprint": job.plan.spec.fingerprint,
            "complete": False,
            "images_per_shard": job.plan.images_per_shard,
            "batch_size": settings.batch_size,
            "num_classes": job.plan.counts.num_classes,
            "spec": job.plan.spec.describe(),
        }
    job.write_record({**record, "planned": [*planned, job.plan.counts.to_json()]})


def _end_record(job: CloneJob, findings: Findings) -> None:
    """Say what the clone holds; the first of the planned counts is then the one that is complete."""
    with held(job.folder, RECORD):
        _call_complete(job, findings)


def _call_complete(job: CloneJob, findings: Findings) -> None:
    record, counts = job.read_record(), job.plan.counts
    earlier = job.earlier_counts(record)
    if record.get("complete") and earlier[0].covers(counts) and earlier[0] != counts:
        return  # a larger clone contains this one
    job.write_record(
        {
            **record,
            "complete": True,
            "planned": [counts.to_json(), *(other.to_json() for other in earlier if not counts.covers(other))],
            "images_per_class": int(counts.array.min()),
            "num_images": findings.num_images,
            "flags": {flag: int(values.sum()) for flag, values in findings.flags.items() if flag != "dropped"},
            "short_classes": findings.short_classes(job.plan.spec.table.keys),
            "versions": versions(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
