"""A standing pool of diffusion actors, for clones that grow while others are trained on.

`raysd.clone.generate` starts a pool for clones that are known beforehand. A sweep asks for more of one clone or another as its trials go on; so its
actors stay up, each with its loaded pipeline, and work off one queue. Clones of another pipeline have actors of their own.

The queue lives in an actor too. It holds nothing that the shards do not say: when it dies, Ray starts it again, and what was asked for is asked again.
"""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysd.clone.actor_pool import TASKS_PER_ACTOR
from raysd.clone.drawer import BatchGenerator, ShardDrawer
from raysd.clone.generate import CloneSummary, check_dtype, generate_clones
from raysd.clone.scan import CloneJob
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import CloneSpec
from raysd.errors import UserError

SPARE_CALLS = 8  # beside the clones that are waited for


@dataclass(frozen=True)
class PoolShape:
    """The actors of one pipeline, and what each of them holds of the cluster."""

    num_actors: int
    num_cpus: float
    num_gpus: float


class StandingPool:
    """The pool as its users see it; it can be sent to other processes.

    Args:
        settings: batch size and threads.
        shape: of the pool.
        num_callers: how many clones are waited for at a time.
        make_generator: draws in the place of the model's pipeline, for measurements.
    """

    def __init__(
        self, settings: GenerationSettings, shape: PoolShape, num_callers: int, make_generator: Callable[[CloneSpec], BatchGenerator] | None = None
    ) -> None:
        import ray

        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=num_callers + SPARE_CALLS)(DrawingQueue)
        self.queue = actor.remote(settings, shape, make_generator)

    def grow(self, job: CloneJob) -> CloneSummary:
        """Draw what is missing of a clone; waits until it is there.

        Raises:
            UserError: the storage is full, or the model cannot be loaded.
        """
        import ray

        summary: CloneSummary = ray.get(self.queue.grow.remote(job))
        return summary

    def draw_ahead(self, jobs: list[CloneJob]) -> None:
        """Draw clones that will be asked for, in this order, while others are trained on; does not wait."""
        self.queue.draw_ahead.remote(jobs)

    def num_drawn(self, timeout: float | None = None) -> int:
        """Pictures so far, those included that were drawn ahead; waits at most `timeout` seconds."""
        import ray

        count: int = ray.get(self.queue.num_drawn.remote(), timeout=timeout)
        return count

    def close(self) -> None:
        """End the actors."""
        import ray

        ray.get(self.queue.close.remote())
        ray.kill(self.queue)


@dataclass
class _Item:
    """A shard to be drawn."""

    job: CloneJob
    shard: int
    row: Future[dict[str, Any]]


@dataclass
class _Line:
    """The shards that wait for the actors of one pipeline."""

    items: "queue.SimpleQueue[_Item]"
    num_actors: int
    """Those that live, or are being started."""


