"""The shared pool: clones grow as they are asked for, each image is generated once, and kills cost nothing but time."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pyarrow as pa
import pytest
from living_actors import living_actors
from plans import spec_of

from raysd.clone.clone import plan_clone
from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import read_shard
from raysd.generation.actor import GenerationActor
from raysd.generation.placement import PoolShape
from raysd.generation.shared_pool import GenerationQueue, SharedPool, TrialCounts
from raysd.storage.location import Location

pytestmark = pytest.mark.slow
FAST = {"model": "dummy", "num_inference_steps": 2, "images_per_shard": 16, "batch_size": 8}


def job_of(root, images_per_class, **changes):
    settings = GenerationSettings(**{**FAST, "images_per_class": images_per_class})
    return plan_clone(Location(str(root)), spec_of(**{**FAST, **changes}), settings)


def shard_bytes(job):
    data = job.folder.child("data")
    return {name: data.read(name) for name in data.list_files(".parquet")}


def positions(job):
    rows = pa.concat_tables(
        [read_shard(job.folder, shard, job.spec).table for shard in range(job.num_shards)]
    ).to_pylist()
    return [(row["label"], row["index"]) for row in rows]


def pid_of(name):
    """The process of the first living actor of a class."""
    return next((actor.pid for actor in living_actors(name)), None)


@pytest.fixture(scope="module")
def pool(ray_cluster):
    pool = SharedPool(GenerationSettings(**FAST), PoolShape(2, 0.1, 0.0), 4)
    yield pool
    pool.close()


def test_clones_grow_and_nothing_is_generated_twice(pool, tmp_path):
    counts = []
    for images_per_class in (3, 7, 7, 5):
        job = job_of(tmp_path, images_per_class)
        counts.append(pool.grow(job).num_generated)
    assert counts == [30, 40, 0, 0]
    assert sorted(positions(job_of(tmp_path, 7))) == [(label, index) for label in range(10) for index in range(7)]


def test_an_actor_with_the_real_pipeline_generates_the_bytes_of_this_process(ray_cluster, tmp_path):
    ours, theirs = (job_of(tmp_path / name, 6, model="embedded") for name in ("pool", "here"))
    pool = SharedPool(GenerationSettings(**FAST), PoolShape(1, 0.1, 0.0), 1)
    pool.grow(ours)
    pool.close()
    actor = GenerationActor(theirs.spec, FAST["batch_size"], 1)
    for shard in range(theirs.num_shards):
        actor.generate_shard(theirs, shard)
    assert len(shard_bytes(ours)) == 4 and shard_bytes(ours) == shard_bytes(theirs)


def test_callers_that_want_the_same_clone_take_turns(pool, tmp_path):
    jobs = [job_of(tmp_path, images_per_class) for images_per_class in (4, 6, 6, 2)]
    with ThreadPoolExecutor(4) as callers:
        counts = [summary.num_generated for summary in callers.map(pool.grow, jobs)]
    assert sum(counts) == 60
    assert len(positions(jobs[1])) == len(set(positions(jobs[1]))) == 60


def test_what_is_generated_ahead_is_counted_where_it_is_asked_for(pool, tmp_path):
    before, jobs = pool.num_generated(), [job_of(tmp_path, 2, guidance_scale=scale) for scale in (1.0, 3.0)]
    pool.generate_ahead(jobs)
    assert [pool.grow(job).num_generated for job in jobs] == [20, 20]
    assert pool.num_generated() - before == 40


def test_an_error_reaches_the_one_who_asked(pool, tmp_path):
    job = job_of(tmp_path, 2)
    job.folder.child("data").write("foreign.parquet", b"x")
    with pytest.raises(Exception, match="is no shard of this clone"):
        pool.grow(job)


@pytest.mark.parametrize("victim", ["GenerationActor", "GenerationQueue"])
def test_sigkill_in_mid_run_costs_nothing_but_time(pool, tmp_path, victim):
    job = job_of(tmp_path / "killed", 24, num_inference_steps=200)
    killed = threading.Event()

    def kill():
        while not list((tmp_path / "killed").glob("clones/*/data/train-*.parquet")):
            time.sleep(0.01)
        os.kill(pid_of(victim), signal.SIGKILL)
        killed.set()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    pool.grow(job)
    assert killed.wait(60)
    assert len(positions(job)) == len(set(positions(job))) == 240
    undisturbed = job_of(tmp_path / "undisturbed", 24, num_inference_steps=200)
    pool.grow(undisturbed)
    assert shard_bytes(job) == shard_bytes(undisturbed)


def test_a_closed_pool_holds_nothing(ray_cluster, tmp_path):
    def living():
        return {actor.actor_id for actor in living_actors("Generation")}

    others = living()
    pool = SharedPool(GenerationSettings(**FAST), PoolShape(1, 0.1, 0.0), 1)
    pool.grow(job_of(tmp_path, 1))
    assert len(living() - others) == 2
    pool.close()
    ended = threading.Event()
    for _ in range(200):
        if living() <= others:
            break
        ended.wait(0.05)
    assert living() <= others


class Lender:
    """Stands for a pool of actors: what it was asked to lend."""

    def __init__(self, num_shards):
        self.line, self.lent = SimpleQueue(), None
        for _ in range(num_shards):
            self.line.put(None)

    def lend(self, count):
        self.lent = count


def queue_with(*num_shards):
    """A queue with a pool of three actors for each number of shards that wait, and these pools."""
    queue, pools = GenerationQueue(GenerationSettings(**FAST), PoolShape(3, 1.0, 1.0)), [*map(Lender, num_shards)]
    queue.pools = dict(enumerate(pools))
    return queue, pools


def test_actors_are_lent_to_trials_that_wait_while_generation_is_ahead_and_never_the_last_one():
    queue, pools = queue_with(9, 4)
    queue.count_trials(TrialCounts(running=2, waiting=1, fit=2, actors_each=1.0))
    assert [pool.lent for pool in pools] == [0, 1]
    queue.count_trials(TrialCounts(running=3, waiting=9, fit=2, actors_each=0.5))
    assert [pool.lent for pool in pools] == [2, 2]
    queue.count_trials(TrialCounts(running=2, waiting=0, fit=2, actors_each=1.0))
    assert [pool.lent for pool in pools] == [0, 0]


def test_no_actor_is_lent_while_a_trial_waits_for_images_and_no_further_one_before_the_next_clones_are_there():
    queue, (pool,) = queue_with(9)
    waiting = TrialCounts(running=1, waiting=1, fit=1, actors_each=1.0)
    queue.num_ahead, queue.are_ahead, queue.were_asked = 3, {"a", "b", "c"}, {"a", "b"}
    queue.count_trials(waiting)
    assert pool.lent == 0
    queue.are_ahead.add("d")
    queue.count_trials(waiting)
    assert pool.lent == 1
    queue.were_asked.add("c")
    queue.count_trials(waiting)
    assert pool.lent == 1
    queue.asked[0] = time.monotonic() - 60
    queue.count_trials(waiting)
    assert pool.lent == 0


GIVE_BACK = """
import sys, time
import ray
from raysd.clone.settings import GenerationSettings
from raysd.generation.placement import PoolShape
from raysd.generation.shared_pool import SharedPool, TrialCounts
from test_shared_pool import FAST, job_of

ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)

