"""The scoring job: Ray Data maps scoring actors over a clone's shards, then Ray tasks compare the images of each class.

The part of a shard is written once and found again, so a killed run continues and a grown clone is scored where it
grew. The class tables are made anew from the parts.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from raysd.clone.clone import Clone
from raysd.clone.plan import ImageCounts
from raysd.clone.settings import GenerationSettings
from raysd.curation.near_duplicates import Reference, descriptors, nearest_earlier
from raysd.curation.part_counts import PartCounts
from raysd.curation.scores import RECORD, SCORES, ScoringSpec, read_scores
from raysd.curation.shard_scorer import ShardScorer
from raysd.errors import Failure, UserError, try_again
from raysd.generation.placement import TASKS_PER_ACTOR, pool_size
from raysd.progress import Progress, say
from raysd.storage.location import Location
from raysd.storage.tables import read_each, read_table, write_table
from raysd.versions import versions

CLASS_BYTES = 2**29  # of thumbnails that one task holds
DUPLICATE = 0.98


@dataclass(frozen=True)
class ScoreSummary:
    """Summary of a score table."""

    folder: Location
    num_images: int
    num_scored: int
    """Images scored by this run."""
    agreement: float | None
    """Percent of the images whose own class fits best, by the image-text model."""
    worst_classes: dict[str, float]
    """The same percentage for the classes where it is lowest, by key."""
    num_duplicates: int
    """Images that correlate to more than 0.98 with an earlier one of their class."""
    num_test_matches: int
    """Images that correlate to more than 0.98 with a test image."""
    teacher_agreement: float | None = None
    """Percent of the images whose own class is the teachers' likeliest."""
    teacher_worst: dict[str, float] = field(default_factory=dict)
    """The same percentage for the classes where it is lowest, by key."""


def score_clone(
    clone: Clone,
    spec: ScoringSpec,
    references: Callable[[], list[Reference]],
    settings: GenerationSettings,
    batch_size: int,
) -> ScoreSummary:
    """Score the images that have no scores yet. Ray is started only if there are such images.

    Args:
        clone: a complete clone.
        spec: the scores to measure.
        references: function that reads the test sets of the spec; called if there are images to score.
        settings: the settings of actors, CPUs and GPUs.
        batch_size: images that the image-text model takes at once.

    Raises:
        UserError: the clone is not complete, or the cluster has no room.
        Failure: an exception was raised twice for a shard or some classes; what else there is to score has scores.
    """
    if not clone.is_complete():
        raise UserError(
            "generation.images_per_class",
            clone.counts.default,
            "the clone is not complete; run raysd generate first",
        )
    counts = PartCounts(clone.folder, spec.folder(clone))
    missing = counts.missing(np.flatnonzero(clone.shard_sizes()).tolist())
    scored: dict[int, tuple[int, int]] = {}
    if missing:
        failed: dict[int, str] = {}
        scored.update(_score_shards(clone, spec, references(), settings, batch_size, missing, failed))
        counts.keep(scored)
        if failed:
            why = next(iter(failed.values()))
            raise Failure(f"{len(failed):,} of {len(missing):,} shards could not be scored: {why}")
    if missing or not spec.covers(clone, spec.read_record(clone)):
        _compare_classes(clone, spec, counts.rows())
    return _summary(clone, spec, sum(images for images, _ in scored.values()))


