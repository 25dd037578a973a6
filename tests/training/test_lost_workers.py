"""A training goes on after any number of lost workers, as long as there are checkpoints in between."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from living_actors import living_actors
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from raysd.classifier.architecture import load_record
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.loader import Pool
from raysd.training.loop import equal_parts
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import MAX_FAILURES, train_classifiers
from raysd.training.worker import PROGRESS, FailureCount, take_error

LOST, BROKEN = {0: RayActorError(error_msg="its node died")}, {1: ZeroDivisionError("a bug")}
NOT_WELL = {0: WorkerHealthCheckFailedError("worker 0 is not well", LOST[0])}
TAKEN = {0: RayActorError(error_msg="its node was reclaimed", preempted=True)}


def fail(counted, errors, times):
    for _ in range(times):
        counted.after_exception(None, errors)


def test_failures_with_checkpoints_in_between_are_as_many_as_there_are(tmp_path):
    counted = FailureCount(Location(str(tmp_path)), MAX_FAILURES, 400)
    for _ in range(10):
        fail(counted, LOST, MAX_FAILURES)
        counted.after_report(None, [{}], None)  # no checkpoint
        counted.after_report(None, [{}], "a checkpoint")
    assert take_error(counted.folder) is None


@pytest.mark.parametrize("lost", [LOST, NOT_WELL])
def test_lost_workers_without_a_checkpoint_in_between_end_in_one_line(tmp_path, lost):
    counted = FailureCount(Location(str(tmp_path)), MAX_FAILURES, 400)
    fail(counted, lost, MAX_FAILURES)
    counted.after_report(None, [{}], None)
    counted.folder.write(PROGRESS, b'{"step": 7}')
    with pytest.raises(RuntimeError, match="failed 4 times without a checkpoint in between"):
        fail(counted, lost, 1)
    error = take_error(counted.folder)
    assert error.field == "training.checkpoint_steps" and "\n" not in str(error) and "lost 4 times" in str(error)


@pytest.mark.parametrize("has_earlier_steps", [False, True])
def test_checkpoints_are_no_remedy_for_workers_that_die_before_a_step(tmp_path, has_earlier_steps):
    folder = Location(str(tmp_path)).child("runs", "0123")
    if has_earlier_steps:
        folder.write(PROGRESS, b'{"step": 7}')
    counted = FailureCount(folder, MAX_FAILURES, 400)
    with pytest.raises(RuntimeError):
        fail(counted, NOT_WELL, MAX_FAILURES + 1)
    error = str(take_error(folder))
    assert error.startswith("training = '0123': its workers' processes die before they have done a step, 4 times")
    assert "checkpoint" not in error and "its node died" in error and "\n" not in error


def test_exceptions_that_repeat_are_no_lost_nodes_and_nodes_taken_with_notice_do_not_count(tmp_path):
    counted = FailureCount(Location(str(tmp_path)), MAX_FAILURES, 400)
    fail(counted, TAKEN, 9)
    fail(counted, BROKEN, MAX_FAILURES)
    with pytest.raises(RuntimeError, match="a bug"):
        fail(counted, BROKEN, 1)
    assert take_error(counted.folder) is None


@pytest.mark.parametrize(("batch_size", "world_size", "most"), [(512, 31, 16), (512, 32, 16), (7, 3, 2), (5, 3, 1)])
def test_all_workers_take_as_many_forward_passes_as_the_one_with_the_largest_share(batch_size, world_size, most):
    shares = [batch_size // world_size + (rank < batch_size % world_size) for rank in range(world_size)]
    parts = [equal_parts(share, most, max(shares)) for share in shares]
    assert all(0 < part.stop - part.start <= most for each in parts for part in each)
    assert all(each[-1].stop == share for each, share in zip(parts, shares, strict=True))
    if most > 1:  # batch norm, for which they wait, needs more than one image
        assert len({len(each) for each in parts}) == 1


WORLD = """
import os, sys
import torch, torch.distributed as dist
from raysd import device
from raysd.storage.location import Location
from raysd.training import loop, workers
from raysd.training.precision import agreed_precision
import test_lost_workers as tests

class Waiting(torch.nn.Module):
    "Waits for all workers in each forward pass, as synchronized batch norm does on GPUs."
    def __init__(self, inner):
        super().__init__()
        self.inner, self.count = inner, 0
    def no_sync(self):
        return self.inner.no_sync()
    def forward(self, *views):
        self.count += 1
        dist.all_reduce(torch.ones(1))
        return self.inner(*views)

