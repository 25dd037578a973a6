"""Faults that a long run meets: killed nodes, a full disk, an object store that fails. The same command ends with the same bytes."""

import io
import os
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest
from object_store import FlakyProxy, s3_uri
from test_plan import spec_of

from raysd.clone.generate import generate_clones, plan_clone
from raysd.clone.settings import GenerationSettings
from raysd.storage.location import Location

pytestmark = pytest.mark.slow
FAST = {"num_inference_steps": 2, "images_per_class": 6, "images_per_shard": 16, "batch_size": 8}
WORDS = [f"generation.{key}={value}" for key, value in FAST.items()]


def plan(root):
    return plan_clone(Location(str(root)), spec_of(**FAST), GenerationSettings(**FAST))


def contents(job):
    data = job.folder.child("data")
    return {name: data.read(name) for name in data.list_files()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, ray_cluster):
    job = plan(tmp_path_factory.mktemp("undisturbed"))
    generate_clones([job], GenerationSettings(**FAST))
    return contents(job)


def test_a_clone_on_an_object_store_that_fails_is_whole_and_opens_with_datasets(undisturbed, s3_server, tmp_path, run_cli):
    proxy = FlakyProxy(s3_server, 15)
    finished = run_cli("generate", f"storage={s3_uri(proxy.port, 'raysd')}", *WORDS)
    proxy.stop()
    assert finished.returncode == 0, finished.stderr
    assert proxy.failures > 3
    job = plan(s3_uri(s3_server, "raysd"))
    assert contents(job) == undisturbed
    names = [info.base_name for info in job.folder.filesystem.get_file_info(_everything(job))]
    assert not [name for name in names if "tmp" in name]
    datasets = pytest.importorskip("datasets")
    options = {"key": "test", "secret": "test", "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{s3_server}", "region_name": "us-east-1"}}
    files = f"s3://{job.folder.path}/data/*.parquet"
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", storage_options=options, cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 60 and loaded[0]["image"].size == (32, 32)


def _everything(job):
    from pyarrow import fs

    return fs.FileSelector(job.folder.path, recursive=True)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own with 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_said_in_one_line_and_nothing_torn_is_left(undisturbed, small_disk, run_here):
    finished = run_here("generate", f"storage={small_disk}", *WORDS, "generation.num_actors=1")
    assert finished.returncode == 2, finished.stderr
    assert "storage = " in finished.stderr and "free some space" in finished.stderr and "Traceback" not in finished.stderr
    job = plan(small_disk)
    assert set(contents(job).items()) <= set(undisturbed.items())
    assert not [name for name in os.listdir(job.folder.child("data").path) if name.endswith(".tmp")]
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert run_here("generate", f"storage={small_disk}", *WORDS, "generation.num_actors=1").returncode == 0
    assert contents(job) == undisturbed


class Nodes:
    """A cluster whose nodes of one CPU join and die, and a process that draws on it."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = []

    def join(self):
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def kill_oldest(self):
        self.nodes.pop(0).kill_raylet()

    def start(self, *words):
        environment = {**os.environ, "RAY_ADDRESS": self.cluster.address, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait_until(self, is_true):
        deadline = time.monotonic() + 240
        while not is_true():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def draws_on_newest(self):
        raylet = self.nodes[-1].all_processes["raylet"][0].process
        return any("ShardDrawer" in " ".join(child.cmdline()) and "__init__" not in child.cmdline()[0] for child in psutil.Process(raylet.pid).children())


@pytest.fixture(scope="module")
def nodes():
    nodes = Nodes()
    yield nodes
    nodes.cluster.shutdown()


def shards_of(root):
    return len(list(root.glob("clones/*/data/train-*.parquet")))


def test_a_pool_grows_onto_a_node_that_joins_and_goes_on_with_what_is_left(nodes, undisturbed, tmp_path):
    nodes.join()
    nodes.start("-m", "raysd.cli", "generate", f"storage={tmp_path}", *WORDS, "generation.images_per_class=60", "generation.images_per_shard=4")
    nodes.wait_until(lambda: shards_of(tmp_path))
    nodes.join()
    nodes.wait_until(nodes.draws_on_newest)
    nodes.kill_oldest()
    left = 150 - shards_of(tmp_path)
    output = nodes.process.communicate(timeout=300)[0]
    assert nodes.process.returncode == 0, output
    assert left > 0
    settings = GenerationSettings(**{**FAST, "images_per_class": 60, "images_per_shard": 4})
    job = plan_clone(Location(str(tmp_path)), spec_of(**FAST), settings)
    hashes = _hashes(contents(job))
    assert len(hashes) == len(set(hashes)) == 600
    assert hashes[:60] == _hashes(undisturbed)


POOL = """
import sys
from raysd.session import ensure_ray
from test_standing_pool import job_of, positions
from raysd.clone.settings import GenerationSettings
from raysd.clone.standing_pool import PoolShape, StandingPool
ensure_ray()
pool, job = StandingPool(GenerationSettings(batch_size=8), PoolShape(2, 1.0, 0.0), 1), job_of(sys.argv[1], 60)
pool.grow(job)
assert sorted(positions(job)) == [(label, index) for label in range(10) for index in range(60)]
pool.close()
"""


def test_a_standing_pool_goes_on_without_a_node_that_is_lost_for_good(nodes, tmp_path):
    while len(nodes.nodes) < 2:
        nodes.join()
    nodes.start("-c", POOL, str(tmp_path))
    nodes.wait_until(lambda: shards_of(tmp_path) >= 2 and nodes.draws_on_newest())
    nodes.kill_oldest()
    left = 38 - shards_of(tmp_path)
    output = nodes.process.communicate(timeout=300)[0]
    assert nodes.process.returncode == 0, output
    assert left > 0


def _hashes(files):
    return [value for name in sorted(files) for value in pq.read_table(io.BytesIO(files[name]))["sha256"].to_pylist()]
