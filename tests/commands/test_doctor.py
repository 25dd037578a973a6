"""The checks of `raysd doctor` and of each job, on one real node and on a real cluster of two."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lora_files import write_lora

from raysd.diffusion.checkpoint import EMBEDDED

ROOT = Path(__file__).parents[2]
FAST = ["generation.model=dummy", "generation.images_per_class=1", "generation.num_actors=1"]


def failed(finished):
    return [line for line in finished.stdout.splitlines() if line.startswith("failed   ")]


@pytest.mark.slow
def test_a_sound_machine_has_no_failures(ray_cluster, run_here):
    finished = run_here("doctor", "training.num_workers=1")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for word in ("nodes", "room", "node", "storage", "versions", "model", "memory", "disk"):
        assert any(line.startswith(f"{word} ") for line in finished.stdout.splitlines()), word
    assert "works (an estimate for batches of 32)" in finished.stdout
    assert not failed(finished)
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_all_that_is_wrong_is_shown_each_in_one_line(ray_cluster, run_here, monkeypatch):
    monkeypatch.setattr("raysd.storage.location.Location.free_bytes", lambda self: 10**6)
    monkeypatch.setattr("raysd.commands.checkup.find_spec", lambda name: None)
    words = [
        "generation.cpus_per_actor=999",
        "training.num_workers=999",
        "sweep.max_concurrent_trials=999",
        "generation.images_per_class=100000",
    ]
    finished = run_here("doctor", *words)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    fields = [line.split()[1] for line in failed(finished)]
    actors = "generation.num_actors"
    assert sorted(fields) == [actors, actors, "packages", "storage", "training.num_workers"]
    assert "pip install accelerate" in finished.stdout
    assert "5 failures" in finished.stdout and "Traceback" not in finished.stdout + finished.stderr


@pytest.mark.slow
def test_a_model_that_is_nowhere_is_a_failure(ray_cluster, run_here, hub):
    finished = run_here("doctor", "generation.model=nobody/nothing")
    assert finished.returncode == 1
    (line,) = failed(finished)
    assert "generation.model = 'nobody/nothing': is not on the hub, or private" in line


@pytest.mark.slow
def test_of_a_model_that_is_not_here_all_but_its_weights_is_checked_and_none_are_fetched(ray_cluster, run_here, hub):
    hub.repositories["owner/name"] = EMBEDDED
    finished = run_here("doctor", "generation.model=owner/name", "generation.color=gray")
    assert finished.returncode == 0, finished.stdout
    assert "model    owner/name: 6.09 MB would be downloaded to the driver and to each node" in finished.stdout
    assert "weights 0.0 GB, " in finished.stdout and "works (an estimate" in finished.stdout
    assert any(line.startswith("disk ") for line in finished.stdout.splitlines())
    assert hub.fetched and not [name for name in hub.fetched if name.endswith(".safetensors")]


def test_a_clone_that_the_disk_cannot_hold_is_not_begun(run_here, monkeypatch):
    monkeypatch.setattr("raysd.storage.location.Location.free_bytes", lambda self: 10**6)
    monkeypatch.setattr("raysd.cluster.session.ensure_ray", lambda: pytest.fail("Ray was started"))
    finished = run_here("generate", "generation.images_per_class=100000")
    assert (
        finished.returncode == 2
        and finished.stderr.startswith("error: storage = ")
        and finished.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("words", [["doctor", "generation.imges=1"], ["benchmark", "generation.model=no_such_model"]])
def test_bad_input_is_one_line_before_ray_starts(run_here, monkeypatch, words):
    monkeypatch.setattr("raysd.cluster.session.ensure_ray", lambda: pytest.fail("Ray was started"))
    finished = run_here(*words)
    assert finished.returncode == 2 and finished.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_said_in_one_line(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-m", "raysd.cli", "doctor"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "127.0.0.1:1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[-1].startswith("error: RAY_ADDRESS = '127.0.0.1:1': no cluster answers there")


@pytest.fixture
def two_nodes(tmp_path):
    """A cluster of two nodes with one CPU each. The second one has another disk where the storage lies, and another
    timm."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
    ):
        pytest.skip("this user may not give a process mounts of its own")
    from ray.cluster_utils import Cluster

    (tmp_path / "runs").mkdir()
    other = tmp_path / "packages" / "timm-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 0.0.1\n")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", f"--address={cluster.address}", "--num-cpus=1"]
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    script = f'mount -t tmpfs tmpfs "{tmp_path / "runs"}" && exec "$@"'
    environment = {**os.environ, "PYTHONPATH": f"{other.parent}:{ROOT}"}
    environment.pop("RAY_ADDRESS", None)
    node = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", *ray, *ports],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield cluster, node
    node.terminate()
    node.wait(timeout=60)
    cluster.shutdown()


def run_on(cluster, folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
    return subprocess.run(
        [sys.executable, "-m", "raysd.cli", *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.soak
def test_a_node_with_another_disk_and_another_version_is_named_by_doctor_and_stops_a_job(two_nodes, tmp_path):
    cluster, node = two_nodes
    storage = f"storage={tmp_path / 'runs'}"
    deadline = time.monotonic() + 120
    while len(cluster.global_state.node_table()) < 2:
        assert node.poll() is None, node.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    lora = tmp_path / "runs" / "style.safetensors"
    write_lora(lora)
    finished = run_on(
        cluster, tmp_path, "doctor", storage, "generation.cpus_per_actor=2", f"generation.lora=[{{path: {lora}}}]"
    )
    assert finished.returncode == 1 and "2 nodes of 1 CPUs" in finished.stdout, finished.stdout + finished.stderr
    lines = {line.split()[1]: line for line in failed(finished)}
    assert set(lines) == {"generation.num_actors", "generation.lora.path", "storage", "versions.timm"}
    assert (
        f"'{lora}': is not on " in lines["generation.lora.path"]
        and "," not in lines["generation.lora.path"].partition("is not on ")[2].partition(";")[0]
    )
    assert (
        "1 generation actors x 2 CPUs, and there is room for 0 on 2 nodes of 1 CPUs" in lines["generation.num_actors"]
    )
    assert (
        "another disk than the driver’s is there, on " in lines["storage"]
        and "," not in lines["storage"].partition(", on ")[2].partition(";")[0]
    )
    assert "0.0.1 on " in lines["versions.timm"]
    finished = run_on(cluster, tmp_path, "generate", storage, *FAST)
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[-1].startswith(
        f"error: storage = '{tmp_path / 'runs'}': another disk than the driver’s is there, on "
    )
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == [lora]
