"""Verification: every picture of a clone is read, hashed, decoded, and compared with the plan."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from raysd.clone.actor_pool import WAVE_SHARDS
from raysd.clone.plan import Plan
from raysd.clone.scan import RECORD, CloneJob
from raysd.clone.shard import COLUMNS, DATA, read_shard, shard_name
from raysd.progress import Progress
from raysd.storage.lock import held

PLANNED = ("label", "key", "index", "prompt", "seed")


def find_problem(job: CloneJob, number: int) -> str:
    """What is wrong with a shard, in a few words; empty when nothing is."""
    plan, spec = job.plan, job.plan.spec
    shard = read_shard(job.folder, number, spec)
    if shard is None:
        return "missing, torn, or of another clone"
    if not shard.table.schema.equals(COLUMNS):
        return "has another schema"
    covered = shard.covered(plan.counts.num_classes)
    if not plan.belong(covered, number):
        return "holds a picture twice, or one of another shard"
    if absent := np.setdiff1d(plan.positions(number), covered).tolist():
        return f"lacks {len(absent)} planned pictures"
    for row in shard.table.to_pylist():
        if problem := _row_problem(plan, row):
            return f"picture {row['key']}/{row['index']} {problem}"
    return ""


def _row_problem(plan: Plan, row: dict[str, Any]) -> str:
    planned = plan.image(row["index"] * plan.counts.num_classes + row["label"], row["redraws"])
    for column in PLANNED:
        if row[column] != getattr(planned, column):
            return f"has another {column} than planned"
    data = row["image"]["bytes"]
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        return "does not match its hash"
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            size = image.size
    except (OSError, ValueError, SyntaxError):
        return "cannot be decoded"
    return "" if size == (plan.spec.stored_size,) * 2 else f"is {size[0]} x {size[1]} px"


def verify_clone(job: CloneJob) -> dict[int, str]:
    """The problem of each shard that has one. Shards are read by Ray tasks, on all nodes."""
    from raysd.session import ensure_ray

    ensure_ray()
    numbers = np.flatnonzero(job.plan.shard_sizes())
    problems: dict[int, str] = {}
    with Progress("verified", len(numbers), "shards") as progress:
        for row in _verdicts(job, numbers):
            if row["problem"]:
                problems[row["shard"]] = row["problem"]
            progress.advance(1, f", {len(problems)} broken" if problems else "")
    return dict(sorted(problems.items()))


def _verdicts(job: CloneJob, numbers: np.ndarray) -> Iterator[dict[str, Any]]:
    import ray.data

    for start in range(0, len(numbers), WAVE_SHARDS):
        wave = [{"shard": int(number)} for number in numbers[start : start + WAVE_SHARDS]]
        stage = ray.data.from_items(wave, override_num_blocks=len(wave))
        yield from stage.map(lambda row: {**row, "problem": find_problem(job, row["shard"])}, num_cpus=1).iter_rows()


def delete_shards(job: CloneJob, numbers: list[int]) -> None:
    """Delete shards, so that the next generation draws them again. Before that the record stops calling the clone complete."""
    data = job.folder.child(DATA)
    with held(job.folder, RECORD):
        if numbers and (record := job.read_record()).get("complete"):
            job.write_record({**record, "complete": False})
    for number in numbers:
        if data.exists(shard_name(number)):
            data.delete(shard_name(number))
