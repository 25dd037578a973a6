"""The generation job: Ray Data maps diffusion actors over the missing shards of one or many clones.

1. For each clone, list its shards and read their footers; what is absent, torn or short is missing.
2. One pool of actors draws the missing shards, of all clones that share a model. Each actor commits its shard under its final name and
   returns a row of statistics. Pictures never pass through Ray's object store.
3. When all shards of a clone are there, its rows are counted per class, and `clone.json` and the card are written.

There is no other state. A run that is killed at any point and started again draws what is missing.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysd.clone.card import dataset_card
from raysd.clone.drawer import CloneJob, ShardDrawer
from raysd.clone.plan import Plan
from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import DATA, missing_shards, shard_name
from raysd.clone.spec import CloneSpec
from raysd.errors import UserError
from raysd.progress import Progress, say
from raysd.storage.location import Location
from raysd.versions import versions

RECORD = "clone.json"


@dataclass(frozen=True)
class CloneSummary:
    """A finished clone."""

    fingerprint: str
    folder: Location
    num_images: int
    num_drawn: int
    """Pictures drawn by this run; 0 when the clone was there."""
    num_black: int
    seconds: float
    """Actor seconds spent by this run."""


def clone_folder(root: Location, spec: CloneSpec) -> Location:
    """Where a clone lies below a storage root."""
    return root.child("clones", spec.fingerprint)


def plan_clone(root: Location, spec: CloneSpec, settings: GenerationSettings) -> CloneJob:
    """The plan of a clone of `settings.images_per_class`; a clone that was begun keeps its shard size."""
    folder = clone_folder(root, spec)
    images_per_shard = settings.images_per_shard
    if folder.exists(RECORD):
        images_per_shard = json.loads(folder.read(RECORD))["images_per_shard"]
    return CloneJob(Plan(spec, settings.images_per_class, images_per_shard), folder)


def generate_clones(jobs: list[CloneJob], settings: GenerationSettings) -> list[CloneSummary]:
    """Draw what is missing of each clone; all must share one model. Ray is started only if there is something to draw.

    Raises:
        UserError: when the cluster has no room for one actor.
        RuntimeError: when a finished clone does not have its exact number of pictures in each class.
    """
    items = []
    for number, job in enumerate(jobs):
        job.folder.child(DATA).remove_stale_partials()
        items += [{"job": number, "shard": shard} for shard in missing_shards(job.folder, job.plan)]
        _write_record(job, complete=False)
    items.sort(key=lambda item: item["shard"])  # all clones grow together, so each is balanced and usable early
    statistics = _draw(jobs, items, settings) if items else []
    return [_finish(number, job, [row for row in statistics if row["job"] == number]) for number, job in enumerate(jobs)]


def _draw(jobs: list[CloneJob], items: list[dict[str, int]], settings: GenerationSettings) -> list[dict[str, Any]]:
    import ray.data

    from raysd.session import ensure_ray

    ensure_ray()
    num_actors, num_gpus = _pool(settings, len(items))
    stage = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardDrawer,
        fn_constructor_kwargs={"jobs": jobs, "batch_size": settings.batch_size, "num_threads": max(1, int(settings.cpus_per_actor))},
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        batch_size=1,
        num_cpus=settings.cpus_per_actor,
        num_gpus=num_gpus or None,
    )
    total = sum(len(jobs[item["job"]].plan.shard_range(item["shard"])) for item in items)
    say(f"drawing {len(items)} shards of {len(jobs)} clones, {total} images, with {num_actors} actors")
    rows, num_black = [], 0
    with Progress("drawn", total) as progress:
        for row in stage.iter_rows():
            rows.append(row)
            num_black += row["black"]
            progress.advance(row["drawn"], f", {num_black} black" if num_black else "")
    return rows


def _pool(settings: GenerationSettings, num_items: int) -> tuple[int, float]:
    """Number of actors, and GPUs of each."""
    from raysd.session import cluster_cpus, cluster_gpus

    cpus, gpus = cluster_cpus(), cluster_gpus()
    gpus_per_actor = settings.gpus_per_actor if settings.gpus_per_actor is not None else float(gpus > 0)
    room = int(cpus // settings.cpus_per_actor)
    if gpus_per_actor:
        room = min(room, int(gpus // gpus_per_actor))
    wanted = settings.num_actors or room
    if room < 1 or wanted > room:
        need = f"{settings.cpus_per_actor:g} CPUs and {gpus_per_actor:g} GPUs an actor"
        raise UserError("generation.num_actors", settings.num_actors, f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs, room for {room} at {need}")
    return min(wanted, num_items), gpus_per_actor


def _finish(number: int, job: CloneJob, statistics: list[dict[str, Any]]) -> CloneSummary:
    flags = _count_classes(job)
    if _write_record(job, complete=True, num_black=flags) or not job.folder.exists("README.md"):
        job.folder.write("README.md", dataset_card(job.plan, flags).encode())
    return CloneSummary(
        fingerprint=job.plan.spec.fingerprint,
        folder=job.folder,
        num_images=len(job.plan),
        num_drawn=sum(row["drawn"] for row in statistics),
        num_black=flags,
        seconds=sum(row["seconds"] for row in statistics),
    )


def _count_classes(job: CloneJob) -> int:
    """Check that each class has each of its planned pictures; returns the number of black ones."""
    data = job.folder.child(DATA)
    tables = []
    for shard in range(job.plan.num_shards):
        columns = pq.read_table(data.file(shard_name(shard)), columns=["label", "index", "flag"], filesystem=data.filesystem)
        tables.append(columns.slice(0, len(job.plan.shard_range(shard))))
    rows = pa.concat_tables(tables)
    num_unique = rows.group_by(["label", "index"]).aggregate([]).num_rows
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(rows["label"]).to_pylist()}
    short = {key: counts.get(label, 0) for label, key in enumerate(job.plan.spec.table.keys) if counts.get(label, 0) != job.plan.images_per_class}
    if short or num_unique != len(job.plan):
        raise RuntimeError(f"clone {job.folder.uri}: {num_unique} different pictures of {len(job.plan)}; classes with a wrong count: {short}")
    return int(pc.sum(pc.equal(rows["flag"], "black")).as_py())


def _write_record(job: CloneJob, complete: bool, num_black: int = 0) -> bool:
    """Write `clone.json` unless what is there says as much; returns whether it was written."""
    record = json.loads(job.folder.read(RECORD)) if job.folder.exists(RECORD) else {}
    if record.get("complete") and record["images_per_class"] >= job.plan.images_per_class:
        return False  # a larger clone contains this one
    if not complete and record:
        return False
    record = {
        "fingerprint": job.plan.spec.fingerprint,
        "complete": complete,
        "images_per_class": job.plan.images_per_class if complete else 0,
        "images_per_shard": job.plan.images_per_shard,
        "num_classes": len(job.plan.spec.table),
        "num_black": num_black,
        "spec": job.plan.spec.describe(),
        "versions": versions(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    job.folder.write(RECORD, json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")
    return True