class Forked(workers.OneProcess):
    def __init__(self, folder, rank):
        super().__init__(folder)
        self.rank, self.world_size = rank, 3
    def wrap(self, network):
        self.waiting = Waiting(torch.nn.parallel.DistributedDataParallel(network, broadcast_buffers=False))
        return self.waiting
    def report(self, metrics, state=None):
        pass

folder = sys.argv[1]
config = tests.loop_of(folder)
children = []
for rank in range(3):
    if (child := os.fork()) == 0:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/met", rank=rank, world_size=3)
        device.has_bfloat16 = lambda chosen: rank != 1
        worker = Forked(Location(folder).child("run"), rank)
        loop.train_seeds(config, worker)
        note = agreed_precision("auto", worker, Location(folder).child("note"))
        os.write(1, f"{rank} {worker.waiting.count} {note}\\n".encode())
        os._exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
sys.exit(max(codes) and 1)
"""


def run_of(root, **changes):
    location = Location(str(root))
    tiny = {"backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, "image_size": 16, "batch_size": 8}
    settings = TrainingSettings(**{**tiny, "num_workers": 2, "logger": "none", "cpus_per_worker": 0.25, **changes})
    return TrainingRun(location, (Pool((real_dataset("digits", "train", location, 40),)),), 10, settings)


def loop_of(folder):
    """Two steps of 7 images on three workers, at most two images a forward pass."""
    from raysd.training.train import _loop_config

    run = run_of(folder, num_workers=1, num_steps=2, batch_size=7, forward_size=2)
    return _loop_config(run, run.name, [0])


@pytest.mark.soak
def test_workers_with_unequal_shares_do_not_wait_for_each_other_and_agree_on_the_number_format(tmp_path, monkeypatch):
    """Three workers on gloo, one of which lacks bfloat16."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (root, root / "tests", Path(__file__).parent)))
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", WORLD, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(done.stdout.splitlines()) == [f"{rank} 4 float32" for rank in range(3)]
    (record,) = [load_record(Location(str(path))) for path in tmp_path.glob("classifiers/*")]
    assert record["precision"] == "float32" and record["asked_precision"] == "auto"


def alive_workers():
    return {actor.pid for actor in living_actors("RayTrainWorker")}


def checkpoints(root):
    return {path.name for path in Path(root.path).glob("runs/*/checkpoint_20*")}


def followed_checkpoints():
    """Marks: checkpoints that were seen and are gone. One is kept, so Ray Train has taken note of a later one."""
    seen = set()

    def marks(root):
        there = checkpoints(root)
        seen.update(there)
        return seen - there

    return marks


def steps_done(root):
    return {path.stat().st_mtime_ns for path in Path(root.path).glob("runs/*/progress.json")}


def kill_workers(root, times, marks, killed, ended):
    """SIGKILL a train worker again and again, whenever there are new `marks`: checkpoints, or steps."""
    before, dead = set(), set()
    while len(killed) < times and not ended.is_set():
        alive = alive_workers() - dead
        if len(alive) == 2 and marks(root) - before:
            before = marks(root)
            os.kill(min(alive), signal.SIGKILL)
            killed.append(min(alive))
            dead |= alive
        time.sleep(0.05)


def train_under_kills(run, times, marks):
    killed, ended = [], threading.Event()
    arguments = (run.root, times, marks, killed, ended)
    killer = threading.Thread(target=kill_workers, args=arguments, daemon=True)
    killer.start()
    try:
        train_classifiers(run, quiet=True)
    finally:
        ended.set()
        killer.join(timeout=60)
    return killed


@pytest.mark.soak
@pytest.mark.timeout(1800)  # each kill costs a start of workers, which takes long on a busy machine
def test_more_kills_than_the_limit_with_checkpoints_in_between_do_not_end_a_training(
    ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr("raysd.training.train.MAX_FAILURES", 1)  # each kill costs half a minute
    run = run_of(tmp_path, num_steps=800, checkpoint_steps=20)
    killed = train_under_kills(run, 2, followed_checkpoints())
    assert len(killed) == 2 and load_record(run.folder(0))["resumed_at"]


@pytest.mark.soak
@pytest.mark.timeout(1800)  # each kill costs a start of workers, which takes long on a busy machine
def test_kills_without_a_checkpoint_in_between_end_a_training_in_one_line(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.training.train.MAX_FAILURES", 1)
    run = run_of(tmp_path, num_steps=100_000, checkpoint_steps=50_000)
    with pytest.raises(UserError, match=r"training\.checkpoint_steps = 50000: workers were lost 2 times") as caught:
        train_under_kills(run, 50, steps_done)
    assert "\n" not in str(caught.value)
