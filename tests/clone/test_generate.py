import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from plans import spec_of

from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import read_shard
from raysd.generation.generate import generate_clones, plan_clone
from raysd.generation.placement import PoolShape
from raysd.generation.shared_pool import StandingPool
from raysd.storage.location import Location

pytestmark = pytest.mark.slow
FAST = {"model": "dummy", "num_inference_steps": 2, "images_per_class": 6, "images_per_shard": 16, "batch_size": 8, "num_actors": 1}


def draw(root, specs=None, **changes):
    settings = GenerationSettings(**{**FAST, **changes})
    jobs = [plan_clone(Location(str(root)), spec, settings) for spec in specs or [spec_of(**{**FAST, **changes})]]
    return jobs, generate_clones(jobs, settings)


@pytest.fixture(scope="module")
def standing_pool(ray_cluster):
    """A diffusion actor that stays up for the tests that only need something drawn."""
    pool = StandingPool(GenerationSettings(**FAST), PoolShape(1, 0.1, 0.0), 1)
    yield pool
    pool.close()


@pytest.fixture
def grow(standing_pool, tmp_path):
    """Draw the tests' clone with an actor that is up already."""

    def run(**changes):
        return standing_pool.grow(plan_clone(Location(str(tmp_path)), spec_of(**FAST), GenerationSettings(**{**FAST, **changes})))

    return run


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "data").glob("train-*"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, ray_cluster):
    """A clone drawn by one actor without any trouble: its root and its jobs."""
    root = tmp_path_factory.mktemp("undisturbed")
    jobs, _ = draw(root)
    return root, jobs[0]


def clone_of(root, job):
    return root / "clones" / job.plan.spec.fingerprint


@pytest.mark.parametrize("model", ["dummy", pytest.param("embedded", marks=pytest.mark.soak)])
def test_same_plan_same_bytes_whatever_the_number_of_actors(ray_cluster, tmp_path, model):
    (one,), _ = draw(tmp_path / "one", model=model)
    draw(tmp_path / "two", model=model, num_actors=2)
    assert len(shard_bytes(clone_of(tmp_path / "one", one))) == 4
    assert shard_bytes(clone_of(tmp_path / "two", one)) == shard_bytes(clone_of(tmp_path / "one", one))


def test_exactly_once_every_planned_image_is_there(undisturbed):
    _, job = undisturbed
    rows = pa.concat_tables([read_shard(job.folder, shard, job.plan.spec).table for shard in range(job.plan.num_shards)]).to_pylist()
    planned = [job.plan.image(position) for position in range(len(job.plan))]
    assert [(row["label"], row["index"], row["seed"], row["prompt"]) for row in rows] == [(p.label, p.index, p.seed, p.prompt) for p in planned]


def test_a_second_run_draws_nothing(undisturbed):
    root, job = undisturbed
    before = {name: (clone_of(root, job) / "data" / name).stat().st_mtime_ns for name in shard_bytes(clone_of(root, job))}
    _, summaries = draw(root)
    assert summaries[0].num_drawn == 0
    assert {name: (clone_of(root, job) / "data" / name).stat().st_mtime_ns for name in before} == before


def test_10x_contains_1x_and_growing_draws_only_what_is_missing(undisturbed, tmp_path, grow):
    _, job = undisturbed
    grow(images_per_class=2)
    small = read_shard(Location(str(clone_of(tmp_path, job))), 0, job.plan.spec).table.to_pylist()
    assert grow().num_drawn == 40
    assert shard_bytes(clone_of(tmp_path, job)) == shard_bytes(clone_of(*undisturbed))
    assert read_shard(Location(str(clone_of(tmp_path, job))), 0, job.plan.spec).table.to_pylist()[: len(small)] == small


def test_a_lost_and_a_torn_shard_are_drawn_again(undisturbed, tmp_path, grow):
    root, job = undisturbed
    grow()
    data = clone_of(tmp_path, job) / "data"
    (data / "train-000001.parquet").unlink()
    torn = data / "train-000002.parquet"
    torn.write_bytes(torn.read_bytes()[:-9])
    assert grow().num_drawn == 32
    assert shard_bytes(clone_of(tmp_path, job)) == shard_bytes(clone_of(root, job))


def test_unequal_counts_and_more_for_one_class(undisturbed, tmp_path, grow):
    _, job = undisturbed
    summary = grow(class_counts={"dress": 9, "bag": 2})
    assert summary.num_images == summary.num_drawn == 8 * 6 + 9 + 2
    grown = grow(class_counts={"dress": 12, "bag": 2})
    assert (grown.num_images, grown.num_drawn) == (62, 3)
    assert grow().num_drawn == 4
    datasets = pytest.importorskip("datasets")
    files = str(clone_of(tmp_path, job) / "data" / "*.parquet")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert sum(key == "dress" for key in loaded["key"]) == 12 and loaded.num_rows == 66


def test_a_smaller_run_that_makes_a_lost_shard_anew_does_not_leave_a_larger_clone_called_complete(undisturbed, tmp_path, grow):
    _, job = undisturbed
    grow()
    (clone_of(tmp_path, job) / "data" / "train-000001.parquet").unlink()
    grow(images_per_class=3)
    record = json.loads((clone_of(tmp_path, job) / "clone.json").read_text())
    assert record["complete"] and record["planned"][0]["default"] == 3
    assert grow().num_drawn == 2  # of the lost shard's 16 pictures 14 are among the first three of each class
    assert shard_bytes(clone_of(tmp_path, job)) == shard_bytes(clone_of(*undisturbed))


