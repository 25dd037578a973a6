"""The diffusion actor: draws the missing rows of one shard at a time and commits the shard."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raysd.clone.generator import Generator, is_black
from raysd.clone.plan import Plan
from raysd.clone.shard import DrawnImage, count_rows, encode_image, read_shard, shard_table, write_shard
from raysd.storage.location import Location


@dataclass(frozen=True)
class CloneJob:
    """A clone to be drawn to a given size, and its folder."""

    plan: Plan
    folder: Location


class ShardDrawer:
    """A Ray Data actor. It holds one pipeline and serves all clones of that model.

    Each picture has a fixed slot: it stands in batch `position // batch size` of its shard, at `position % batch size`. A batch that
    is needed in part is drawn whole, and the rest is thrown away. So a picture's bytes do not depend on what was drawn before.
    """

    def __init__(self, jobs: list[CloneJob], batch_size: int, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self.jobs, self.batch_size = jobs, batch_size
        self.generator = Generator(jobs[0].plan.spec)
        self.encoder = ThreadPoolExecutor(1)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Columns `job` and `shard` of one or more items to columns of statistics."""
        rows = [self.draw_shard(int(job), int(shard)) for job, shard in zip(batch["job"], batch["shard"], strict=True)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def draw_shard(self, job: int, shard: int) -> dict[str, Any]:
        """Draw and commit one shard; returns its row of statistics."""
        began = time.monotonic()
        plan, folder = self.jobs[job].plan, self.jobs[job].folder
        positions = plan.shard_range(shard)
        num_kept = min(count_rows(folder, shard), len(positions))
        waiting: list[Future[list[DrawnImage]]] = []
        for start, keep in self._batches(positions, num_kept):
            images = [plan.image(start + slot) for slot in range(self.batch_size)]
            pixels = self.generator.draw(plan.spec, images)
            waiting.append(self.encoder.submit(self._encode, plan, images, pixels, keep))
        drawn = [image for future in waiting for image in future.result()]
        table = shard_table(plan.spec, drawn)
        if num_kept:
            table = pa.concat_tables([read_shard(folder, shard).slice(0, num_kept).cast(table.schema), table]).combine_chunks()
        write_shard(folder, shard, table)
        num_black = sum(image.flag == "black" for image in drawn)
        return {"job": job, "shard": shard, "drawn": len(drawn), "black": num_black, "seconds": time.monotonic() - began}

    def _batches(self, positions: range, num_kept: int) -> Iterator[tuple[int, range]]:
        """(first position, positions to keep) of each batch that holds a missing picture."""
        missing = positions[num_kept:]
        for start in range(positions.start, positions.stop, self.batch_size):
            keep = range(max(start, missing.start), min(start + self.batch_size, missing.stop))
            if keep:
                yield start, keep

    @staticmethod
    def _encode(plan: Plan, images: list[Any], pixels: np.ndarray, keep: range) -> list[DrawnImage]:
        return [
            DrawnImage(image, encode_image(picture, plan.spec.codec), "black" if is_black(picture) else "")
            for image, picture in zip(images, pixels, strict=True)
            if image.position in keep
        ]
