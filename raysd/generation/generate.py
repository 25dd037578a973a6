"""The generation job: a pool of diffusion actors works off the missing shards of one or many clones.

1. For each clone, list its shards; what is absent, torn or short is missing (see `raysd.clone.scan`). The counts of this run are written
   into `clone.json` before anything is drawn.
2. One pool of actors draws the missing shards of all clones that one loaded pipeline can draw. Each actor commits its shard under its
   final name and returns a row of statistics. Pictures never pass through Ray's object store.
3. What each shard covers is read back. A shard that fails is drawn again; then `clone.json` and the card are written.

There is no other state. A run that is killed at any point and started again draws what is missing.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from raysd.clone.dataset_card import dataset_card
from raysd.clone.plan import Plan, resolve_counts
from raysd.clone.record import begin_record, end_record, num_repairs, restore_withdrawn
from raysd.clone.scan import CloneJob, Findings, check_shards, missing_shards
from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import DATA, PARTS
from raysd.clone.spec import CloneSpec
from raysd.errors import UserError
from raysd.generation.actor import BatchGenerator
from raysd.generation.actor_pool import DiffusionPool
from raysd.generation.placement import PoolShape, pool_size
from raysd.progress import Progress, say
from raysd.storage.location import Location

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
        draw: draws the shards in the place of a pool of diffusion actors that is started for them.

    Raises:
        UserError: when the cluster has no room for one actor, or the storage is full.
        RuntimeError: when shards are still not whole after they were drawn several times.
    """
    draw = draw or (lambda jobs, shards: _draw(jobs, shards, settings, make_generator))
    missing = []
    for job in jobs:
        job.folder.child(DATA).remove_stale_partials()
        missing.append(missing_shards(job))
        begin_record(job, settings.batch_size, bool(len(missing[-1])))
    num_drawn, seconds = np.zeros(len(jobs), dtype=np.int64), np.zeros(len(jobs))
    finished: dict[int, CloneSummary] = {}
    for _ in range(ROUNDS):
        for pipeline_key in sorted({job.plan.spec.pipeline_key for job, shards in zip(jobs, missing, strict=True) if len(shards)}):
            shards = [part if job.plan.spec.pipeline_key == pipeline_key else part[:0] for job, part in zip(jobs, missing, strict=True)]
            for row in draw(jobs, shards):
                num_drawn[row["job"]] += row["drawn"]
                seconds[row["job"]] += row["seconds"]
        for i in set(range(len(jobs))) - set(finished):
            findings = _read_back(jobs[i], bool(len(missing[i])))
            missing[i] = np.array(findings.broken if findings is not None else [], dtype=np.int64)
            if not len(missing[i]):
                finished[i] = _summary(jobs[i], findings, int(num_drawn[i]), float(seconds[i]))
        if len(finished) == len(jobs):
            return [finished[i] for i in range(len(jobs))]
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
    from raysd.cluster.session import ensure_ray

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
    pool = DiffusionPool(jobs[used[0]].plan.spec, settings, PoolShape(size.most, settings.cpus_per_actor, size.gpus_per_actor), make_generator=make_generator)
    try:
        with Progress("drawn", total) as progress:
            for place, row in pool.draw((jobs[number], int(shard)) for number, shard in items):
                num_flagged, num_dropped = num_flagged + row["flagged"], num_dropped + row["dropped"]
                notes = [f", {count} {what}" for what, count in (("flagged", num_flagged), ("dropped", num_dropped)) if count]
                progress.advance(row["drawn"], use.note(row) + "".join(notes))
                yield {**row, "job": int(items[place, 0])}
    finally:
        pool.close()
        for line in pool.failures.lines(pool.nodes):
            say(line)


def check_dtype(spec: CloneSpec, gpus_per_actor: float) -> None:
    """Half precision needs GPUs.

    Raises:
        UserError: there are none.
    """
    if spec.dtype == "float16" and not gpus_per_actor:
        raise UserError("generation.dtype", spec.dtype, "needs GPUs, and the actors have none; set it to float32 or bfloat16")


def _read_back(job: CloneJob, is_changed: bool) -> Findings | None:
    """What the shards hold, and the clone's record if all are whole; None when nothing was drawn and the record says that the clone is whole."""
    if not is_changed and job.is_complete():
        return None
    while True:
        repairs = num_repairs(job)
        findings = check_shards(job)
        if not findings.broken:
            restore_withdrawn(job, repairs)
        if findings.broken or end_record(job, findings, repairs):
            return findings


def _summary(job: CloneJob, findings: Findings | None, num_drawn: int, seconds: float) -> CloneSummary:
    record, spec = job.read_record(), job.plan.spec
    if findings is not None:
        job.folder.child(PARTS).delete_folder()
        job.folder.write("README.md", dataset_card(job.plan, record).encode())
    short = findings.short_classes(spec.table.keys) if findings is not None else record["short_classes"]
    num_flagged = findings.num_flagged if findings is not None else sum(record["flags"].values())
    return CloneSummary(spec.fingerprint, job.folder, len(job.plan) - sum(short.values()), num_drawn, num_flagged, short, seconds)
