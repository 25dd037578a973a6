"""Where processes compute, and how many Ray lets in, on a real Ray with two GPUs that are there in name alone."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from raysd import device
from raysd.clone.settings import GenerationSettings
from raysd.cluster.resources import Node
from raysd.device import find_device
from raysd.errors import UserError
from raysd.generation.actor import is_on_mps
from raysd.generation.cost import device_name
from raysd.generation.placement import check_dtype, request_actors

ROOT = Path(__file__).parent.parent
ASKING = {"device.py", "training/precision.py"}  # which takes, of two older classifiers, the one of this machine


@pytest.fixture
def cuda(monkeypatch):
    """torch believes that there are GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return monkeypatch


def test_without_a_gpu_it_is_the_cpu_and_a_process_of_your_own_takes_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_given_gpus", lambda: None)
    assert find_device() == torch.device("cuda")


def test_the_gpu_of_a_mac_is_taken_by_work_that_can_use_it_and_by_no_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert (find_device(), find_device(takes_mps=True)) == (torch.device("cpu"), torch.device("mps"))
    assert is_on_mps() and device_name() == "CPU core, Apple GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_given_gpus", lambda: None)
    assert find_device(takes_mps=True) == torch.device("cuda") and not is_on_mps()


def test_one_actor_generates_on_a_mac_in_half_precision_and_one_on_each_core_elsewhere(monkeypatch):
    nodes, asked = [Node("a", "here", 8.0)], GenerationSettings()
    half = types.SimpleNamespace(dtype="float16")
    assert request_actors(asked, nodes).count == 8
    with pytest.raises(UserError, match="needs GPUs"):
        check_dtype(half, 0.0)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert request_actors(asked, nodes).count == 1
    assert request_actors(GenerationSettings(num_actors=2), nodes).count == 2
    check_dtype(half, 0.0)


@pytest.mark.parametrize(
    ("given", "visible", "expected"),
    [
        ([], "", "cpu"),
        ([], "0,1", "cpu"),
        (["1"], "1", "cuda:0"),
        (["1"], "", "cuda:1"),
        (["3"], "2,3", "cuda:1"),
        (["GPU-ab"], "GPU-cd,GPU-ab", "cuda:1"),
        (["0", "1"], "0,1", "cuda:0"),
    ],
)
def test_a_worker_takes_the_gpu_that_ray_gave_to_it_and_none_without_one(cuda, given, visible, expected):
    cuda.setattr(device, "_given_gpus", lambda: given)
    cuda.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert str(find_device()) == expected


def test_no_other_module_chooses_a_gpu_by_itself():
    asking = {
        path.relative_to(ROOT / "raysd").as_posix()
        for path in (ROOT / "raysd").rglob("*.py")
        if "cuda.is_available" in path.read_text()
    }
    assert asking <= ASKING


SCRIPT = """
import json, ray
from raysd import commands
from raysd.commands.show import show_generate
from raysd.generation.throughput import measure_rates
from raysd.clone.spec import resolve_clone_spec
from raysd.config import load_experiment
from raysd.progress import shown_lines
from raysd.resolve import clone_spec_of
from raysd.cluster.resources import cluster_nodes, room_for
from raysd.cluster.session import ensure_ray

ensure_ray()

@ray.remote(num_cpus=0)
class Worker:
    def gpus(self):
        return ray.get_gpu_ids()

    def device(self):
        import torch
        from raysd.device import find_device
        torch.cuda.is_available = lambda: True
        return ray.get_gpu_ids(), str(find_device())

    def computes_on(self):
        from raysd.generation.pipeline import Generator
        from raysd.generation.throughput import device_name
        return self.device()[1], str(Generator(spec_of()).denoiser.device), device_name()

def spec_of(*words):
    experiment = load_experiment(None, words)
    return clone_spec_of(experiment)

found = {}
for gpus in (0.6, 0.4, 2):
    room = room_for(cluster_nodes(), 0, gpus)
    workers = [Worker.options(num_gpus=gpus).remote() for _ in range(room + 1)]
    ready, late = ray.wait([worker.gpus.remote() for worker in workers], num_returns=room, timeout=60)
    too_many, _ = ray.wait(late, timeout=0.5)
    found[str(gpus)] = {"room": room, "ids": sorted(ray.get(ready)), "too_many": len(too_many)}
    for worker in workers:
        ray.kill(worker)
found["without"] = ray.get(Worker.options(num_gpus=0).remote().computes_on.remote())
unmasked = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
workers = [Worker.options(num_gpus=1, runtime_env=runtime).remote() for runtime in ({}, unmasked)]
found["whole"] = ray.get([worker.device.remote() for worker in workers])
for worker in workers:
    ray.kill(worker)
words = ["generation.model=dummy", "generation.gpus_per_actor=0.6", "generation.images_per_shard=50"]
found["measured"] = measure_rates(spec_of(*words), load_experiment(None, words).generation, 0.0, 1)[0]["num_actors"]
with shown_lines():
    show_generate(commands.generate(load_experiment(None, words)))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a driver sees of a cluster with 4 CPUs and 2 GPUs, and what it says."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2, "include_dashboard": False})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
    folder = tmp_path_factory.mktemp("two_gpus")
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )
    cluster.shutdown()
    assert finished.returncode == 0, finished.stdout + finished.stderr
    *said, last = finished.stdout.splitlines()
    return {**json.loads(last), "said": said}


@pytest.mark.soak
@pytest.mark.parametrize(("gpus", "ids"), [("0.6", [[0], [1]]), ("0.4", [[0], [0], [1], [1]]), ("2", [[0, 1]])])
def test_as_many_workers_start_as_there_is_said_to_be_room_for(found, gpus, ids):
    assert found[gpus] == {"room": len(ids), "ids": ids, "too_many": 0}


@pytest.mark.slow
def test_a_worker_without_a_gpu_computes_on_the_cpu_where_others_have_gpus(found):
    device, denoiser, name = found["without"]
    assert device == denoiser == "cpu" and name.startswith("CPU core, ")


@pytest.mark.slow
def test_each_worker_takes_the_gpu_that_it_was_given_also_where_ray_hides_none(found):
    (first, seen_alone), (second, seen_among_all) = found["whole"]
    assert {first[0], second[0]} == {0, 1}
    assert seen_alone == "cuda:0" and seen_among_all == f"cuda:{second[0]}"


@pytest.mark.slow
def test_a_benchmark_and_a_clone_with_parts_of_gpus_begin_with_the_actors_that_fit(found):
    assert found["measured"] == 2
    assert "generating 20 shards of 1 clones, 1,000 images, with 2 actors" in found["said"]
    assert any("1,000 images, 1,000 generated now" in line for line in found["said"])
