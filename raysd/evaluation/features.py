"""Outputs of a frozen classifier on a set of images, computed once and kept.

A part of the work is a stretch of a row group of the set; its result is one Parquet file, whose name exists only when
it is whole. So a killed run continues, and nothing is computed twice. Few images are seen in this process, many by Ray
Data actors, one for each GPU.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raysd.classifier.model import Classifier
from raysd.data.images import UNDECODABLE, encoded_rows
from raysd.device import find_device, keep_freed_memory
from raysd.errors import Failure, UserError, try_again
from raysd.evaluation.extraction import SMALL_IMAGE, Extraction, part_name
from raysd.evaluation.metrics import predict
from raysd.evaluation.models import EvaluatedModel
from raysd.progress import Progress
from raysd.storage.fingerprint import fingerprint
from raysd.storage.tables import write_table

BATCH = 64  # images in one forward pass, whatever the part, so that results repeat
SMALL_BATCH = 250
READERS = 2  # threads that decode while the model works
HERE_PIXELS = 2**26  # fewer pixels in all are seen in this process; starting an actor takes longer
MOST_THREADS = 4  # of an actor on CPUs
DECODED_BYTES = 2**30  # kept for the next classifier


class Forward:
    """Applies classifiers to parts, and holds the last one; also the class of the Ray Data actors.

    Args:
        num_threads: of the models on CPUs; as they are when empty.
    """

    def __init__(self, num_threads: int | None = None) -> None:
        keep_freed_memory()
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.device = find_device()
        self._held: tuple[str, Classifier] | None = None

    def model(self, model: EvaluatedModel) -> Classifier:
        """Return the classifier; load it if it is not the last one."""
        if self._held is None or self._held[0] != model.fingerprint:
            self._held = model.fingerprint, model.load().to(self.device)
        return self._held[1]

    def __call__(self, batch: dict[str, np.ndarray], extractions: list[Extraction]) -> dict[str, np.ndarray]:
        """Compute a part, given by the number of its extraction and its own number. Return the process, the times, an
        error that the user must fix, and what else failed."""
        began, error, failure, num_images = time.time(), "", "", 0
        extraction, number = extractions[int(batch["job"][0])], int(batch["part"][0])
        try:
            num_images = try_again(lambda: self.write_part(extraction, number))
        except UserError as found:  # Ray Data would lose it
            error = found.to_json()
        except Failure as found:  # the other sets go on
            failure = str(found)
        row = {
            "job": int(batch["job"][0]),
            "images": num_images,
            "process": os.getpid(),
            "began": began,
            "ended": time.time(),
            "error": error,
            "failure": failure,
        }
        return {name: np.array([value]) for name, value in row.items()}

    def write_part(self, extraction: Extraction, number: int, decoded: "DecodedImages | None" = None) -> int:
        """Compute and store a part, and return the number of its images."""
        images, part = extraction.images, extraction.parts[number]
        rows = images.read_rows(part.file, part.row_group).slice(part.first, len(part))
        encoded, labels = encoded_rows(images, rows)
        results = [
            self._results(extraction, batch, labels[first : first + len(batch)])
            for first, batch in self._batches(extraction, number, encoded, decoded)
        ]
        table = {"label": labels, "index": rows["index"].to_numpy()}
        table |= {name: np.concatenate([result[name] for result in results]) for name in results[0]}
        write_table(extraction.folder, part_name(number), _to_arrow(table))
        return len(labels)

    def _batches(
        self, extraction: Extraction, number: int, encoded: list[bytes], decoded: "DecodedImages | None"
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the index of the first image and uint8 images [B, 3, S, S] of each batch; threads decode the next ones
        meanwhile."""
        preprocessing = extraction.preprocessing
        size = SMALL_BATCH if preprocessing.size <= SMALL_IMAGE else BATCH
        if decoded is not None and (kept := decoded.find(extraction, number)) is not None:
            yield from ((first, kept[first : first + size]) for first in range(0, len(kept), size))
            return
        whole = []
        with ThreadPoolExecutor(READERS) as readers:
            images = readers.map(lambda data: _decode(extraction, number, data), encoded)
            for first in range(0, len(encoded), size):
                batch = np.stack([next(images) for _ in range(min(size, len(encoded) - first))])
                if decoded is not None:
                    whole.append(batch)
                yield first, batch
        if decoded is not None:
            decoded.keep(extraction, number, np.concatenate(whole))

    @torch.inference_mode()
    def _results(self, extraction: Extraction, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        inputs = extraction.preprocessing.normalize(torch.from_numpy(images).to(self.device))
        features, logits = self.model(extraction.model).features_and_logits(inputs)
        if extraction.kind == "features":
            return {"features": features.float().cpu().numpy()}
        logits = logits.float().cpu()
        if extraction.model.columns is not None:
            logits = logits[:, extraction.model.columns]
        return predict(logits, torch.from_numpy(labels), extraction.images.groups, extraction.shared)


def _decode(extraction: Extraction, number: int, data: bytes) -> np.ndarray:
    try:
        return extraction.preprocessing.decode(data)
    except UNDECODABLE as error:
        images = extraction.images
        place = f"{images.folder.uri}/{extraction.parts[number].file}"
        raise UserError(
            "image", place, f"of the set {images.name} cannot be decoded ({error}); repair or remove it"
        ) from None


def _to_arrow(columns: dict[str, np.ndarray]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        flat = pa.array(values.reshape(-1))
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if values.ndim == 2 else flat
    return pa.table(arrays)


class DecodedImages:
    """Decoded images of small sets, up to a gigabyte, for the next classifier that sees them."""

    def __init__(self) -> None:
        self._parts: dict[str, np.ndarray] = {}
        self._bytes = 0

    def find(self, extraction: Extraction, number: int) -> np.ndarray | None:
        """Return the images of a part, uint8 [B, 3, S, S], or None."""
        return self._parts.get(self._key(extraction, number))

    def keep(self, extraction: Extraction, number: int, images: np.ndarray) -> None:
        """Keep a part if there is room."""
        if self._bytes + images.nbytes <= DECODED_BYTES:
            self._parts[self._key(extraction, number)] = images
            self._bytes += images.nbytes

    def _key(self, extraction: Extraction, number: int) -> str:
        return fingerprint([extraction.images.identity(), asdict(extraction.preprocessing), number])


def extract(
    extractions: list[Extraction], decoded: DecodedImages | None = None, quiet: bool = False, here: bool = False
) -> dict[str, UserError | Failure]:
    """Compute the missing parts of some extractions. Ray is started only if there is much to do.

    Args:
        extractions: all that are needed.
        decoded: images that earlier calls decoded.
        quiet: no progress.
        here: do all of it in this process, which holds the GPU that it needs.

    Returns:
        The errors of failed extractions, by fingerprint: what the user must fix, as an image that cannot be decoded, or
        what was raised twice.
    """
    todo = [(job, number) for job, extraction in enumerate(extractions) for number in extraction.missing()]
    num_pixels = sum(
        len(extractions[job].parts[number]) * extractions[job].preprocessing.size ** 2 for job, number in todo
    )
    if num_pixels > HERE_PIXELS and not here:
        return _extract_by_actors(extractions, todo, quiet)
    failed: dict[str, UserError | Failure] = {}
    forward = Forward()
    for job, number in todo:
        if extractions[job].fingerprint not in failed:
            try:
                try_again(partial(forward.write_part, extractions[job], number, decoded))
            except (UserError, Failure) as error:
                failed[extractions[job].fingerprint] = error
    return failed


def _extract_by_actors(
    extractions: list[Extraction], todo: list[tuple[int, int]], quiet: bool
) -> dict[str, UserError | Failure]:
    failed: dict[str, UserError | Failure] = {}
    total = sum(len(extractions[job].parts[number]) for job, number in todo)
    with contextlib.nullcontext() if quiet else Progress("seen by classifiers", total) as progress:
        for row in rows_of_actors(extractions, todo):
            if row["error"]:
                failed[extractions[row["job"]].fingerprint] = UserError.from_json(row["error"])
            elif row["failure"]:
                failed[extractions[row["job"]].fingerprint] = Failure(row["failure"])
            elif progress is not None:
                progress.advance(int(row["images"]))
    return failed


def rows_of_actors(extractions: list[Extraction], todo: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Compute parts with Ray Data actors, and yield a row for each, with its error if it failed. A part is given by the
    number of its extraction and its own number."""
    import ray.data

    from raysd.cluster.session import cluster_cpus, cluster_gpus, ensure_ray

    ensure_ray()
    cpus, gpus = int(cluster_cpus()), int(cluster_gpus())
    num_threads = max(1, min(MOST_THREADS, cpus // 2))
    stage = ray.data.from_items(
        [{"job": job, "part": number} for job, number in todo], override_num_blocks=len(todo)
    ).map_batches(
        Forward,
        fn_constructor_args=(num_threads,),
        fn_kwargs={"extractions": extractions},
        compute=ray.data.ActorPoolStrategy(size=min(len(todo), gpus or max(1, cpus // num_threads))),
        batch_size=1,
        num_gpus=1 if gpus else None,
        num_cpus=num_threads / 2,  # the other half is room for a trial that waits
    )
    yield from stage.iter_rows()
