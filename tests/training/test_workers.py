"""Training in one process: the weights of a Ray Train worker, and checkpoints that survive a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from raysd.classifier.architecture import load_record
from raysd.data.real_datasets import real_dataset
from raysd.storage.location import Location
from raysd.training.loader import Pool
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers, train_here
from raysd.training.workers import OneProcess

TINY = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    "batch_size": 50,
    "image_size": 16,
    "num_workers": 1,
    "logger": "none",
}


def run_of(root, **changes):
    location = Location(str(root))
    return TrainingRun(
        location,
        (Pool((real_dataset("digits", "train", location, 40),)),),
        10,
        TrainingSettings(**{**TINY, "num_epochs": 3, **changes}),
    )


def weights(run, seed):
    return load(run.folder(seed).read("model.safetensors"))


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_last_whole_checkpoint_counts(tmp_path):
    workers = OneProcess(Location(str(tmp_path)))
    assert workers.resume() is None
    for step in (1, 2):
        workers.report({}, {"step": step, "weights": torch.full((3,), float(step))})
    (tmp_path / "checkpoints" / ".000002.pt.tmp").write_bytes(b"torn")  # a kill came while it was written
    state = OneProcess(Location(str(tmp_path))).resume()
    assert state["step"] == 2 and torch.equal(state["weights"], torch.full((3,), 2.0))
    workers.close()
    assert workers.resume() is None


def test_checkpoints_of_an_older_raysd_are_not_read_and_go_in_the_end(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("000007.json", "000007.safetensors"):
        (folder / name).write_bytes(b"of version 0.1.0")
    workers = OneProcess(Location(str(tmp_path)))
    assert workers.resume() is None
    workers.report({}, {"step": 1})
    assert workers.resume() == {"step": 1}
    workers.close()
    assert not list(tmp_path.rglob("0*"))


@pytest.mark.slow
def test_one_process_gives_the_weights_of_one_ray_worker(ray_cluster, tmp_path):
    here, there = run_of(tmp_path / "here", seeds=[0, 1]), run_of(tmp_path / "there", seeds=[0, 1])
    before = signal.getsignal(signal.SIGINT)
    assert train_here(here) == train_classifiers(there, quiet=True)
    assert signal.getsignal(signal.SIGINT) is before  # Ray Train's answer to Ctrl-C must not outlive the training
    for seed in (0, 1):
        assert_same(weights(here, seed), weights(there, seed))


@pytest.mark.slow
def test_a_killed_process_goes_on_and_ends_with_the_weights_of_an_undisturbed_one(tmp_path):
    changes = {"seeds": [0, 1], "num_steps": 60, "checkpoint_steps": 10}
    undisturbed, killed = run_of(tmp_path / "undisturbed", **changes), run_of(tmp_path / "killed", **changes)
    train_here(undisturbed)
    script = f"from test_workers import *; train_here(run_of({str(tmp_path / 'killed')!r}, **{changes!r}))"
    paths = os.pathsep.join(str(Path(__file__).parents[level]) for level in (0, 2))
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths})
    folder = tmp_path / "killed" / "runs" / killed.name / "checkpoints"
    while not list(folder.glob("*.pt")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert load_record(killed.folder(1)) is None
    train_here(killed)
    for seed in (0, 1):
        assert_same(weights(killed, seed), weights(undisturbed, seed))
    assert load_record(killed.folder(0))["resumed_at"] or load_record(killed.folder(1))["resumed_at"]
    assert not list(folder.glob("*"))
