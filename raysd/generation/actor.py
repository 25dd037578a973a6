"""The generation actor: generates the missing images of one shard at a time and commits the shard."""

import socket
import sys
import threading
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from raysd.clone.clone import Clone
from raysd.clone.plan import PlannedImage
from raysd.clone.scan import LIGHT_COLUMNS
from raysd.clone.shard import (
    PARTS,
    GeneratedImage,
    Shard,
    add_to_shard,
    delete_part,
    encode_image,
    merge_shards,
    read_shard,
    shard_table,
)
from raysd.clone.spec import CloneSpec
from raysd.errors import UserError
from raysd.generation.batch import BatchGenerator, GeneratedBatch, generate_batch
from raysd.generation.cost import device_name
from raysd.generation.failures import Kind, Place, is_local, of_loading, one_line
from raysd.generation.sent_clones import KeptClones, SentClone

NUM_ENCODERS = 2
PART_SECONDS = 600.0  # a lost actor costs no more than so much of a shard


class GenerationActor:
    """A generation actor. It holds one pipeline and serves all clones that this can generate.

    Two calls may run at once: one generates, while the other one encodes its last images and commits its shard. One
    thread loads the model and generates with it: OpenMP keeps a team of threads for each thread that computes, and two
    teams on the same cores slow each other down. Batches keep one shape; a batch that would be short is filled up, and
    what was generated too much is thrown away.

    Args:
        spec: of one of the clones; its pipeline is loaded.
        batch_size: images that are generated at once.
        num_threads: of the pipeline on CPUs.
    """

    def __init__(self, spec: CloneSpec, batch_size: int, num_threads: int) -> None:
        self.batch_size = batch_size
        self.artist, began = ThreadPoolExecutor(1), time.monotonic()
        self.error: UserError | None = None
        self.kind: Kind = "start"
        try:
            self.generator = self.artist.submit(self.load_generator, spec, num_threads).result()
        except Exception as error:
            self.kind, self.error = of_loading(error, spec, socket.gethostname())
            if self.error is not error and self.kind == "start":
                traceback.print_exc()
        self.load_seconds = time.monotonic() - began
        self.encoders = ThreadPoolExecutor(NUM_ENCODERS)
        self.last_end: float | None = None
        self.lock, self.num_in_work, self.moved, self.longest_batch = threading.Lock(), 0, time.monotonic(), 0.0
        self.clones = KeptClones()
        self.metrics = _Metrics()

    @staticmethod
    def load_generator(spec: CloneSpec, num_threads: int) -> BatchGenerator:
        """Return the generator of a pipeline's batches. A subclass may return another one, to fail or to measure."""
        if spec.model.is_dummy:
            from raysd.generation.dummy import DummyGenerator

            return DummyGenerator()
        import torch

        from raysd.device import keep_freed_memory
        from raysd.generation.pipeline import Generator

        keep_freed_memory()
        torch.set_num_threads(num_threads)
        return Generator(spec)

    def introduce(self) -> tuple[Place, Kind, str]:
        """Return where this actor works, and what keeps it from working: its kind, and the error as JSON, which is
        empty when there is none."""
        import ray

        context = ray.get_runtime_context()
        devices = tuple(str(each) for each in context.get_accelerator_ids().get("GPU", []))
        problem = "" if self.error is None else self.error.to_json()
        return Place(context.get_node_id(), socket.gethostname(), devices), self.kind, problem

    def loading_time(self) -> float:
        """Return the seconds that the model took to load."""
        return self.load_seconds

    def pace(self) -> tuple[float, float]:
        """Return the seconds since the last batch ended while there is work, and the longest time of a batch in
        seconds."""
        return (time.monotonic() - self.moved if self.num_in_work else 0.0), self.longest_batch

    def try_shard_of(self, sent: SentClone, shard: int) -> dict[str, Any]:
        """Run `try_shard` for a clone that was put into Ray's object store."""
        return self.try_shard(self.clones.fetch(sent), shard)

    def try_shard(self, clone: Clone, shard: int) -> dict[str, Any]:
        """Run `generate_shard` and return its row. `error` holds bad input as JSON, `failure` the failure of this
        device or node; both are empty when all went well."""
        nothing: dict[str, Any] = {
            "shard": shard,
            **dict.fromkeys(("generated", "flagged", "dropped", "batches", "bytes", "gpu_bytes"), 0),
        }
        nothing |= {
            "generation_seconds": 0.0,
            "cpu_seconds": 0.0,
            "busy": 0.0,
            "seconds": 0.0,
            "device": "",
            "error": "",
            "failure": "",
            "why_dropped": "",
        }
        with self.lock:
            self.moved = self.moved if self.num_in_work else time.monotonic()  # an idle actor did not hang
            self.num_in_work += 1
        try:
            if self.error is not None:
                raise self.error
            return {**nothing, **self.generate_shard(clone, shard)}
        except UserError as error:
            return {**nothing, "error": error.to_json()}
        except Exception as error:
            if not is_local(error):
                raise
            traceback.print_exc()
            return {**nothing, "failure": one_line(error)}
        finally:
            with self.lock:
                self.num_in_work -= 1
                self.moved = time.monotonic()

    def generate_shard(self, clone: Clone, shard: int) -> dict[str, Any]:
        """Generate and commit one shard, and return its row of statistics. Parts of a slow shard are kept, and a later
        call for the same shard reuses them."""
        began = time.monotonic()
        plan, folder = clone, clone.folder
        num_classes = plan.counts.num_classes
        kept = read_shard(folder, shard, plan.spec, LIGHT_COLUMNS)
        part = read_shard(folder, shard, plan.spec, place=PARTS)
        if part is not None and not plan.belong(part.covered(num_classes), shard):
            part = None
        missing = plan.positions(shard)
        for there in (kept, part):
            if there is not None and plan.belong(covered := there.covered(num_classes), shard):
                missing = np.setdiff1d(missing, covered)
        saves: list[Future[None]] = []
        images, dropped, num_calls, generating, busy, computed = self.artist.submit(
            self._generate_timed, clone, shard, missing, saves
        ).result()
        generated = [future.result() for future in images]
        wait(saves)  # or a part would be there after it was deleted
        generated.sort(key=lambda image: image.planned.position)
        fresh = Shard(shard_table(plan.spec, generated), dropped)
        if part is not None:
            fresh = merge_shards(part, fresh, num_classes)
        num_bytes = add_to_shard(folder, plan, shard, fresh, is_new=kept is None)
        if part is not None or generating > PART_SECONDS:
            delete_part(folder, shard)
        flagged = sum(bool(image.flag) for image in generated)
        self.metrics.count(len(generated), flagged, len(dropped), generating, busy)
        return {
            "shard": shard,
            "generated": len(missing),
            "flagged": flagged,
            "dropped": len(dropped),
            "why_dropped": max(set(dropped.values()), key=[*dropped.values()].count, default=""),
            "batches": num_calls,
            "bytes": num_bytes,
            "generation_seconds": generating,
            "cpu_seconds": generating if is_on_mps() else computed,  # of the device, which is Apple's GPU there
            "busy": busy,
            "device": device_name(),
            "gpu_bytes": _gpu_bytes(),
            "seconds": time.monotonic() - began,
        }

    def _generate_timed(
        self, clone: Clone, shard: int, positions: np.ndarray, saves: list[Future[None]]
    ) -> tuple[list[Future[GeneratedImage]], dict[int, str], int, float, float, float]:
        """Run `_generate`; return its result, its seconds, their share of the time since the last shard, and the CPU
        seconds of this process meanwhile."""
        started, computed = time.monotonic(), time.process_time()
        images, dropped, num_batches = self._generate(clone, shard, positions, saves)
        ended = time.monotonic()
        since = ended - (started if self.last_end is None else self.last_end)
        self.last_end = ended
        busy = (ended - started) / max(since, 1e-9)
        return images, dropped, num_batches, ended - started, busy, time.process_time() - computed

    def _generate(
        self, clone: Clone, shard: int, positions: np.ndarray, saves: list[Future[None]]
    ) -> tuple[list[Future[GeneratedImage]], dict[int, str], int]:
        """Generate images. Return futures of the encoded images, the dropped positions with their reasons, and the
        number of batches; futures that store parts are added to `saves`."""
        plan, spec = clone, clone.spec
        encoded: list[Future[GeneratedImage]] = []
        dropped: dict[int, str] = {}
        num_batches, num_saved, last_part = 0, 0, time.monotonic()
        waiting = sorted(
            map(plan.image, positions.tolist()), key=lambda image: image.prompt
        )  # equal prompts in a row are encoded once
        while waiting:
            again: list[PlannedImage] = []
            for start in range(0, len(waiting), self.batch_size):
                images = waiting[start : start + self.batch_size]
                batch = self._generate_batch(spec, images)
                num_batches += 1
                for image, pixels, flag in zip(images, batch.pixels, batch.flags, strict=False):
                    if not flag or spec.flagged == "keep":
                        encoded.append(self.encoders.submit(_encode, image, pixels, flag, spec.codec))
                    elif spec.flagged == "redraw" and image.redraw < spec.max_redraws:
                        again.append(plan.image(image.position, image.redraw + 1))
                    else:
                        dropped[image.position] = flag
                if time.monotonic() - last_part > PART_SECONDS:
                    saves.append(self.encoders.submit(_save_part, clone, shard, encoded[num_saved:]))
                    num_saved, last_part = len(encoded), time.monotonic()
            waiting = again
        return encoded, dropped, num_batches

    def _generate_batch(self, spec: CloneSpec, images: list[PlannedImage]) -> GeneratedBatch:
        """Generate one batch, filled up to its shape."""
        began = time.monotonic()
        batch = generate_batch(self.generator, spec, images + [images[-1]] * (self.batch_size - len(images)))
        self.moved = time.monotonic()
        self.longest_batch = max(self.longest_batch, self.moved - began)
        return batch


