"""Workers that fail each time end a training after a few tries, in one line."""

import os
import signal
import threading
from contextlib import suppress

import psutil
import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupFailedError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training import worker
from raysd.training.loader import Pool
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
LOST = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711")


def run_of(root):
    location = Location(str(root))
    settings = {"backbone_options": SMALL, "num_steps": 2, "image_size": 8, "num_workers": 1, "batch_size": 4}
    pools = (Pool((real_dataset("digits", "train", location, 2),)),)
    return TrainingRun(location, pools, 10, TrainingSettings(**settings, logger="none"))


def raised(error):
    return UserExceptionWithTraceback(error, f"Traceback\n{error}")


def dead():
    """A worker whose process died, as Ray Train says it where a worker was asked how it is."""
    return WorkerHealthCheckFailedError("worker 0 is not well", ActorDiedError())


def test_a_worker_whose_peer_is_gone_did_not_fail_by_itself():
    own = raised(ValueError("bad\nsecond line"))
    assert worker.exceptions_of({0: raised(LOST), 1: own}) == {"ValueError: bad"}
    assert worker.exceptions_of({0: own, 1: ActorDiedError()}) == set()
    assert worker.exceptions_of({0: own, 1: dead()}) == set()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (WorkerGroupError("", {0: raised(ImportError("no module x"))}), "its workers fail: ImportError: no module x; "),
        (WorkerGroupError("", {0: raised(LOST), 1: ActorDiedError()}), "its workers' processes die: "),
        (WorkerGroupError("", {0: dead()}), "its workers' processes die: ActorDiedError: "),
        (ControllerError(WorkerGroupStartupFailedError("x")), "processes died 4 times while they started; "),
        (ControllerError(ActorDiedError()), "a worker's process died as it began; "),
        (ControllerError(RuntimeError("a\nb")), "RuntimeError: a; "),
    ],
)
def test_the_end_of_a_training_is_one_line(error, line):
    found = worker.training_error("0123", error)
    assert line in str(found) and str(found).startswith("training = '0123': ") and "\n" not in str(found)


@pytest.mark.soak
def test_an_exception_that_comes_again_is_not_tried_a_third_time(ray_cluster, tmp_path, monkeypatch):
    tries = tmp_path / "tries"

    def fail(config):
        with tries.open("a") as file:
            file.write("x")
        import no_such_module  # noqa: F401

    monkeypatch.setattr(worker, "train_worker", fail)
    with pytest.raises(UserError, match="its workers fail: ModuleNotFoundError: No module named 'no_such_module'"):
        train_classifiers(run_of(tmp_path), quiet=True)
    assert tries.read_text() == "xx"


def live_workers():
    """The train workers among this process's descendants, without those that end meanwhile."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


@pytest.mark.soak
def test_workers_that_are_killed_whenever_they_start_end_the_training(ray_cluster, tmp_path):
    killed, ended = set(), threading.Event()

    def hunt():
        while not ended.wait(0.02):
            for pid in live_workers() - killed:
                killed.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    hunter = threading.Thread(target=hunt, daemon=True)
    hunter.start()
    try:
        with pytest.raises(UserError, match="its workers' processes die"):
            train_classifiers(run_of(tmp_path), quiet=True)
    finally:
        ended.set()
        hunter.join()
    assert len(killed) == 4
    assert not live_workers()