class DrawingQueue:
    """The actor behind a `StandingPool`: hands shards to the diffusion actors, first come, first drawn.

    Two calls for the same clone take turns, so that none draws what the other one is drawing.
    """

    def __init__(self, settings: GenerationSettings, shape: PoolShape, make_generator: Callable[[CloneSpec], BatchGenerator] | None) -> None:
        self.settings, self.shape, self.make_generator = settings, shape, make_generator
        self.lock = threading.Lock()
        self.turns: dict[str, threading.Lock] = {}
        self.lines: dict[str, _Line] = {}
        self.actors: list[Any] = []
        self.ahead: list[ThreadPoolExecutor] = []
        self.drawn: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.total = 0

    def grow(self, job: CloneJob) -> CloneSummary:
        """Draw what is missing of a clone; counts what was drawn ahead since the last call as well."""
        summary = self._grow(job)
        with self.lock:
            num_drawn, seconds = self.drawn.pop(summary.fingerprint, 0), self.seconds.pop(summary.fingerprint, 0.0)
        return replace(summary, num_drawn=num_drawn, seconds=seconds)

    def draw_ahead(self, jobs: list[CloneJob]) -> None:
        """Begin to draw some clones; an error shows when the clone is asked for."""
        if not jobs:
            return
        num_shards = max(1, jobs[0].plan.num_shards)
        clones = ThreadPoolExecutor(1 + TASKS_PER_ACTOR * self.shape.num_actors // num_shards)  # enough that no actor waits
        self.ahead.append(clones)
        for job in jobs:
            clones.submit(self._grow, job)

    def num_drawn(self) -> int:
        """Pictures so far."""
        return self.total

    def close(self) -> None:
        """End the diffusion actors."""
        import ray

        for clones in self.ahead:
            clones.shutdown(wait=False, cancel_futures=True)
        for actor in self.actors:
            ray.kill(actor)

    def _grow(self, job: CloneJob) -> CloneSummary:
        with self.lock:
            turn = self.turns.setdefault(job.plan.spec.fingerprint, threading.Lock())
        with turn:
            (summary,) = generate_clones([job], self.settings, draw=self._draw)
            return summary

    def _draw(self, jobs: list[CloneJob], shards: list[np.ndarray]) -> Iterator[dict[str, Any]]:
        """All shards are waited for before an error is raised, since a clone that is asked for again must not be drawn twice at a time."""
        ((job, numbers),) = zip(jobs, shards, strict=True)  # `_grow` asks for one clone at a time
        line = self._line(job.plan.spec)
        items = [_Item(job, int(shard), Future()) for shard in numbers]
        for item in items:
            line.items.put(item)
        wait([item.row for item in items])
        for item in items:
            row = item.row.result()
            if row["error"]:
                raise UserError(*json.loads(row["error"]))
            yield {**row, "job": 0}

    def _count(self, job: CloneJob, row: dict[str, Any]) -> None:
        name = job.plan.spec.fingerprint
        with self.lock:
            self.total += row["drawn"]
            self.drawn[name] = self.drawn.get(name, 0) + row["drawn"]
            self.seconds[name] = self.seconds.get(name, 0.0) + row["drawing_seconds"]

    def _line(self, spec: CloneSpec) -> _Line:
        """The line of a pipeline; its actors are started when it is first asked for."""
        with self.lock:
            if spec.pipeline_key not in self.lines:
                check_dtype(spec, self.shape.num_gpus)
                line = self.lines[spec.pipeline_key] = _Line(queue.SimpleQueue(), self.shape.num_actors)
                for actor in self._start_actors(spec):
                    dead = threading.Event()
                    for _ in range(TASKS_PER_ACTOR):
                        threading.Thread(target=self._work_off, args=(line, actor, dead), daemon=True).start()
            return self.lines[spec.pipeline_key]

    def _start_actors(self, spec: CloneSpec) -> list[Any]:
        import ray

        is_whole = self.shape.num_gpus == int(self.shape.num_gpus)  # parts of GPUs are packed, so that whole ones stay free for trainings
        options = {"num_cpus": self.shape.num_cpus, "num_gpus": self.shape.num_gpus, "scheduling_strategy": "SPREAD" if is_whole else "DEFAULT"}
        actor = ray.remote(max_restarts=-1, max_task_retries=0, max_concurrency=TASKS_PER_ACTOR, **options)(ShardDrawer)
        num_threads = max(1, int(self.settings.cpus_per_actor))
        started = [actor.remote(spec, self.settings.batch_size, num_threads, self.make_generator) for _ in range(self.shape.num_actors)]
        self.actors += started
        return started

    def _work_off(self, line: _Line, actor: Any, dead: threading.Event) -> None:
        """Hand shards to an actor while it is up. One that cannot be started leaves its shards to the others; the last one fails them, so that nobody waits
        for ever. While Ray starts a lost actor again, which takes as long as its node is away, the others draw what it held."""
        import ray
        from ray.exceptions import ActorUnavailableError, RayActorError

        while True:
            item = None
            try:
                ray.get(actor.__ray_ready__.remote())
                item = line.items.get()
                row = ray.get(actor.try_shard.remote(item.job, item.shard))
            except ActorUnavailableError:
                if item is not None:
                    line.items.put(item)
            except Exception as error:
                if item is not None and not isinstance(error, RayActorError):  # of this shard alone
                    item.row.set_exception(error)
                    continue
                with self.lock:
                    line.num_actors -= not dead.is_set()
                    dead.set()
                    has_others = line.num_actors > 0
                if item is not None and has_others:
                    line.items.put(item)
                if has_others:
                    return
                (item or line.items.get()).row.set_exception(error)
            else:
                self._count(item.job, row)
                item.row.set_result(row)
