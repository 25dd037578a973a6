"""Where processes compute, and how many Ray lets in, on a real Ray with two GPUs that are there in name alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raysd import device
from raysd.device import find_device

ROOT = Path(__file__).parent.parent
ASKING = {"device.py", "training/settings.py"}  # for `precision: auto`, which looks at the machine that starts a training


@pytest.fixture
def cuda(monkeypatch):
    """torch believes that there are GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return monkeypatch


def test_without_a_gpu_it_is_the_cpu_and_a_process_of_one_s_own_takes_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_given_gpus", lambda: None)
    assert find_device() == torch.device("cuda")


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
    asking = {path.relative_to(ROOT / "raysd").as_posix() for path in (ROOT / "raysd").rglob("*.py") if "cuda.is_available" in path.read_text()}
    assert asking <= ASKING


@pytest.fixture(scope="module")
def two_gpus(tmp_path_factory):
    """The address of a cluster with 4 CPUs and 2 GPUs, and a folder."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2, "include_dashboard": False})
    yield cluster.address, tmp_path_factory.mktemp("two_gpus")
    cluster.shutdown()


def run_there(two_gpus, *words):
    address, folder = two_gpus
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address}
    return subprocess.run([sys.executable, *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=120)


WORKERS = """
import json, os, ray, torch
from raysd.nodes import cluster_nodes, room_for

ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=0)
class Worker:
    def __init__(self):
        torch.cuda.is_available = lambda: True

    def device(self):
        from raysd.device import find_device
        return ray.get_gpu_ids(), str(find_device())

    def draws_on(self):
        from raysd.clone.generator import Generator
        from raysd.clone.speed import device_name
        from raysd.clone.spec import resolve_clone_spec
        from raysd.config import load_experiment
        experiment = load_experiment()
        spec = resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants)
        return str(Generator(spec).denoiser.device), device_name()

found = {}
for gpus in (0.6, 0.5, 0.3, 1, 2):
    room = room_for(cluster_nodes(), 0, gpus)
    workers = [Worker.options(num_gpus=gpus).remote() for _ in range(room + 1)]
    answers = [worker.device.remote() for worker in workers]
    ready, late = ray.wait(answers, num_returns=room, timeout=60)
    too_many, _ = ray.wait(late, timeout=0.5)
    found[gpus] = {"room": room, "started": len(ready), "too_many": len(too_many), "devices": sorted(ray.get(ready))}
    for worker in workers:
        ray.kill(worker)
found["none"] = ray.get([Worker.options(num_gpus=0).remote().device.remote() for _ in range(2)])
found["draws_on"] = ray.get(Worker.options(num_gpus=0).remote().draws_on.remote())
unmasked = Worker.options(num_gpus=1, runtime_env={"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}})
workers = [unmasked.remote() for _ in range(2)]
found["unmasked"] = sorted(ray.get([worker.device.remote() for worker in workers]))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def workers(two_gpus):
    """What workers with some GPUs say."""
    finished = run_there(two_gpus, "-c", WORKERS)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "room"), [("0.6", 2), ("0.5", 4), ("0.3", 6), ("1", 2), ("2", 1)])
def test_as_many_workers_start_as_there_is_said_to_be_room_for(workers, gpus, room):
    said = workers[gpus]
    assert (said["room"], said["started"], said["too_many"]) == (room, room, 0)
    on_each = [sum(ids == [gpu] for ids, _ in said["devices"]) for gpu in (0, 1)]
    assert on_each == [room // 2, room // 2] or gpus == "2"
    assert {device for _, device in said["devices"]} == {"cuda:0"}  # of those that Ray lets it see


@pytest.mark.slow
def test_workers_without_a_gpu_do_not_pile_up_on_the_first_one(workers):
    assert workers["none"] == [[[], "cpu"]] * 2
    denoiser, name = workers["draws_on"]
    assert denoiser == "cpu" and name.startswith("CPU core, ")


@pytest.mark.slow
def test_where_ray_hides_no_gpu_each_worker_takes_its_own(workers):
    assert workers["unmasked"] == [[[0], "cuda:0"], [[1], "cuda:1"]]


@pytest.mark.slow
def test_a_benchmark_with_parts_of_gpus_begins_with_those_that_fit(two_gpus):
    words = ["generation.model=dummy", "generation.gpus_per_actor=0.6", "generation.images_per_class=2"]
    script = "import sys; from raysd.clone import speed; speed.measure_rate.__defaults__ = (0.0, 1); from raysd.cli import main; main()"
    finished = run_there(two_gpus, "-c", script, "benchmark", *words)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "2 together" in finished.stdout


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, 0.6])
def test_a_clone_is_generated_with_parts_of_gpus_and_without_any(two_gpus, gpus):
    words = ["generation.model=dummy", f"generation.gpus_per_actor={gpus}", f"generation.seed={int(10 * gpus)}", "generation.images_per_shard=50"]
    finished = run_there(two_gpus, "-m", "raysd.cli", "generate", *words)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "1,000 pictures, 1,000 drawn now" in finished.stdout and f"with {2 if gpus else 4} actors" in finished.stdout


@pytest.mark.slow
def test_more_actors_than_the_devices_hold_are_refused(two_gpus):
    finished = run_there(two_gpus, "-m", "raysd.cli", "generate", "generation.model=dummy", "generation.gpus_per_actor=0.6", "generation.num_actors=3")
    assert finished.returncode == 2
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert "3 diffusion actors x 1 CPUs and 0.6 GPUs, and there is room for 2 on 1 node of 4 CPUs and 2 GPUs" in line