def _score_shards(
    clone: Clone,
    spec: ScoringSpec,
    references: list[Reference],
    settings: GenerationSettings,
    batch_size: int,
    missing: list[int],
    failed: dict[int, str],
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the number of each scored shard, with its number of images and the bytes of its part; add those that failed
    to `failed`, with the reason."""
    import ray.data

    from raysd.cluster.session import ensure_ray

    ensure_ray()
    size = pool_size(settings, len(missing))
    num_threads = max(1, int(settings.cpus_per_actor))
    say(f"scoring {len(missing):,} shards with {size}")
    with Progress("scored", int(clone.shard_sizes()[missing].sum())) as progress:
        for start in range(0, len(missing), size.wave_shards):
            wave = [{"shard": number} for number in missing[start : start + size.wave_shards]]
            stage = ray.data.from_items(wave, override_num_blocks=len(wave)).map_batches(
                ShardScorer,
                fn_constructor_kwargs={
                    "clone": clone,
                    "spec": spec,
                    "references": references,
                    "batch_size": batch_size,
                    "num_threads": num_threads,
                },
                compute=ray.data.ActorPoolStrategy(
                    **size.bounds(len(wave)), max_tasks_in_flight_per_actor=TASKS_PER_ACTOR
                ),
                batch_size=1,
                num_cpus=settings.cpus_per_actor,
                num_gpus=size.gpus_per_actor or None,
            )
            for row in stage.iter_rows():
                if row["failure"]:
                    failed[row["shard"]] = row["failure"]
                    continue
                progress.advance(row["images"])
                yield row["shard"], (row["images"], row["bytes"])


def _compare_classes(clone: Clone, spec: ScoringSpec, rows: dict[str, int]) -> None:
    """Find near-duplicates with Ray tasks over ranges of classes, write the class tables, then the record.

    Args:
        clone: the clone.
        spec: the scores to measure.
        rows: rows of each part, by file name.
    """
    import ray

    from raysd.cluster.session import ensure_ray

    ensure_ray()
    num_classes = clone.counts.num_classes
    parts = spec.folder(clone).child("parts")
    total = sum(rows.values())
    num_files = min(num_classes, max(1, -(-total * 256 // CLASS_BYTES)))
    edges = np.linspace(0, num_classes, num_files + 1).astype(int).tolist()
    compare = ray.remote(num_cpus=1)(_try_classes)
    ranges = enumerate(pairwise(edges))
    tasks = [
        compare.remote(parts, list(rows), first, last, spec.folder(clone), number, spec.scores)
        for number, (first, last) in ranges
    ]
    failed = []
    with Progress("compared", num_classes, "classes") as progress:
        while tasks:
            (done,), tasks = ray.wait(tasks, num_returns=1)
            count, failure = ray.get(done)
            progress.advance(count)
            failed += [failure] if failure else []
    if failed:
        raise Failure(f"{len(failed)} of {num_files} groups of classes could not be compared: {failed[0]}")
    earlier, counts = spec.read_record(clone), clone.counts
    if earlier:
        counts = counts.united(ImageCounts.from_json(num_classes, earlier["counts"]))
    record = {
        **spec.describe(),
        "num_files": num_files,
        "counts": counts.to_json(),
        "num_images": total,
        "versions": versions(),
    }
    record["written"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    spec.folder(clone).write(RECORD, json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")


def _try_classes(*arguments: Any) -> tuple[int, str]:
    """Compare classes; return their number, and why it failed."""
    try:
        return try_again(lambda: compare_classes(*arguments)), ""
    except Failure as error:
        return 0, str(error)


def compare_classes(
    parts: Location, names: list[str], first: int, last: int, out: Location, number: int, schema: pa.Schema = SCORES
) -> int:
    """Write the score table of the classes `first` to `last - 1`; return their number."""
    inside = [("label", ">=", first), ("label", "<", last)]
    tables = read_each(lambda name: read_table(parts, name, filters=inside), names)
    table = pa.concat_tables(tables).sort_by([("label", "ascending"), ("index", "ascending")])
    labels, index = table["label"].to_numpy(), table["index"].to_numpy()
    similarity, match = np.empty(len(table), dtype=np.float32), np.empty(len(table), dtype=np.int64)
    for label in np.unique(labels):
        rows = slice(*np.searchsorted(labels, [label, label + 1]))
        values, places = nearest_earlier(descriptors(table["thumbnail"][rows].to_pylist()))
        similarity[rows] = values
        match[rows] = np.where(places < 0, -1, index[rows][places])
    table = (
        table.drop_columns("thumbnail")
        .append_column("duplicate_similarity", pa.array(similarity))
        .append_column("duplicate_of", pa.array(match))
    )
    write_table(out, f"scores-{number:05d}.parquet", table.select(schema.names).cast(schema))
    return last - first


def _summary(clone: Clone, spec: ScoringSpec, num_scored: int) -> ScoreSummary:
    scores = read_scores(clone, spec)
    labels, counts = scores["label"].to_numpy(), clone.counts.array
    planned = clone.is_planned(labels, scores["index"].to_numpy())
    found: dict[str, tuple[float | None, dict[str, float]]] = {}
    for name, is_there in {"guess": spec.model is not None, "teacher_guess": spec.faculty is not None}.items():
        found[name] = (None, {})
        if is_there:
            found[name] = _agreement(clone, labels[planned], scores[name].to_numpy()[planned], len(counts))
    duplicates = int((scores["duplicate_similarity"].to_numpy()[planned] > DUPLICATE).sum())
    matches = int((scores["test_similarity"].to_numpy()[planned] > DUPLICATE).sum()) if spec.references else 0
    counted = (int(planned.sum()), num_scored, *found["guess"], duplicates, matches)
    return ScoreSummary(spec.folder(clone), *counted, *found["teacher_guess"])


def _agreement(
    clone: Clone, labels: np.ndarray, guesses: np.ndarray, num_classes: int
) -> tuple[float, dict[str, float]]:
    """Return the percentage of images whose guessed class is their own, and that of the three worst classes."""
    right = guesses == labels
    of_class = np.bincount(labels, weights=right, minlength=num_classes) / np.maximum(
        np.bincount(labels, minlength=num_classes), 1
    )
    worst = {clone.spec.table.keys[label]: 100 * float(of_class[label]) for label in np.argsort(of_class)[:3].tolist()}
    return 100 * float(right.mean()), worst
