"""A shared pool of generation actors, for clones that grow while others are trained on.

`raysd.generation.generate` starts a pool for clones that are known beforehand. A sweep asks for more of one clone or
another as its trials go on; so its actors stay up, each with its loaded pipeline, and work off one line of shards.
When nothing is left to generate for a while, they end, so that others can have their GPUs, and are started again for
the next shard. While generation is ahead, some of them end earlier, for trials that wait (`TrialCounts`). Clones of
another pipeline have actors of their own.

The queue lives in an actor too. It holds nothing that the shards do not say: when it dies, Ray starts it again, and
what was asked for is asked again.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np

from raysd.clone.clone import Clone
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import CloneSpec
from raysd.generation.actor_pool import ActorPool
from raysd.generation.cost import device_seconds
from raysd.generation.generate import CloneSummary, generate_clones
from raysd.generation.placement import TASKS_PER_ACTOR, PoolShape, check_dtype
from raysd.progress import say

REST_SECONDS = 60.0  # without a shard to generate, after which actors give their GPUs back; loading a model takes less
SPARE_CALLS = 8  # beside the clones that are waited for
PATIENCE = 2.0  # seconds, after which a trial waits for its images and not for a look at what is there


@dataclass(frozen=True)
class TrialNote:
    """What a trial that uses the pool does now."""

    label: str
    doing: str
    runs: tuple[str, ...] = ()
    """The folders of the trainings that it runs."""


@dataclass(frozen=True)
class TrialCounts:
    """The trials of a sweep that use the pool, and what those hold that are more than `fit` at once."""

    running: int
    waiting: int
    """For their share of the cluster."""
    fit: int
    """Trials that have room beside all actors."""
    actors_each: float
    """Actors that hold as much as a trial."""

    @property
    def num_lent(self) -> int:
        """Actors that must end, so that all of these trials can run."""
        return ceil(max(0, self.running + self.waiting - self.fit) * self.actors_each)


@dataclass
class Board:
    """What the users of a pool have done so far, and what they do now."""

    images: dict[str, int] = field(default_factory=dict)
    """Generated images, by the fingerprint of their clone."""
    trials: dict[str, TrialNote] = field(default_factory=dict)
    """By the process of the trial."""
    steps: int = 0
    """Of the trainings that ended."""
    skipped_steps: int = 0
    """Of trainings whose classifiers were there."""
    trainings: int = 0
    """Classifiers that were trained and measured, or were there."""

    def since(self, before: "Board") -> "Board":
        """Return what was done after an earlier look."""
        return Board(
            {name: count - before.images.get(name, 0) for name, count in self.images.items()},
            self.trials,
            self.steps - before.steps,
            self.skipped_steps - before.skipped_steps,
            self.trainings - before.trainings,
        )


class SharedPool:
    """The pool as its users see it; it can be sent to other processes.

    Args:
        settings: batch size and threads.
        shape: of the pool.
        num_callers: how many clones are waited for at once.
        rest_seconds: without a shard to generate, after which the actors give back what they hold.
    """

    def __init__(
        self, settings: GenerationSettings, shape: PoolShape, num_callers: int, rest_seconds: float = REST_SECONDS
    ) -> None:
        import ray

        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=num_callers + SPARE_CALLS)(
            GenerationQueue
        )
        self.queue = actor.remote(settings, shape, rest_seconds)

    def grow(self, clone: Clone) -> CloneSummary:
        """Generate the missing images of a clone, and wait until they are there; the errors are those of `grow_all`."""
        return self.grow_all([clone])[0]

    def grow_all(self, clones: list[Clone]) -> list[CloneSummary]:
        """Generate the missing images of some clones at once, and wait until all are there.

        Raises:
            UserError: the storage is full, or the model cannot be loaded.
        """
        import ray

        summaries: list[CloneSummary] = ray.get(self.start_growing(clones))
        return summaries

    def start_growing(self, clones: list[Clone]) -> list[Any]:
        """Start generating the missing images of some clones; return a reference to each clone's summary."""
        return [self.queue.grow.remote(clone) for clone in clones]

    def generate_ahead(self, clones: list[Clone]) -> None:
        """Start generating clones that will be asked for, in this order, while others are trained on; does not wait."""
        self.queue.generate_ahead.remote(clones)

    def num_generated(self, timeout: float | None = None) -> int:
        """Return the number of images so far, including those that were generated ahead; waits at most `timeout`
        seconds."""
        import ray

        count: int = ray.get(self.queue.num_generated.remote(), timeout=timeout)
        return count

    def note(self, note: TrialNote | None, steps: int = 0, skipped_steps: int = 0, trainings: int = 0) -> None:
        """Tell what the trial in this process does now, nothing when None, and what it has done; does not wait."""
        trial = f"{socket.gethostname()}:{os.getpid()}"
        self.queue.note.remote(trial, note, steps, skipped_steps, trainings)

    def count_trials(self, counts: TrialCounts) -> None:
        """Tell which trials run and which wait for resources, every few seconds; does not wait."""
        self.queue.count_trials.remote(counts)

    def board(self, timeout: float | None = None) -> Board:
        """Return what was done so far, and what each trial does now; waits at most `timeout` seconds."""
        import ray

        board: Board = ray.get(self.queue.read_board.remote(), timeout=timeout)
        return board

    def close(self) -> None:
        """End the actors, and report the nodes that were avoided."""
        import ray

        for line in ray.get(self.queue.avoided_nodes.remote()):
            say(line)
        ray.get(self.queue.close.remote())
        ray.kill(self.queue)


