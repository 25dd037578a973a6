"""The pool of generation actors: starts them, hands them shards, and parts with those whose device or node fails.

One pool holds the actors of one pipeline. Shards wait in one line, in the order in which they were asked for, and keep
their place there when an actor is lost before it committed them. All this happens in an event loop in a thread of its
own; the caller that asks for a shard gets a future.

Ray Data's actor pools do not part with an actor, avoid a node or take work back from a broken device; so the actors are
held here.
"""

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from raysd.clone.clone import Clone
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import CloneSpec
from raysd.cluster.resources import cluster_nodes, room_for
from raysd.errors import UserError
from raysd.generation.actor import GenerationActor
from raysd.generation.failures import UNKNOWN, Failed, Failures, Place, one_line
from raysd.generation.placement import TASKS_PER_ACTOR, PoolShape
from raysd.generation.sent_clones import SentClone, send_clone
from raysd.storage.location import Location

LOOK_SECONDS = 5.0  # between two looks for nodes that joined
WATCH_SECONDS = 30.0  # between two looks whether an actor moves
MAX_TRIES = 10  # of one shard
# An actor hangs that ends no batch for so many times the longest batch, and for so long at least; while no batch is
# known, for so long.
HANG_BATCHES, HANG_SECONDS, FIRST_BATCH_SECONDS = 20, 1800.0, 12 * 3600.0
PAYS = 5  # times as long as its model loads does an actor work at least, before what it holds is lent
WINDOW = 4096  # shards that wait at a time for a job, so that the driver's memory does not grow with the clone
NUM_SENT = 64  # jobs that stay in Ray's object store
NODE_ID = "ray.io/node-id"


@dataclass(order=True)
class _Item:
    """A shard to be generated; its number is its place in the line."""

    number: int
    clone: Clone = field(compare=False)
    shard: int = field(compare=False)
    row: "Future[dict[str, Any]]" = field(compare=False, default_factory=Future)
    tries: int = field(compare=False, default=0)


