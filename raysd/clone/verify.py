"""Verification of a clone: every image is read, hashed, decoded, and compared with the plan."""

import hashlib
import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from raysd.clone.clone import Clone
from raysd.clone.plan import Plan
from raysd.clone.record import begin_repair
from raysd.clone.shard import COLUMNS, DATA, Shard, parse_shard, read_shard, shard_name, shard_table, to_parquet
from raysd.cluster.session import WAVE_SHARDS
from raysd.progress import Progress
from raysd.storage.change import change

PLANNED = ("label", "key", "index", "prompt", "seed")


def find_problem(clone: Clone, number: int) -> str:
    """Return what is wrong with a shard in a few words, or an empty text."""
    plan, spec = clone, clone.spec
    shard = read_shard(clone.folder, number, spec)
    if shard is None:
        return "missing, torn, or of another clone"
    if not shard.table.schema.equals(COLUMNS):
        return "has another schema"
    covered = shard.covered(plan.counts.num_classes)
    if not plan.belong(covered, number):
        return "holds an image twice, or one of another shard"
    if absent := np.setdiff1d(plan.positions(number), covered).tolist():
        return f"lacks {len(absent)} planned images"
    for row in shard.table.to_pylist():
        if problem := _row_problem(plan, row):
            return f"image {row['key']}/{row['index']} {problem}"
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


def verify_clone(clone: Clone) -> dict[int, str]:
    """Return the problem of each shard that has one. Ray tasks read the shards, on all nodes."""
    from raysd.cluster.session import ensure_ray

    ensure_ray()
    numbers = np.flatnonzero(clone.shard_sizes())
    problems: dict[int, str] = {}
    with Progress("verified", len(numbers), "shards") as progress:
        for row in _verdicts(clone, numbers):
            if row["problem"]:
                problems[row["shard"]] = row["problem"]
            progress.advance(1, f", {len(problems)} broken" if problems else "")
    return dict(sorted(problems.items()))


def _verdicts(clone: Clone, numbers: np.ndarray) -> Iterator[dict[str, Any]]:
    import ray.data

    for start in range(0, len(numbers), WAVE_SHARDS):
        wave = [{"shard": int(number)} for number in numbers[start : start + WAVE_SHARDS]]
        stage = ray.data.from_items(wave, override_num_blocks=len(wave))
        yield from stage.map(lambda row: {**row, "problem": find_problem(clone, row["shard"])}, num_cpus=1).iter_rows()


def mend_shards(clone: Clone, numbers: list[int]) -> Clone:
    """Take broken images out of shards, so that the next generation makes them again.

    Before that the record stops calling the clone complete. Each shard is checked again while it is changed: what
    another driver repaired or added by now stays.

    Returns:
        The clone with all that has to be there afterwards: more than `clone` where the record called more complete.
    """
    wanted = begin_repair(clone)
    for number in numbers:
        change(clone.folder.child(DATA), shard_name(number), partial(_repaired, wanted, number))
    return wanted


def _repaired(plan: Plan, number: int, data: bytes | None) -> bytes | None:
    """Return a shard without what is broken; None when nothing is, or the shard is missing."""
    shard = None if data is None else parse_shard(data, plan.spec)
    if data is None:
        return None
    if shard is None or not shard.table.schema.equals(COLUMNS):
        return to_parquet(Shard(shard_table(plan.spec, [])), plan.spec)
    seen: set[int] = set()
    keeps = []
    for row in shard.table.to_pylist():
        position = row["index"] * plan.counts.num_classes + row["label"]
        keeps.append(
            position // plan.images_per_shard == number and position not in seen and not _row_problem(plan, row)
        )
        seen |= {position} if keeps[-1] else set()
    dropped = {
        position: why
        for position, why in shard.dropped.items()
        if position // plan.images_per_shard == number and position not in seen
    }
    if all(keeps) and dropped == shard.dropped:
        return None
    return to_parquet(Shard(shard.table.filter(pa.array(keeps)), dropped), plan.spec)