class GenerationQueue:
    """The actor behind a `SharedPool`: hands shards to the generation actors, first come, first generated.

    Two calls for the same clone take turns, so that none generates what the other one is generating.
    """

    def __init__(self, settings: GenerationSettings, shape: PoolShape, rest_seconds: float = REST_SECONDS) -> None:
        self.settings, self.shape, self.rest_seconds = settings, shape, rest_seconds
        self.lock = threading.Lock()
        self.turns: dict[str, threading.Lock] = {}
        self.pools: dict[str, ActorPool] = {}
        self.ahead: list[ThreadPoolExecutor] = []
        self.generated: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.total = 0
        self.board = Board()
        self.asked: dict[int, float] = {}
        """Since when each call waits for its clone."""
        self.were_asked: set[str] = set()
        self.are_ahead: set[str] = set()
        """Clones that were generated ahead."""
        self.num_ahead = 0
        """Clones that are to be generated ahead."""
        self.num_lent = 0

    def grow(self, clone: Clone) -> CloneSummary:
        """Generate the missing images of a clone. The count includes images that were generated ahead since the last
        call."""
        with self.lock:
            self.asked[call := threading.get_ident()] = time.monotonic()
            self.were_asked.add(clone.spec.fingerprint)
        try:
            summary = self._grow(clone)
        finally:
            with self.lock:
                del self.asked[call]
        with self.lock:
            num_generated, seconds = (
                self.generated.pop(summary.fingerprint, 0),
                self.seconds.pop(summary.fingerprint, 0.0),
            )
        return replace(summary, num_generated=num_generated, seconds=seconds)

    def generate_ahead(self, clones: list[Clone]) -> None:
        """Start generating some clones; an error is raised only when the clone is asked for."""
        if not clones:
            return
        num_shards = max(1, clones[0].num_shards)
        # Enough threads that no actor waits.
        threads = ThreadPoolExecutor(1 + TASKS_PER_ACTOR * (self.shape.num_actors or 1) // num_shards)
        self.ahead.append(threads)
        with self.lock:
            self.num_ahead += len(clones)
        for clone in clones:
            threads.submit(self._grow_ahead, clone)

    def count_trials(self, counts: TrialCounts) -> None:
        """Lend what some actors hold to trials that wait for resources, while generation is ahead of them."""
        with self.lock:
            self.num_lent = self._num_to_lend(counts)
            left = self.num_lent
            for pool in sorted(self.pools.values(), key=lambda pool: pool.line.qsize()):
                part = min(left, (self.shape.num_actors or 1) - 1)
                pool.lend(part)
                left -= part

    def _num_to_lend(self, counts: TrialCounts) -> int:
        """Return how many actors to do without: none while a trial waits for images, and more only when the next
        clone of each trial is there, or nothing is left to be generated ahead."""
        now = time.monotonic()
        if any(now - since > PATIENCE for since in self.asked.values()):
            return 0
        if not self.num_ahead or len(self.are_ahead - self.were_asked) >= counts.running + counts.waiting:
            return counts.num_lent
        return min(self.num_lent, counts.num_lent)

    def num_generated(self) -> int:
        """Return the number of images so far."""
        return self.total

    def note(self, trial: str, note: TrialNote | None, steps: int, skipped_steps: int, trainings: int) -> None:
        """Note what a trial does now, and what it has done."""
        with self.lock:
            self.board.trials.pop(trial, None)
            if note is not None:
                self.board.trials[trial] = note
            self.board.steps += steps
            self.board.skipped_steps += skipped_steps
            self.board.trainings += trainings

    def read_board(self) -> Board:
        """Return what was done so far, and what each trial does now."""
        with self.lock:
            return replace(self.board, images=dict(self.board.images), trials=dict(self.board.trials))

    def avoided_nodes(self) -> list[str]:
        """Return a line for each node that is avoided."""
        return [line for pool in self.pools.values() for line in pool.failures.lines(pool.nodes)]

    def close(self) -> None:
        """End the generation actors."""
        for clones in self.ahead:
            clones.shutdown(wait=False, cancel_futures=True)
        for pool in self.pools.values():
            pool.close()

    def _grow_ahead(self, clone: Clone) -> None:
        try:
            self._grow(clone)
        finally:
            with self.lock:
                self.num_ahead -= 1
                self.are_ahead.add(clone.spec.fingerprint)

    def _grow(self, clone: Clone) -> CloneSummary:
        with self.lock:
            turn = self.turns.setdefault(clone.spec.fingerprint, threading.Lock())
        with turn:
            (summary,) = generate_clones([clone], self.settings, generate=self._generate)
            return summary

    def _generate(self, clones: list[Clone], shards: list[np.ndarray]) -> Iterator[dict[str, Any]]:
        """Generate shards, and wait for all of them before an error is raised, since a clone that is asked for again
        must not be generated twice at once."""
        ((clone, numbers),) = zip(clones, shards, strict=True)  # `_grow` asks for one clone at a time
        pool = self._pool(clone.spec)
        rows = [pool.submit(clone, int(shard)) for shard in numbers]
        for done in as_completed(rows):
            if done.exception() is None:
                self._count(clone, done.result())
        for row in map(Future.result, rows):
            yield {**row, "clone": 0, "device_seconds": device_seconds(row, self.shape.num_cpus, self.shape.num_gpus)}

    def _count(self, clone: Clone, row: dict[str, Any]) -> None:
        name = clone.spec.fingerprint
        with self.lock:
            self.total += row["generated"]
            self.board.images[name] = self.board.images.get(name, 0) + row["generated"]
            self.generated[name] = self.generated.get(name, 0) + row["generated"]
            self.seconds[name] = self.seconds.get(name, 0.0) + row["generation_seconds"]

    def _pool(self, spec: CloneSpec) -> ActorPool:
        """Return the actors of a pipeline, which are started on the first call."""
        with self.lock:
            if spec.pipeline_key not in self.pools:
                check_dtype(spec, self.shape.num_gpus)
                self.pools[spec.pipeline_key] = ActorPool(spec, self.settings, self.shape, self.rest_seconds)
            return self.pools[spec.pipeline_key]
