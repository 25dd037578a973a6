"""Faults that a long run meets: a full disk, an object store that fails. The same command ends with the same bytes."""

import os
import subprocess

import pytest
from object_store import FlakyProxy, s3_uri
from plans import spec_of

from raysd.clone.clone import plan_clone
from raysd.clone.settings import GenerationSettings
from raysd.generation.generate import generate_clones
from raysd.storage.location import Location

pytestmark = pytest.mark.slow
FAST = {
    "model": "dummy",
    "color": "gray",
    "num_inference_steps": 2,
    "images_per_class": 6,
    "images_per_shard": 16,
    "batch_size": 8,
}
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


def test_a_clone_on_an_object_store_that_fails_is_whole_and_opens_with_datasets(
    undisturbed, s3_server, tmp_path, run_cli
):
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
    options = {
        "key": "test",
        "secret": "test",
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{s3_server}", "region_name": "us-east-1"},
    }
    files = f"s3://{job.folder.path}/data/*.parquet"
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", storage_options=options, cache_dir=str(tmp_path / "cache")
    )
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
    assert (
        "storage = " in finished.stderr and "free some space" in finished.stderr and "Traceback" not in finished.stderr
    )
    job = plan(small_disk)
    assert set(contents(job).items()) <= set(undisturbed.items())
    # The actor had another shard in work and was ended, perhaps while it wrote: its partial file has a hidden name.
    partials = [name for name in os.listdir(job.folder.child("data").path) if name.endswith(".tmp")]
    assert len(partials) < 2 and all(name.startswith(".") for name in partials)
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert run_here("generate", f"storage={small_disk}", *WORDS, "generation.num_actors=1").returncode == 0
    assert contents(job) == undisturbed
