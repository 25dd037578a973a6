"""Rounds whose training goes on, and clones that grow when accuracy stalls; without Ray."""

import json
from itertools import pairwise

import pytest
from safetensors.numpy import load_file

import raysd
from raysd.adaptive.actors import Actors
from raysd.adaptive.clock import Clock
from raysd.config import load_experiment
from raysd.generation import generate
from raysd.generation.actor import GenerationActor
from raysd.storage.location import Location
from raysd.storage.rows import ADAPTIVE, ROUND, read_rows
from raysd.training.run import STATE
from raysd.training.train import train_here

SETTINGS = {
    "classes": [str(digit) for digit in range(10)],
    "generation": {"model": "dummy", "guidance_scale": 1, "images_per_class": 6, "images_per_shard": 20},
    "training": {
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
        "image_size": 16,
        "batch_size": 10,
        "num_epochs": 2,
        "num_workers": 1,
        "seeds": [4, 2],
        "precision": "float32",
        "checkpoint_steps": 2,
        "logger": "none",
    },
    "evaluation": {"generated_images_per_class": 2},
    "adaptive": {
        "way": "budgets",
        "num_rounds": 2,
        "first_share": 0.34,
        "training": "continued",
        "patience": 1,
        "max_rounds": 4,
    },
}
PHASES = [("generate", 2), ("train", 1), ("measure", 0)]


def generate_here(clones, shards):
    for number, (clone, missing) in enumerate(zip(clones, shards, strict=True)):
        actor = GenerationActor(clone.spec, 32, 1)
        yield from ({**actor.generate_shard(clone, shard), "clone": number} for shard in missing.tolist())


def generate_clones(clones, generation):
    missing = [clone for clone in clones if not clone.is_complete()]
    return plain(missing, generation, generate=generate_here) if missing else None


plain = generate.generate_clones


@pytest.fixture(scope="module", autouse=True)
def without_ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "generate_clones", generate_clones)
        patch.setattr(Actors, "grow", lambda self, clones: generate_clones(clones, self.experiment.generation))
        patch.setattr(Actors, "train", lambda self, run: train_here(run))
        yield


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    return raysd.adapt({"storage": str(tmp_path_factory.mktemp("continued")), **SETTINGS})


def folder_of(adapted, name):
    return Location(adapted.root.path).child("classifiers", name)


def record_of(adapted, name):
    return json.loads(folder_of(adapted, name).read("record.json"))


def test_each_seed_goes_on_from_its_classifier_of_the_round_before(adapted):
    for before, row in pairwise(adapted.rounds):
        records = [record_of(adapted, name) for name in row["classifiers"]]
        assert [record["start"] for record in records] == before["classifiers"]
        assert [record["seed"] for record in records] == [4, 2]
        assert all(folder_of(adapted, name).exists(STATE) for name in before["classifiers"])
    last = adapted.rounds[-1]["classifiers"]
    assert [classifier.fingerprint for classifier in adapted.classifiers] == last and len(last) == 2
    assert not any(folder_of(adapted, name).exists(STATE) for name in last)


def test_a_clone_that_waits_for_stalls_ends_with_all_images(adapted):
    rows = adapted.rounds
    images = [row["num_images"] for row in rows]
    assert [row["grew"] for row in rows] == [True, *(after > before for before, after in pairwise(images))]
    assert {*images} == {20, 60} and images[-1] == 60 and 3 <= len(rows) <= 4
    stalls = [row["stalls"] for row in rows]
    after_stalls = [row for row, count in zip(rows[1:], stalls, strict=False) if count]
    assert stalls[0] == 0 and all(row["grew"] or row["is_last"] for row in after_stalls)
    assert list(adapted.to_pandas()["grew"]) == [row["grew"] for row in rows]


@pytest.mark.parametrize("deadly", PHASES)
def test_rounds_that_are_killed_go_on_to_the_same_end(adapted, deadly, tmp_path, monkeypatch):
    phase, seen = Clock.phase, []

    def killed(clock, name):
        seen.append(name)
        if (name, seen.count(name) - 1) == deadly:
            raise KeyboardInterrupt
        return phase(clock, name)

    experiment = {**SETTINGS, "storage": str(tmp_path)}
    monkeypatch.setattr(Clock, "phase", killed)
    with pytest.raises(KeyboardInterrupt):
        raysd.adapt(experiment)
    monkeypatch.setattr(Clock, "phase", phase)
    again = raysd.adapt(experiment)
    assert [row["fingerprint"] for row in again.rounds] == [row["fingerprint"] for row in adapted.rounds]
    assert [row["accuracy"] for row in again.rounds] == [row["accuracy"] for row in adapted.rounds]
    assert len(read_rows(again.root, ROUND)) == len(again.rounds) and len(read_rows(again.root, ADAPTIVE)) == 1
    for name in again.row["classifiers"]:
        one, other = (
            load_file(f"{root.path}/classifiers/{name}/model.safetensors") for root in (again.root, adapted.root)
        )
        assert all((one[key] == other[key]).all() for key in one)


def test_nothing_is_made_again_without_need(adapted, monkeypatch):
    monkeypatch.setattr(Actors, "grow", None)
    monkeypatch.setattr(Actors, "train", None)
    assert raysd.adapt({"storage": adapted.root.path, **SETTINGS}).row == adapted.row


def test_the_first_round_is_shared_by_ways_and_a_state_that_was_deleted_is_made_again(adapted):
    (first, *_), names = adapted.rounds, [row["classifiers"] for row in adapted.rounds]
    folder_of(adapted, names[0][0]).delete(STATE)
    settings = {**SETTINGS["adaptive"], "way": "uniform", "patience": None}
    experiment = load_experiment({"storage": adapted.root.path, **SETTINGS}, adaptive=settings)
    answer = raysd.adapt(experiment)
    assert answer.rounds[0]["classifiers"] == first["classifiers"] and len(answer.rounds) == 2
    assert folder_of(adapted, names[0][0]).exists(STATE)
    assert "stalls" not in answer.rounds[0] and [row["grew"] for row in answer.rounds] == [True, True]
    assert record_of(adapted, answer.row["classifiers"][0])["recipe"]["warmup_share"] == 0
