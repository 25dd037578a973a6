"""How fast this cluster's devices generate: a few batches with the experiment's own generator, measured.

As many actors as one node holds generate at the same time, since those of one node share its cores and its memory. Each
works as in a generation job, two shards at once, with encoding and committing, into a folder that is deleted in the
end.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from raysd.clone.clone import Clone
from raysd.clone.plan import ImageCounts, Plan
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import CloneSpec
from raysd.cluster.resources import ResourceRequest, check_room, cluster_nodes
from raysd.errors import UserError, find_user_error
from raysd.generation.actor import GenerationActor
from raysd.generation.cost import device_name, devices_per_actor, guided_steps
from raysd.generation.placement import TASKS_PER_ACTOR, check_dtype, request_actors
from raysd.progress import say
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.row_types.rates import RateKey, RateRow
from raysd.versions import versions

MIN_BATCHES = 3
MIN_SECONDS = 20.0
LEAST_GAIN = 1.03  # of a batch size over half of it, to go on
LARGEST = 4096  # images of a batch
ENOUGH_IMAGES = 10**6  # per class, more than are ever generated here


class Speedometer:
    """The actor that measures."""

    def __init__(self, spec: CloneSpec, batch_size: int, num_threads: int) -> None:
        self.actor = GenerationActor(spec, batch_size, num_threads)
        self.spec = spec
        self.numbers = itertools.count()

    def warm_up(self, batch_size: int) -> str:
        """Generate one batch, which compiles and allocates, and return the device's name.

        Raises:
            UserError: the model cannot be loaded, or the batch does not fit.
        """
        if self.actor.error is not None:
            raise self.actor.error
        self.actor.batch_size = batch_size
        self._generate(0.0, 1)
        return device_name()

    def measure(self, seconds: float, num_batches: int) -> tuple[int, float]:
        """Generate for at least so many seconds and so many batches; return the number of images and the seconds."""
        return self._generate(seconds, num_batches)

    def _generate(self, seconds: float, num_batches: int) -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(TASKS_PER_ACTOR) as threads:
            size = self.actor.batch_size
            clone = Clone.of(Plan(self.spec, ImageCounts(len(self.spec.table), ENOUGH_IMAGES), size), Location(folder))
            began, started = time.monotonic(), itertools.count()

            def work() -> int:
                count = 0
                while next(started) < num_batches or time.monotonic() - began < seconds:
                    count += self.actor.generate_shard(clone, next(self.numbers))["batches"]
                return count

            batches = sum(future.result() for future in [threads.submit(work) for _ in range(TASKS_PER_ACTOR)])
            return batches * size, time.monotonic() - began


def measure_rates(
    spec: CloneSpec,
    settings: GenerationSettings,
    seconds: float = MIN_SECONDS,
    num_batches: int = MIN_BATCHES,
    searches: bool = False,
) -> list[RateRow]:
    """Measure how fast the devices of the largest node generate; Ray has to be connected.

    Args:
        spec: of the clone, for its model, sampler and size.
        settings: batch size, and what each actor holds.
        seconds: to generate at least with each batch size, without start and warm-up.
        num_batches: of each actor at least.
        searches: whether to double the batch size as long as that is faster and fits.

    Returns:
        A result row for each batch size: `images_per_second` of one actor, `device_seconds_per_image`, `start_seconds`.

    Raises:
        UserError: the cluster has no room for an actor, or its GPU none for the first batch.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = cluster_nodes()
    request = request_actors(settings, nodes)
    check_room(nodes, [request])
    check_dtype(spec, request.gpus)
    node = max(nodes, key=lambda node: node.room(request.cpus, request.gpus))
    num_actors = min(request.count, node.room(request.cpus, request.gpus))
    pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
    actor: Any = ray.remote(num_cpus=request.cpus, num_gpus=request.gpus, scheduling_strategy=pinned)(Speedometer)
    began = time.monotonic()
    actors = [actor.remote(spec, settings.batch_size, max(1, int(settings.cpus_per_actor))) for _ in range(num_actors)]

    def measure(batch_size: int) -> Measured:
        devices = _answers([each.warm_up.remote(batch_size) for each in actors])
        warm_seconds = time.monotonic() - began
        results = _answers([each.measure.remote(seconds, num_batches) for each in actors])
        per_actor = sum(count / taken for count, taken in results) / num_actors
        start = max(0.0, warm_seconds - batch_size / per_actor)
        return Measured(batch_size, devices[0], sum(count for count, _ in results), per_actor, start)

    try:
        found = search_sizes(measure, settings.batch_size) if searches else [measure(settings.batch_size)]
    finally:
        for each in actors:
            ray.kill(each)
    found = [replace(each, start_seconds=found[0].start_seconds) for each in found]  # the others found loaded actors
    return [_row(spec, request, num_actors, each) for each in found]


def _answers(calls: list[Any]) -> list[Any]:
    """Return the results of calls of actors; a user's error among them is raised as it was."""
    import ray

    try:
        return ray.get(calls)
    except ray.exceptions.RayTaskError as error:
        if (bad := find_user_error(error)) is None:
            raise
        raise bad from None


@dataclass(frozen=True)
class Measured:
    """What was measured with one batch size."""

    batch_size: int
    device: str
    num_images: int
    per_actor: float
    """Images per second."""
    start_seconds: float


def search_sizes(measure: Callable[[int], Measured], first: int) -> list[Measured]:
    """Measure a batch size, then twice of it, and so on, as long as that is faster and fits."""
    found: list[Measured] = []
    size, best = first, 0.0
    while size <= max(first, LARGEST):
        try:
            found.append(measure(size))
        except UserError as error:
            if not found:
                raise
            say(f"batches of {size}: {error}")
            break
        say(f"batches of {size}: {found[-1].per_actor:.3g} images/s an actor")
        if found[-1].per_actor < LEAST_GAIN * best:
            break
        size, best = 2 * size, found[-1].per_actor
    return found


def _row(spec: CloneSpec, request: ResourceRequest, num_actors: int, measured: Measured) -> RateRow:
    held = devices_per_actor(request.cpus, request.gpus)
    key: RateKey = {
        "device": measured.device,
        "pipeline_key": spec.pipeline_key,
        "image_size": spec.image_size,
        "num_inference_steps": spec.num_inference_steps,
        "guided_steps": guided_steps(spec),
        "scheduler": spec.scheduler,
        "batch_size": measured.batch_size,
        "cpus_per_actor": request.cpus,
        "gpus_per_actor": request.gpus,
        "num_actors": num_actors,
    }
    return {
        "fingerprint": fingerprint(key),
        **key,
        "model": spec.model.name,
        "model_digest": spec.model.digest,
        "guidance_scale": spec.guidance_scale,
        "dtype": spec.dtype,
        "num_images": measured.num_images,
        "images_per_second": measured.per_actor,
        "device_seconds_per_image": held / measured.per_actor,
        "start_seconds": measured.start_seconds,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
