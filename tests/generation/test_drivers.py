"""Several drivers on one clone, in any order of their steps: generating with different counts, growing, repairing,
killed. Without Ray."""

import tempfile
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_of
from stand_in import StandIn, actor_of

from raysd.clone.clone import Clone
from raysd.clone.record import with_earlier
from raysd.clone.scan import check_shards, missing_shards
from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import DATA, PARTS, shard_name
from raysd.clone.verify import find_problem, mend_shards
from raysd.generation.generate import generate_clones
from raysd.storage.location import Location

IMAGES_PER_SHARD = 15  # so that shards hold parts of rounds
PARKED = ("read", "write", "delete", "list_sizes", "exists")


class Killed(BaseException):
    pass


class Driver:
    """A driver in a thread, which runs only while it has its turn."""

    own = threading.local()

    def __init__(self, work):
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.is_done = self.is_killed = self.is_locked = False
        self.error = None
        self.thread = threading.Thread(target=self.run, args=(work,), daemon=True)
        self.thread.start()

    def run(self, work):
        self.own.driver = self
        self.go.acquire()
        try:
            if not self.is_killed:
                work(self)
        except Killed:
            pass
        except Exception as error:
            self.error = error
        self.is_done = True
        self.back.release()

    def park(self):
        """A moment at which others may run; not while this driver has a lock, where they would wait."""
        if self.is_locked:
            return
        self.back.release()
        self.go.acquire()
        if self.is_killed:
            raise Killed

    def step(self):
        self.go.release()
        self.back.acquire()


@pytest.fixture(scope="module", autouse=True)
def parking():
    """Drivers park before each step on the storage."""
    import raysd.storage.change as change

    held = change.held

    @contextmanager
    def watched(folder, name):
        driver = getattr(Driver.own, "driver", None)
        with held(folder, name):
            if driver:
                driver.is_locked = True
            try:
                yield
            finally:
                if driver:
                    driver.is_locked = False

    def parked(method):
        def call(*arguments, **options):
            if driver := getattr(Driver.own, "driver", None):
                driver.park()
            return method(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change, "held", watched)
        for name in PARKED:
            patch.setattr(Location, name, parked(getattr(Location, name)))
        yield


class Parking(StandIn):
    """Parks before each batch."""

    def __init__(self, driver):
        super().__init__()
        self.driver = driver

    def generate(self, spec, images):
        if self.driver is not None:
            self.driver.park()
        return super().generate(spec, images)


def job_of(folder, count):
    return Clone.of(plan_of(count, IMAGES_PER_SHARD), Location(str(folder)))


def generate(folder, count, driver=None, job=None):
    def generate(jobs, shards):
        actor = actor_of(jobs[0], Parking(driver))
        for shard in shards[0].tolist():
            yield {**actor.generate_shard(jobs[0], shard), "clone": 0}

    generate_clones([job or job_of(folder, count)], GenerationSettings(), generate=generate)


def repair(folder, count, driver=None):
    job = with_earlier(job_of(folder, count))
    if problems := [number for number in range(job.num_shards) if find_problem(job, number)]:
        generate(folder, count, driver, mend_shards(job, problems))


ACTIONS = {"generate": generate, "repair": repair}


@settings(max_examples=60)
@given(st.data())
def test_any_order_of_several_drivers_ends_with_the_union(data):
    with tempfile.TemporaryDirectory() as folder:
        wanted = data.draw(
            st.lists(st.tuples(st.sampled_from(sorted(ACTIONS)), st.integers(1, 4)), min_size=2, max_size=3), "drivers"
        )
        there = data.draw(st.sampled_from([0, 2, 4]), "images per class at the start")
        if there:
            generate(folder, there)
            if any(action == "repair" for action, _ in wanted):
                tear(
                    job_of(folder, there),
                    data.draw(st.integers(0, job_of(folder, there).num_shards - 1), "torn shard"),
                )
        drivers = [
            Driver(lambda driver, action=action, count=count: ACTIONS[action](folder, count, driver))
            for action, count in wanted
        ]
        for number, is_killed in data.draw(
            st.lists(st.tuples(st.integers(0, len(drivers) - 1), st.sampled_from([False] * 19 + [True])), max_size=150),
            "steps",
        ):
            if not drivers[number].is_done:
                drivers[number].is_killed |= is_killed
                drivers[number].step()
        for driver in drivers:
            while not driver.is_done:
                driver.step()
        for (action, count), driver in zip(wanted, drivers, strict=True):
            assert driver.error is None, driver.error
            if driver.is_killed:
                ACTIONS[action](folder, count)
        check_union(folder, max(there, *(count for _, count in wanted)))


def tear(job, number):
    with open(job.folder.child(DATA).file(shard_name(number)), "r+b") as file:
        file.truncate(100)


def check_union(folder, count):
    """All that was asked for is there and called complete, once, and as if it had been generated at once."""
    job = job_of(folder, count)
    assert job.is_complete() and not check_shards(job).broken and not len(missing_shards(job))
    complete = job_of(folder, job.read_record().planned_counts[0].default)
    assert not check_shards(complete).broken and not list(job.folder.child(PARTS).list_files())
    with tempfile.TemporaryDirectory() as other:
        at_once = job_of(other, complete.counts.default)
        generate(other, complete.counts.default)
        names = at_once.folder.child(DATA).list_files()
        assert [
            name for name in names if at_once.folder.child(DATA).read(name) != job.folder.child(DATA).read(name)
        ] == []
    assert not [path for path in job.folder.child(DATA).list_files() if path not in names]
