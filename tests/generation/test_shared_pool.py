"""The shared pool: clones grow as they are asked for, each image is generated once, and kills cost nothing but time."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from plans import spec_of

from raysd.clone.clone import plan_clone
from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import read_shard
from raysd.generation.actor import GenerationActor
from raysd.generation.placement import PoolShape
from raysd.generation.shared_pool import SharedPool
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
    import ray.util.state

    return next(
        (
            actor.pid
            for actor in ray.util.state.list_actors(filters=[("state", "=", "ALIVE")], detail=True)
            if name in actor.class_name
        ),
        None,
    )


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
    import ray.util.state

    def living():
        actors = ray.util.state.list_actors(filters=[("state", "=", "ALIVE")])
        return {actor.actor_id for actor in actors if actor.class_name in ("GenerationActor", "GenerationQueue")}

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


GIVE_BACK = """
import sys, threading
import ray
from raysd.clone.settings import GenerationSettings
from raysd.generation.placement import PoolShape
from raysd.generation.shared_pool import SharedPool
from test_shared_pool import FAST, job_of

ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)

@ray.remote(num_gpus=2, num_cpus=1)
def train():
    return len(ray.get_gpu_ids())

pool = SharedPool(GenerationSettings(**FAST), PoolShape(2, 0.1, 1.0), 2, 1.0)
first = pool.grow(job_of(sys.argv[1], 3)).num_generated
waited = ray.get(train.remote(), timeout=120)  # holds both GPUs, so that it starts once the pool gave them back
second = pool.grow(job_of(sys.argv[1], 7)).num_generated
print(first, waited, second)
pool.close()
"""


def test_a_pool_without_work_gives_its_gpus_back_and_takes_them_again(tmp_path):
    from pathlib import Path

    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    here = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (here.parent.parent, here, here.parent)))
    command = [sys.executable, "-c", GIVE_BACK, str(tmp_path)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.split() == ["30", "2", "40"]