def test_a_swapped_shard_is_found_by_reading_back_and_drawn_again(undisturbed, tmp_path, grow):
    root, job = undisturbed
    grow()
    data = clone_of(tmp_path, job) / "data"
    (data / "train-000001.parquet").write_bytes((data / "train-000002.parquet").read_bytes())
    (data / "train-000000.parquet").unlink()
    grow()
    assert shard_bytes(clone_of(tmp_path, job)) == shard_bytes(clone_of(root, job))


def test_two_drivers_on_one_directory_end_with_the_same_bytes(undisturbed, tmp_path, run_cli):
    from concurrent.futures import ThreadPoolExecutor

    root, job = undisturbed
    words = [f"generation.{key}={value}" for key, value in FAST.items()]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: run_cli("generate", f"storage={tmp_path}", *words, RAY_ADDRESS=os.environ["RAY_ADDRESS"]), range(2)))
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    assert shard_bytes(clone_of(tmp_path, job)) == shard_bytes(clone_of(root, job))


def test_one_pool_draws_many_clones_and_they_do_not_mix(undisturbed, tmp_path):
    root, job = undisturbed
    specs = [spec_of(**FAST), spec_of(**FAST, guidance_scale=7.5), spec_of(**{**FAST, "num_inference_steps": 3})]
    _, summaries = draw(tmp_path, specs)
    assert [summary.num_drawn for summary in summaries] == [60, 60, 60]
    clones = [shard_bytes(tmp_path / "clones" / spec.fingerprint) for spec in specs]
    assert clones[0] == shard_bytes(clone_of(root, job))
    assert clones[0] != clones[1] != clones[2]


def test_nothing_is_silent_the_record_and_the_card_count(undisturbed):
    root, job = undisturbed
    record = json.loads((clone_of(root, job) / "clone.json").read_text())
    assert record["complete"] and record["images_per_class"] == 6 and record["flags"] == {} and record["short_classes"] == {}
    assert record["spec"]["guidance_scale"] == 2.0
    assert record["versions"]["torch"]
    card = (clone_of(root, job) / "README.md").read_text()
    assert "60 (6 for each of 10 classes)" in card and "flagged pictures" in card


@pytest.mark.parametrize("model", ["dummy", pytest.param("embedded", marks=pytest.mark.soak)])
def test_sigkill_of_the_driver_then_the_same_command_ends_with_the_same_bytes(ray_cluster, tmp_path, run_here, model):
    slow = {"model": model, "num_inference_steps": 300 if model == "dummy" else 2}  # the dummy has a second or more left when its first shard is there
    (job,), _ = draw(tmp_path / "undisturbed", **slow)
    words = [f"generation.{key}={value}" for key, value in {**FAST, **slow}.items()]
    command = [sys.executable, "-m", "raysd.cli", "generate", f"storage={tmp_path / 'killed'}", *words]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    data = clone_of(tmp_path / "killed", job) / "data"
    deadline = time.monotonic() + 240
    while not list(data.glob("train-*.parquet")):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    finished = run_here("generate", f"storage={tmp_path / 'killed'}", *words)
    assert finished.returncode == 0, finished.stderr
    assert shard_bytes(clone_of(tmp_path / "killed", job)) == shard_bytes(clone_of(tmp_path / "undisturbed", job))


def test_sigkill_of_an_actor_in_mid_run_costs_nothing_but_time(standing_pool, tmp_path):
    import threading

    import ray.util.state

    many = {"images_per_class": 16, "images_per_shard": 10, "num_inference_steps": 100}
    job = plan_clone(Location(str(tmp_path / "undisturbed")), spec_of(**{**FAST, **many}), GenerationSettings(**{**FAST, **many}))
    standing_pool.grow(job)
    others = {actor.pid for actor in ray.util.state.list_actors(filters=[("state", "=", "ALIVE")], detail=True)}
    data = clone_of(tmp_path / "disturbed", job) / "data"
    left = []

    def kill_the_actor():
        while not left:
            for actor in ray.util.state.list_actors(filters=[("state", "=", "ALIVE")], detail=True):
                if "ShardDrawer" in actor.class_name and actor.pid not in others and list(data.glob("train-*.parquet")):
                    os.kill(actor.pid, signal.SIGKILL)
                    left.append(job.plan.num_shards - len(list(data.glob("train-*.parquet"))))
                    return

    killer = threading.Thread(target=kill_the_actor, daemon=True)
    killer.start()
    draw(tmp_path / "disturbed", **many)
    killer.join(timeout=60)
    assert left[0] > 0
    assert shard_bytes(clone_of(tmp_path / "disturbed", job)) == shard_bytes(clone_of(tmp_path / "undisturbed", job))


def test_more_actors_than_the_cluster_holds_are_refused_with_the_arithmetic(ray_cluster, tmp_path):
    from raysd.errors import UserError

    with pytest.raises(UserError, match=r"generation.num_actors = 999: 999 diffusion actors x 1 CPUs, and there is room for . on 1 node of . CPUs"):
        draw(tmp_path, num_actors=999)