def _save_part(clone: Clone, shard: int, images: list[Future[GeneratedImage]]) -> None:
    """Store the images so far of a slow shard. This runs after their encoding, in the same threads."""
    generated = sorted((future.result() for future in images), key=lambda image: image.planned.position)
    add_to_shard(clone.folder, clone, shard, Shard(shard_table(clone.spec, generated)), place=PARTS)


def _encode(image: PlannedImage, pixels: np.ndarray, flag: str, codec: str) -> GeneratedImage:
    return GeneratedImage(image, encode_image(pixels, codec), flag)


def is_on_mps() -> bool:
    """Return whether this process generates on the GPU of a Mac. This does not load torch."""
    if "torch" not in sys.modules:
        return False
    from raysd.device import find_device

    return find_device(takes_mps=True).type == "mps"


def _gpu_bytes() -> int:
    """Return the peak GPU memory of this process in bytes; 0 without a GPU. This does not load torch."""
    if (torch := sys.modules.get("torch")) is None:
        return 0
    from raysd.device import find_device

    device = find_device()
    return int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else 0


class _Metrics:
    """Counters that Ray serves to Prometheus."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        self.images = Counter("raysd_images", "Images that were generated and committed.")
        self.flagged = Counter("raysd_flagged_images", "Committed images with a flag.")
        self.dropped = Counter("raysd_dropped_images", "Planned images that were dropped.")
        self.rate = Gauge("raysd_images_per_second", "Images per second of one actor, over its last shard.")
        self.busy = Gauge(
            "raysd_busy_share", "Share of the time since its last shard that an actor was generating, 0 to 1."
        )

    def count(self, generated: int, flagged: int, dropped: int, seconds: float, busy: float) -> None:
        """Count one shard."""
        for counter, value in ((self.images, generated), (self.flagged, flagged), (self.dropped, dropped)):
            if value:
                counter.inc(value)
        self.rate.set(generated / max(seconds, 1e-9))
        self.busy.set(busy)
