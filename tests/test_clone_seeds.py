"""Several clone seeds: a clone for each, and the classifier seeds spread over them."""

from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd import commands
from raysd.commands.checks import checked_runs
from raysd.commands.show import show_compare, show_generate, show_plan
from raysd.config import load_experiment, validate_experiment
from raysd.data.images import ImageSet
from raysd.errors import UserError
from raysd.generation import generate
from raysd.generation.actor import GenerationActor
from raysd.resolve import clone_images, clone_of, clone_spec_of, clones_of, replicates, source_generations
from raysd.storage.location import Location
from raysd.storage.rows import RUNG_RESULT, read_rows
from raysd.sweep.rung import RungRunner
from raysd.sweep.space import experiment_at, identity_at, list_settings, rungs_of, sweep_fingerprint
from raysd.training.loader import Pool
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_here

SETS = SimpleNamespace(sets=[])
TINY = {
    "classes": [str(digit) for digit in range(10)],
    "generation": {"model": "dummy", "images_per_class": 3, "seeds": [5, 2], "images_per_shard": 20},
    "training": {
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
        "image_size": 16,
        "batch_size": 10,
        "num_epochs": 1,
        "num_workers": 1,
        "seeds": [7, 3, 9],
        "precision": "float32",
        "logger": "none",
    },
    "evaluation": {"test_set": "digits", "validation_set": None},
}


