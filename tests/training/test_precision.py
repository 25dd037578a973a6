"""`precision: auto` is answered where the work runs, and is the same classifier on every machine."""

import json

import pytest
import torch

from raysd.classifier.architecture import RECORD, load_record
from raysd.config import load_experiment
from raysd.data.real_datasets import real_dataset
from raysd.resolve import clone_spec_of
from raysd.storage.location import Location
from raysd.training.loader import Pool
from raysd.training.loop import SeedTraining
from raysd.training.precision import ANSWERS, agreed_precision
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_here
from raysd.training.workers import OneProcess

TINY = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "stem_stride": 2,
    "num_steps": 4,
    "batch_size": 20,
    "image_size": 8,
    "num_workers": 1,
    "logger": "none",
}


def run_of(root, **changes):
    location = Location(str(root))
    pools = (Pool((real_dataset("digits", "train", location, 2),)),)
    return TrainingRun(location, pools, 10, TrainingSettings(**{**TINY, **changes}))


@pytest.fixture
def machine(monkeypatch):
    """A function that says whether the device at hand multiplies bfloat16, which cannot be had both ways here."""
    return lambda can: monkeypatch.setattr("raysd.device.has_bfloat16", lambda device: can)


def test_the_classifier_is_the_same_on_a_head_without_the_workers_devices(tmp_path, machine):
    machine(False)
    name = run_of(tmp_path).fingerprint(0)
    machine(True)
    assert run_of(tmp_path).fingerprint(0) == name
    train_here(run_of(tmp_path))
    machine(False)
    again = run_of(tmp_path)
    assert load_record(again.folder(0))["precision"] == "bfloat16" and again.fingerprint(0) == name


def write_record(run, seed, **entries):
    run.folder(seed).write(RECORD, json.dumps({**run.record(), **entries}).encode())


@pytest.mark.parametrize("precision", ANSWERS)
def test_a_classifier_of_an_older_raysd_is_found_and_not_trained_again(tmp_path, machine, precision):
    older = run_of(tmp_path, precision=precision)
    record = {name: value for name, value in older.record().items() if name != "asked_precision"}
    older.folder(0).write(RECORD, json.dumps({**record, "precision": precision}).encode())
    machine(precision == "float32")  # the other answer
    run = run_of(tmp_path, seeds=[0, 1])
    assert run.fingerprint(0) == older.fingerprint(0)
    train_here(run)
    assert not older.folder(0).exists("model.safetensors"), "trained again"
    assert load_record(run.folder(1))["precision"] == precision, "seeds of one setting are alike"


def test_a_classifier_whose_format_was_asked_for_by_name_is_another_one(tmp_path):
    named = run_of(tmp_path, precision="float32")
    write_record(named, 0, precision="float32")
    assert run_of(tmp_path).fingerprint(0) != named.fingerprint(0)


def test_of_two_older_classifiers_it_is_the_one_that_this_machine_would_have_trained(tmp_path, machine):
    for precision in ANSWERS:
        older = run_of(tmp_path, precision=precision)
        older.folder(0).write(RECORD, b"{}")
    for can in (False, True):
        machine(can)
        assert run_of(tmp_path).fingerprint(0) == run_of(tmp_path, precision=ANSWERS[can]).fingerprint(0)


def test_a_resumed_training_keeps_the_format_of_its_checkpoint(tmp_path, machine, monkeypatch):
    machine(True)
    step, count = SeedTraining._train_step, []

    def dies(self, *batch):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        step(self, *batch)

    monkeypatch.setattr(SeedTraining, "_train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_here(run_of(tmp_path, checkpoint_steps=2))
    machine(False)
    run = run_of(tmp_path, checkpoint_steps=2)
    train_here(run)
    record = load_record(run.folder(0))
    assert record["precision"] == "bfloat16" and record["resumed_at"] == [2]


def test_trainings_that_are_compared_take_the_first_ones_answer(tmp_path, machine):
    workers, note = OneProcess(Location(str(tmp_path))), Location(str(tmp_path / "sweep"))
    machine(True)
    assert agreed_precision("auto", workers, note) == "bfloat16"
    machine(False)
    assert agreed_precision("auto", workers, note) == "bfloat16"
    assert agreed_precision("auto", workers, None) == agreed_precision("float32", workers, note) == "float32"


def test_the_number_format_of_a_clone_asks_no_machine(machine):
    found = set()
    for can in (False, True):
        machine(can)
        found.add(clone_spec_of(load_experiment(None)).fingerprint)
    assert len(found) == 1


def test_each_device_is_asked_itself(monkeypatch):
    from raysd import device

    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: True)
    assert device.has_bfloat16(torch.device("cpu"))
    asked = []

    class Chosen:
        def __init__(self, chosen):
            asked.append(str(chosen))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(torch.cuda, "device", Chosen)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert device.has_bfloat16(torch.device("cuda", 1)) and asked == ["cuda:1"]
