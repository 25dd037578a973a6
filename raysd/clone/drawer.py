"""The diffusion actor: draws the missing pictures of one shard at a time and commits the shard."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import numpy as np

from raysd.clone.batch import generate_batch
from raysd.clone.drawn import DrawnBatch
from raysd.clone.plan import PlannedImage
from raysd.clone.scan import LIGHT_COLUMNS, CloneJob
from raysd.clone.shard import DrawnImage, Shard, add_to_shard, encode_image, read_shard, shard_table
from raysd.clone.spec import CloneSpec
from raysd.errors import UserError

NUM_ENCODERS = 2


class BatchGenerator(Protocol):
    """What draws a batch: a `raysd.clone.generator.Generator`, or a stand-in for measurements."""

    def draw(self, spec: CloneSpec, images: Sequence[PlannedImage]) -> DrawnBatch:
        """Draw one batch."""


class ShardDrawer:
    """A diffusion actor, of Ray Data or of a standing pool. It holds one pipeline and serves all clones that this can draw.

    Two calls may run at a time: one draws, while the other one encodes its last pictures and commits its shard. One thread loads the model
    and draws with it: OpenMP keeps a team of threads for each thread that computes, and two teams on the same cores slow each other down.
    Batches keep one shape; a batch that would be short is filled up, and what was drawn too much is thrown away.

    Args:
        spec: of one of the clones; its pipeline is loaded.
        batch_size: pictures that are drawn at a time.
        num_threads: of the pipeline on CPUs.
        make_generator: draws in the place of the pipeline, for measurements.
    """

    def __init__(self, spec: CloneSpec, batch_size: int, num_threads: int, make_generator: Callable[[CloneSpec], BatchGenerator] | None = None) -> None:
        self.batch_size = batch_size
        make = make_generator or partial(_load_pipeline, num_threads)
        self.artist = ThreadPoolExecutor(1)
        self.error: UserError | None = None
        try:
            self.generator = self.artist.submit(make, spec).result()
        except UserError as error:
            self.error = error  # told with the first shard, because Ray would lose it
        self.encoders = ThreadPoolExecutor(NUM_ENCODERS)
        self.last_end: float | None = None
        self.metrics = _Metrics()

    def __call__(self, batch: dict[str, np.ndarray], jobs: list[CloneJob]) -> dict[str, list[Any]]:
        """Columns `job` (a place in `jobs`) and `shard` of one or more items to columns of statistics."""
        rows = [{"job": int(job), **self.try_shard(jobs[job], int(shard))} for job, shard in zip(batch["job"], batch["shard"], strict=True)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def try_shard(self, job: CloneJob, shard: int) -> dict[str, Any]:
        """As `draw_shard`; `error` holds bad input that was met, as JSON, because Ray would wrap a raised error into pages of text."""
        try:
            if self.error is not None:
                raise self.error
            return {**self.draw_shard(job, shard), "error": ""}
        except UserError as error:
            counts = dict.fromkeys(("drawn", "flagged", "dropped", "batches", "bytes"), 0)
            nothing = {"shard": shard, **counts, "drawing_seconds": 0.0, "busy": 0.0, "gpu_bytes": 0, "seconds": 0.0}
            return {**nothing, "error": json.dumps([error.field, str(error.value), error.remedy])}

    def draw_shard(self, job: CloneJob, shard: int) -> dict[str, Any]:
        """Draw and commit one shard; returns its row of statistics."""
        began = time.monotonic()
        plan, folder = job.plan, job.folder
        num_classes = plan.counts.num_classes
        kept = read_shard(folder, shard, plan.spec, LIGHT_COLUMNS)
        covered = np.empty(0, dtype=np.int64) if kept is None else kept.covered(num_classes)
        if not plan.belong(covered, shard):
            covered = covered[:0]
        missing = np.setdiff1d(plan.positions(shard), covered)
        pictures, dropped, num_calls, drawing, busy = self.artist.submit(self._draw_timed, job, missing).result()
        drawn = [future.result() for future in pictures]
        drawn.sort(key=lambda image: image.planned.position)
        num_bytes = add_to_shard(folder, plan, shard, Shard(shard_table(plan.spec, drawn), dropped))
        flagged = sum(bool(image.flag) for image in drawn)
        self.metrics.count(len(drawn), flagged, len(dropped), drawing, busy)
        return {
            "shard": shard,
            "drawn": len(missing),
            "flagged": flagged,
            "dropped": len(dropped),
            "batches": num_calls,
            "bytes": num_bytes,
            "drawing_seconds": drawing,
            "busy": busy,
            "gpu_bytes": _gpu_bytes(),
            "seconds": time.monotonic() - began,
        }

    def _draw_timed(self, job: CloneJob, positions: np.ndarray) -> tuple[list[Future[DrawnImage]], dict[int, str], int, float, float]:
        """What `_draw` returns, the seconds that it took, and their share of the time since the last shard."""
        started = time.monotonic()
        pictures, dropped, num_batches = self._draw(job, positions)
        ended = time.monotonic()
        since = ended - (started if self.last_end is None else self.last_end)
        self.last_end = ended
        return pictures, dropped, num_batches, ended - started, (ended - started) / max(since, 1e-9)

    def _draw(self, job: CloneJob, positions: np.ndarray) -> tuple[list[Future[DrawnImage]], dict[int, str], int]:
        """Encoded pictures to come, dropped positions with their reasons, and the number of batches."""
        plan, spec = job.plan, job.plan.spec
        pictures: list[Future[DrawnImage]] = []
        dropped: dict[int, str] = {}
        num_batches = 0
        waiting = [plan.image(position) for position in positions.tolist()]
        while waiting:
            again: list[PlannedImage] = []
            for start in range(0, len(waiting), self.batch_size):
                images = waiting[start : start + self.batch_size]
                filled = images + [images[-1]] * (self.batch_size - len(images))
                batch = generate_batch(self.generator, spec, filled)
                num_batches += 1
                for image, pixels, flag in zip(images, batch.pixels, batch.flags, strict=False):
                    if not flag or spec.flagged == "keep":
                        pictures.append(self.encoders.submit(_encode, image, pixels, flag, spec.codec))
                    elif spec.flagged == "redraw" and image.redraw < spec.max_redraws:
                        again.append(plan.image(image.position, image.redraw + 1))
                    else:
                        dropped[image.position] = flag
            waiting = again
        return pictures, dropped, num_batches


def _encode(image: PlannedImage, pixels: np.ndarray, flag: str, codec: str) -> DrawnImage:
    return DrawnImage(image, encode_image(pixels, codec), flag)


def _load_pipeline(num_threads: int, spec: CloneSpec) -> BatchGenerator:
    if spec.model.is_dummy:
        from raysd.clone.dummy import DummyGenerator

        return DummyGenerator()
    import torch

    from raysd.allocator import keep_freed_memory
    from raysd.clone.generator import Generator

    keep_freed_memory()
    torch.set_num_threads(num_threads)
    return Generator(spec)


def _gpu_bytes() -> int:
    """The most GPU memory that this process has held; 0 without a GPU. Does not load torch."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_reserved()) if torch is not None and torch.cuda.is_available() else 0


class _Metrics:
    """Counters that Ray serves to Prometheus."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        self.images = Counter("raysd_images", "Pictures that were drawn and committed.")
        self.flagged = Counter("raysd_flagged_images", "Committed pictures with a flag.")
        self.dropped = Counter("raysd_dropped_images", "Planned pictures that were dropped.")
        self.rate = Gauge("raysd_images_per_second", "Pictures per second of one actor, over its last shard.")
        self.busy = Gauge("raysd_busy_share", "Share of the time since its last shard that an actor was drawing, 0 to 1.")

    def count(self, drawn: int, flagged: int, dropped: int, seconds: float, busy: float) -> None:
        """Count one shard."""
        for counter, value in ((self.images, drawn), (self.flagged, flagged), (self.dropped, dropped)):
            if value:
                counter.inc(value)
        self.rate.set(drawn / max(seconds, 1e-9))
        self.busy.set(busy)