@ray.remote(num_gpus=2, num_cpus=1)
def train():
    return len(ray.get_gpu_ids())

def share(jobs):
    \"\"\"Whether a GPU was lent to a trial before all was generated, and how much was generated in all.\"\"\"
    before = pool.num_generated()
    pool.generate_ahead(jobs)
    trial = train.options(num_gpus=1).remote()
    while not ray.wait([trial], timeout=0.2)[0]:
        pool.count_trials(TrialCounts(1, 1, 1, 1.0))
    lent_early = pool.num_generated() - before < sum(map(len, jobs))
    return lent_early, sum(pool.grow(job).num_generated for job in jobs)

pool = SharedPool(GenerationSettings(**FAST), PoolShape(2, 0.1, 1.0), 2, 1.0)
first = pool.grow(job_of(sys.argv[1], 3)).num_generated
waited = ray.get(train.remote(), timeout=120)  # holds both GPUs, so that it starts once the pool gave them back
second = pool.grow(job_of(sys.argv[1], 7)).num_generated
slow = [job_of(sys.argv[1], 3, num_inference_steps=150, guidance_scale=1.0 + scale) for scale in range(8)]
print(first, waited, second, *share(slow))
pool.close()
"""


def test_a_pool_gives_its_gpus_back_without_work_or_while_it_is_ahead_and_takes_them_again(tmp_path):
    from pathlib import Path

    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    here = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (here.parent.parent, here, here.parent)))
    command = [sys.executable, "-c", GIVE_BACK, str(tmp_path)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.split() == ["30", "2", "40", "True", "240"]