def generate_here(clones, shards):
    for number, (clone, missing) in enumerate(zip(clones, shards, strict=True)):
        actor = GenerationActor(clone.spec, 32, 1)
        yield from ({**actor.generate_shard(clone, shard), "clone": number} for shard in missing.tolist())


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment of two clone seeds and three classifier seeds, whose commands need no Ray."""
    monkeypatch.setattr(generate, "generate_clones", partial(generate.generate_clones, generate=generate_here))
    monkeypatch.setattr("raysd.training.train.train_classifiers", train_here)
    return validate_experiment({**TINY, "storage": str(tmp_path)})


SEEDS = st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True)


@given(SEEDS, st.just([]) | SEEDS)
def test_each_classifier_seed_learns_from_one_clone_in_turn(seeds, clone_seeds):
    experiment = validate_experiment({"training": {"seeds": seeds}, "generation": {"seed": 100, "seeds": clone_seeds}})
    parts = replicates(experiment)
    assert sorted(seed for part in parts for seed in part.training.seeds) == sorted(seeds)
    assert [part.generation.seed for part in parts] == (clone_seeds[: len(seeds)] or [100])
    assert not any(part.generation.seeds for part in parts)
    for number, part in enumerate(parts):
        assert part.training.seeds == [
            seed for place, seed in enumerate(seeds) if place % max(1, len(clone_seeds)) == number
        ]


def test_one_clone_seed_is_named_as_ever():
    for changes, sweep, identity, clone in (
        ([], "a2f0d79f6fc8e35a", "70383aa6a77d82bc", "16d751027ced17ca"),
        (["generation.seed=7"], "8327a1ad3e43a0b6", "7afc457538d0a8d9", "faf699587f245ecb"),
        (
            ["training.sources=[{clone: {}},{clone: {guidance_scale: 4}}]"],
            "1449db6a482182f5",
            "c39662b402c1d9b9",
            "16d751027ced17ca",
        ),
    ):
        experiment = load_experiment(None, ["training.precision=float32", *changes])
        assert sweep_fingerprint(experiment, SETS) == sweep
        assert identity_at(experiment, list_settings(experiment)[0]) == identity
        assert clone_spec_of(experiment).fingerprint == clone


def test_a_sweep_is_named_by_its_clone_seeds_and_each_setting_has_the_same():
    names = {
        sweep_fingerprint(load_experiment(None, [f"generation.seeds={seeds}"]), SETS)
        for seeds in ("[]", "[0]", "[0,1]", "[1,0]")
    }
    assert len(names) == 4
    experiment = load_experiment(None, ["generation.seeds=[4,6]", "training.seeds=[0,1,2]"])
    (rung,) = rungs_of(experiment)
    settings = list_settings(experiment)
    seeds = [
        [part.generation.seed for part in replicates(experiment_at(experiment, setting, rung))] for setting in settings
    ]
    assert len(settings) > 1 and seeds == [[4, 6]] * len(settings)
    one_seed = rung.model_copy(update={"num_seeds": 1})
    assert [part.generation.seed for part in replicates(experiment_at(experiment, settings[0], one_seed))] == [4]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (["generation.seeds=[1,1]"], "generation.seeds"),
        (["generation.seeds=[-1]"], "generation.seeds.0"),
        (["sweep.space={generation: {seeds: [[0], [1]]}}"], "sweep.space"),
        (["training.sources=[{clone: {seeds: [1, 2]}}]"], "training.sources.0.clone.seeds"),
    ],
)
def test_bad_clone_seeds_are_refused(changes, field):
    with pytest.raises(UserError) as error:
        list(source_generations(load_experiment(None, changes)))
    assert error.value.field == field


def test_the_commands_work_on_every_clone_and_compare_counts_them(experiment, capsys):
    planned = commands.plan(experiment)
    show_plan(planned)
    assert "clone seeds   5, 2" in capsys.readouterr().out and planned.num_missing_shards == 2
    made = commands.generate(experiment)
    show_generate(made)
    shown = capsys.readouterr().out
    assert all(shown.count(clone.path) >= 2 for clone in made.clones)
    for clone, seed in zip(made.clones, (5, 2), strict=True):
        alone = load_experiment(experiment, [f"generation.seed={seed}", "generation.seeds=[]"])
        assert clone.path == clone_of(alone).folder.uri
    assert [clone.num_generated for clone in made.clones] == [30, 30]
    assert [clone.num_images for clone in commands.grow(experiment, to=4).clones] == [40, 40]
    assert commands.growth_target(experiment, 2) == 6
    (second,) = commands.verify(experiment).others
    assert second.is_whole
    data = second.clone.folder.child("data")
    data.write(data.list_files(".parquet")[0], b"torn")
    broken = commands.verify(experiment)
    assert not broken.is_whole and not broken.problems and broken.others[0].problems
    assert commands.verify(experiment, repair=True).is_whole
    with pytest.raises(UserError, match=r"generation\.seeds = \[5, 2\]: an export holds one clone"):
        commands.export(experiment)

    trained = commands.train(experiment)
    assert [classifier.seed for classifier in trained] == [7, 3, 9]
    learned_from = [classifier.record["trained_on"]["fingerprint"] for classifier in trained]
    assert learned_from == [made.clones[number].fingerprint for number in (0, 1, 0)]
    own = load_experiment(experiment, ["generation.seeds=[]", "generation.seed=5", "training.seeds=[9]"])
    assert [classifier.fingerprint for classifier in commands.train(own)] == [trained[2].fingerprint]
    rows = list(commands.evaluate(experiment))
    assert [row["classifier"] for row in rows] == [each.fingerprint for each in trained]

    other = load_experiment(experiment, ["training.num_epochs=2"])
    commands.train(other)
    both = commands.compare(experiment, other)
    first, other_clone, last = (row["value"] for row in rows)
    assert both.rows[0]["a"]["top1"] == pytest.approx(((first + last) / 2 + other_clone) / 2)  # of one clone: as one
    show_compare(both)
    assert [row["num_clone_seeds"] for row in both] == [2] and "one clone seed" not in capsys.readouterr().out
    mixed = load_experiment(experiment, ["generation.seeds=[2]", "training.seeds=[3,7]"])
    commands.train(mixed)
    one = commands.compare(mixed, own)
    show_compare(one)
    assert [row["num_clone_seeds"] for row in one] == [1] and "for this one clone seed" in capsys.readouterr().out


def test_a_rung_has_a_clone_for_each_seed_and_its_classifiers_in_order(experiment):
    from raysd.evaluation.evaluate import Evaluation

    swept = load_experiment(
        experiment, sweep={"space": {"generation": {"guidance_scale": [1]}}, "objective": "test", "random": False}
    )
    (setting,), rungs = list_settings(swept), rungs_of(swept)
    grow_all = partial(generate.generate_clones, settings=swept.generation)
    pool = SimpleNamespace(grow_all=grow_all, note=lambda *_, **__: None)
    evaluation = Evaluation(swept.root, swept.evaluation, swept.table, "")
    runner = RungRunner(swept, "abc", rungs, evaluation, pool, SimpleNamespace(trains_here=True, trial_cpus=1))
    row = runner.run(setting, 0, 0)
    assert read_rows(swept.root, RUNG_RESULT) == [row]
    runs = checked_runs(experiment_at(swept, setting, rungs[0]))
    assert row["classifiers"] == [run.fingerprint(seed) for seed, run in runs] and row["seeds"] == [7, 3, 9]
    assert row["clone"] == row["clones"][0] == runs[0][1].sets[0].fingerprint
    assert row["clones"][1] == runs[1][1].sets[0].fingerprint
    assert (row["num_planned"], row["num_images"], row["num_generated"]) == (30, 60, 60)
    first, second, third = row["seed_scores"]
    assert row["score"] == pytest.approx(((first + third) / 2 + second) / 2), "the mean over the two clones"
    assert runner.run(setting, 0, 0) == row


def mixture(*fingerprints, **about):
    sets = tuple(
        ImageSet("part", name, Location("."), 3, about={"kind": "clone", **about, **more})
        for name, more in fingerprints
    )
    return TrainingRun(Location("."), (Pool(sets),), 10, TrainingSettings()).record()["trained_on"]


def test_mixtures_of_clones_that_differ_in_their_seed_alone_are_known_as_such():
    at_0 = mixture(("aa", {}), ("bb", {}))
    at_1 = mixture(("cc", {"at_seed_0": "aa"}), ("dd", {"at_seed_0": "bb"}))
    assert at_1["at_seed_0"] == at_0["fingerprint"] != at_1["fingerprint"] and "at_seed_0" not in at_0
    assert at_1["fingerprint"] == mixture(("cc", {}), ("dd", {}))["fingerprint"]


def test_a_clone_of_another_seed_names_that_of_seed_0(experiment):
    one, two = (clone_images(clone) for clone in clones_of(experiment))
    at_0 = load_experiment(experiment, ["generation.seeds=[0]"])
    (zero,) = (clone_images(clone) for clone in clones_of(at_0))
    assert one.fingerprint != two.fingerprint
    assert one.about["at_seed_0"] == two.about["at_seed_0"] == zero.fingerprint and "at_seed_0" not in zero.about