@dataclass(eq=False)
class _Employee:
    """An actor of the pool, from its start on."""

    task: "asyncio.Task[None] | None" = None
    load_seconds: float = 0.0
    ready_at: float | None = None
    """When its model was there; None before."""
    leaves: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it ends with the shards that it has."""

    def has_paid(self) -> bool:
        """Return whether it worked long enough for the time that its model took, or never began."""
        return self.ready_at is None or time.monotonic() - self.ready_at >= PAYS * self.load_seconds


class ActorPool:
    """Actors of one pipeline, and the shards that wait for them; Ray has to be connected.

    Args:
        spec: of one of the clones; its pipeline is loaded.
        settings: batch size and threads.
        shape: how many actors, and what each of them holds.
        rest_seconds: all actors stay up while shards are asked for, and for so long after the last one; then they give
            back what they hold, until a shard is asked for again. None: no more actors than shards, until the pool is
            closed.
    """

    def __init__(
        self, spec: CloneSpec, settings: GenerationSettings, shape: PoolShape, rest_seconds: float | None = None
    ) -> None:
        import ray

        self.spec, self.settings, self.shape, self.rest_seconds = spec, settings, shape, rest_seconds
        self.idle_since: float | None = None
        self.num_lent, self.has_lent = 0, False
        self.sent_spec = ray.put(spec)  # once for all actors
        self.failures = Failures()
        self.nodes, self.looked = cluster_nodes(), time.monotonic()
        self.looks: dict[str, asyncio.Task[None]] = {}
        self.known = {node.id for node in self.nodes}
        self.line: asyncio.PriorityQueue[_Item] = asyncio.PriorityQueue()
        self.numbers = itertools.count()
        self.num_in_work = self.num_ready = 0
        self.longest_batch = 0.0
        self.employed: set[_Employee] = set()
        self.clones: OrderedDict[str, SentClone] = OrderedDict()
        self.error: Exception | None = None
        self.folder: Location | None = None
        self.changed, self.is_closed = asyncio.Event(), False
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._manage(),), daemon=True)
        self.thread.start()

    def submit(self, clone: Clone, shard: int) -> "Future[dict[str, Any]]":
        """Ask for a shard. Return a future of its row of statistics (see `GenerationActor.try_shard`), which is done
        once the shard is committed.

        The future raises a UserError when the shard cannot be generated, because the storage is full or no node is
        left; or what the pipeline raised.
        """
        item = _Item(next(self.numbers), clone, shard)
        self.loop.call_soon_threadsafe(self._enter, item)
        return item.row

    def generate(self, items: Iterable[tuple[Clone, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Generate shards; yield each one's index among the items and its row as soon as it is done.

        Raises:
            UserError: as in `submit`.
        """
        done: queue.SimpleQueue[tuple[int, Future[dict[str, Any]]]] = queue.SimpleQueue()
        waiting, num_open = enumerate(items), 0
        while True:
            for place, (clone, shard) in itertools.islice(waiting, WINDOW - num_open):
                num_open += 1
                self.submit(clone, shard).add_done_callback(lambda row, place=place: done.put((place, row)))  # type: ignore[misc]
            if not num_open:
                return
            place, row = done.get()
            num_open -= 1
            yield place, row.result()

    def lend(self, count: int) -> None:
        """Do without so many of the actors, and give back what they hold; at least one stays.

        Actors whose model is not loaded end at once, others with the shards that they have, once they worked `PAYS`
        times as long as their model took to load. A smaller count takes actors again.
        """
        if count != self.num_lent:
            self.num_lent, self.has_lent = count, True
            self.loop.call_soon_threadsafe(self.changed.set)

    def close(self) -> None:
        """End the actors."""
        self.is_closed = True
        self.loop.call_soon_threadsafe(self.changed.set)
        self.thread.join()

    def _enter(self, item: _Item) -> None:
        if self.error is not None:
            item.row.set_exception(self.error)
            return
        self.folder = item.clone.folder
        self.line.put_nowait(item)
        self.changed.set()

    async def _manage(self) -> None:
        try:
            while not self.is_closed:
                if time.monotonic() - self.looked > LOOK_SECONDS:
                    self.nodes, self.looked = cluster_nodes(), time.monotonic()
                self._employ_more()
                wait = LOOK_SECONDS if self.rest_seconds is None else min(LOOK_SECONDS, max(0.1, self.rest_seconds))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), wait)
                self.changed.clear()
        except Exception as error:  # nobody would wait for this thread's error
            self._stop(error)
        await asyncio.gather(*(_cancelled(each) for each in self.employed), return_exceptions=True)

    def _employ_more(self) -> None:
        fit = [node for node in self.nodes if node.room(self.shape.num_cpus, self.shape.num_gpus)]
        if (error := self.error or self.failures.verdict(fit, self.num_ready)) is not None:
            self._stop(error)
            return
        left = [node for node in fit if node.id not in self.failures.avoided]
        most = (
            room_for(left, self.shape.num_cpus, self.shape.num_gpus)
            if self.shape.num_actors is None
            else self.shape.num_actors
        )
        num_shards = self.line.qsize() + self.num_in_work
        if self._rests(num_shards):
            for employee in self.employed:
                _cancelled(employee)  # none is at work, and a shard in the line waits for the next actor
            return
        most = max(1, most - self.num_lent)
        for _ in range(self._num_wanted(most, num_shards) - len(self.employed)):
            employee = _Employee()
            employee.task = asyncio.create_task(self._employ(employee))
            self.employed.add(employee)
        self._dismiss(len(self.employed) - most)

    def _num_wanted(self, most: int, num_shards: int) -> int:
        """Return how many actors there must be; more may be up."""
        if self.rest_seconds is None:
            return min(most, num_shards)
        if not self.has_lent:
            return most if num_shards else 0
        return min(most, -(-num_shards // TASKS_PER_ACTOR))  # those that others hold now load again only for much work

    def _dismiss(self, count: int) -> None:
        """Let actors leave that the pool does without, first those that have not begun."""
        stay = [each for each in self.employed if not each.leaves.is_set()]
        count -= len(self.employed) - len(stay)
        stay.sort(key=lambda each: -1.0 if each.ready_at is None else each.ready_at)
        for employee in [each for each in stay if each.has_paid()][: max(0, count if self.num_lent else 0)]:
            employee.leaves.set()
            if employee.ready_at is None:
                _cancelled(employee)

    def _rests(self, num_shards: int) -> bool:
        """Return whether nothing was to be generated for so long that actors give back what they hold."""
        if num_shards or self.rest_seconds is None:
            self.idle_since = None
            return False
        self.idle_since = self.idle_since or time.monotonic()
        return time.monotonic() - self.idle_since >= self.rest_seconds

    def _stop(self, error: Exception) -> None:
        """Stop generating: all waiting shards fail with the error."""
        self.error = error
        while not self.line.empty():
            self.line.get_nowait().row.set_exception(error)

    async def _employ(self, employee: _Employee) -> None:
        """Start an actor, give it work until it fails or is no longer needed, and end it."""
        import ray
        from ray.exceptions import RayError

        actor, place = self._start_actor(), Place(UNKNOWN, "a node")
        try:
            place, kind, problem = await actor.introduce.remote()
            if place.node in self.failures.avoided:
                return
            if problem:
                raise Failed(kind, UserError.from_json(problem))
            self.failures.begin()
            await self._look_at(place.node)
            employee.load_seconds = await actor.loading_time.remote()
            employee.ready_at = time.monotonic()
            self.num_ready += 1
            try:
                await self._work(actor, place, employee)
            finally:
                self.num_ready -= 1
        except Failed as failure:
            self.failures.fail(place, failure.kind, failure.error)
        except RayError as error:
            if place.node == UNKNOWN or any(
                node.id == place.node for node in cluster_nodes()
            ):  # a node that is gone is no bad node
                self.failures.fail(
                    place,
                    "death",
                    UserError(
                        "node", place.name, f"an actor died there ({str(error).strip().splitlines()[-1].strip()})"
                    ),
                    len(self.employed),
                )
        except Exception as error:  # of looking at the node
            self.failures.fail(place, "device", UserError("node", place.name, one_line(error)))
        finally:
            ray.kill(actor)
            self.employed.discard(employee)
            self.looked = 0.0
            self.changed.set()

    def _start_actor(self) -> Any:
        import ray

        is_whole = self.shape.num_gpus == int(
            self.shape.num_gpus
        )  # parts of GPUs are packed, so that whole ones stay free for others
        options: dict[str, Any] = {"num_cpus": self.shape.num_cpus, "num_gpus": self.shape.num_gpus}
        options |= {"scheduling_strategy": "SPREAD" if is_whole else "DEFAULT", "max_concurrency": TASKS_PER_ACTOR + 1}
        if avoided := [node for node in self.failures.avoided if node != UNKNOWN]:
            options["label_selector"] = {NODE_ID: f"!in({','.join(avoided)})"}
        num_threads = max(1, int(self.settings.cpus_per_actor))
        return ray.remote(max_restarts=0, **options)(GenerationActor).remote(
            self.sent_spec, self.settings.batch_size, num_threads
        )

    async def _look_at(self, node: str) -> None:
        """Check a node that joined late as the first nodes were checked before the start; raises Failed."""
        if node in self.known:
            return
        if node not in self.looks:
            self.looks[node] = asyncio.create_task(asyncio.to_thread(self._survey, node))
        await asyncio.shield(self.looks[node])

    def _survey(self, node: str) -> None:
        from raysd.cluster.preflight import survey_failures
        from raysd.cluster.probe import survey
        from raysd.versions import versions

        found, models = [each for each in cluster_nodes() if each.id == node], self.spec.weights
        assert self.folder is not None  # actors start when a shard is asked for
        if problems := survey_failures(self.folder, survey(found, self.folder, models), versions(), models):
            raise Failed("start", problems[0])

    async def _work(self, actor: Any, place: Place, employee: _Employee) -> None:
        """Hand shards to an actor, as many at once as it may have, until it fails or leaves; its unfinished shards go
        back to the line."""
        work = {asyncio.create_task(self._work_off(actor, place, employee)) for _ in range(TASKS_PER_ACTOR)}
        watch = asyncio.create_task(self._watch(actor, place))
        pending = {*work, watch}
        try:
            while pending - {watch}:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (*work, watch):
                task.cancel()
            await asyncio.gather(*work, watch, return_exceptions=True)

    async def _next_item(self, employee: _Employee) -> _Item | None:
        """Return the next shard of the line; None when the actor leaves."""
        item, leaves = asyncio.create_task(self._take()), asyncio.create_task(employee.leaves.wait())
        try:
            await asyncio.wait({item, leaves}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if item.done():
                self.num_in_work -= 1
                self._enter(item.result())
            raise
        finally:
            leaves.cancel()
            item.cancel()  # a shard that it was about to take stays in the line
        return item.result() if item.done() else None

    async def _take(self) -> _Item:
        item = await self.line.get()
        self.num_in_work += 1
        return item

    async def _work_off(self, actor: Any, place: Place, employee: _Employee) -> None:
        from ray.exceptions import RayTaskError

        while not employee.leaves.is_set() and (item := await self._next_item(employee)) is not None:
            try:
                row = await actor.try_shard_of.remote(self._sent(item.clone), item.shard)
                if row["failure"]:
                    raise Failed("device", UserError("node", place.name, row["failure"]))
            except RayTaskError as error:  # of the program: it would be the same anywhere
                item.row.set_exception(error.as_instanceof_cause())
            except BaseException as error:
                self._take_back(item, error)
                raise
            else:
                self._settle(item, row)
                self.failures.succeed(place)
            finally:
                self.num_in_work -= 1

    @staticmethod
    def _settle(item: _Item, row: dict[str, Any]) -> None:
        if row["error"]:
            item.row.set_exception(UserError.from_json(row["error"]))
        else:
            item.row.set_result(row)

    def _take_back(self, item: _Item, error: BaseException) -> None:
        item.tries += not isinstance(error, asyncio.CancelledError)
        if item.tries >= MAX_TRIES:
            item.row.set_exception(
                RuntimeError(
                    f"shard {item.shard} was begun {MAX_TRIES} times, and each time it failed; the last time: "
                    f"{one_line(error)}"
                )
            )
        else:
            self._enter(item)

    def _sent(self, clone: Clone) -> SentClone:
        """Return the reference of a clone in Ray's object store; a clone is sent to an actor once, however large its
        class table is."""
        name = f"{clone.folder.uri} {clone.images_per_shard} {clone.counts.to_json()}"
        if name not in self.clones:
            self.clones[name] = send_clone(clone)
        self.clones.move_to_end(name)
        while len(self.clones) > NUM_SENT:
            self.clones.popitem(last=False)
        return self.clones[name]

    async def _watch(self, actor: Any, place: Place) -> None:
        """Detect an actor that hangs: it raises no error, and ends no batch."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            waited, longest = await actor.pace.remote()
            self.longest_batch = max(self.longest_batch, longest)
            limit = max(HANG_SECONDS, HANG_BATCHES * self.longest_batch) if self.longest_batch else FIRST_BATCH_SECONDS
            if waited > limit:
                raise Failed(
                    "device", UserError("node", place.name, f"no batch ended in {waited / 60:.0f} minutes there")
                )


def _cancelled(employee: _Employee) -> "asyncio.Task[None]":
    """End an actor at once; return its task."""
    assert employee.task is not None
    employee.task.cancel()
    return employee.task
