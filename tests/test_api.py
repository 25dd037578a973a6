"""raysd in a program of one's own: what the functions take, what they return, and what they leave alone."""

import subprocess
import sys

import numpy as np
import pytest

import raysd
from raysd.config import Experiment, load_experiment
from raysd.errors import UserError

HEAVY = ("torch", "ray", "diffusers", "pydantic", "numpy", "pyarrow")


def test_the_import_loads_nothing_heavy():
    code = f"import sys, raysd; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_name_can_be_had_and_is_offered():
    assert set(raysd.__all__) <= set(dir(raysd))
    for name in raysd.__all__:
        assert callable(getattr(raysd, name)), name
    assert raysd.analyse is raysd.analyze and raysd.Experiment is Experiment and raysd.UserError is UserError
    with pytest.raises(AttributeError, match="no attribute 'picture'"):
        raysd.picture  # noqa: B018


def test_a_verb_that_is_also_a_package_can_be_called_before_and_after_its_modules_are_loaded(monkeypatch):
    monkeypatch.setattr("raysd.commands.sweep", lambda *arguments, **options: (arguments, options))
    assert raysd.sweep("my.yaml", storage="x") == (("my.yaml",), {"storage": "x"})
    from raysd.sweep.space import Setting

    assert raysd.sweep("my.yaml") == (("my.yaml",), {}) and raysd.sweep.space.Setting is Setting


# What an experiment is made from


def test_an_experiment_is_made_from_a_mapping_keywords_or_a_file_and_keywords(tmp_path):
    (tmp_path / "x.yaml").write_text("name: x\ngeneration: {guidance_scale: 4, images_per_class: 7}\n")
    values = {"name": "x", "generation": {"guidance_scale": 4, "images_per_class": 7}}
    wanted = load_experiment(tmp_path / "x.yaml")
    assert wanted == load_experiment(values) == load_experiment(**values) == Experiment(**values)
    assert wanted == load_experiment({"name": "x"}, ["generation.guidance_scale=4"], generation={"images_per_class": 7})
    assert load_experiment(tmp_path / "x.yaml", generation={"guidance_scale": 1}).generation.images_per_class == 7


def test_an_experiment_is_taken_as_it_is_or_changed_by_keywords():
    experiment = load_experiment(generation={"guidance_scale": 4})
    assert load_experiment(experiment) is experiment
    changed = load_experiment(experiment, generation={"images_per_class": np.int64(3)}, training={"seeds": (0, 1)})
    assert (changed.generation.guidance_scale, changed.generation.images_per_class) == (4, 3)
    assert changed.training.seeds == [0, 1] and changed.model_fields_set == {"generation", "training"}


@pytest.mark.parametrize(
    "make",
    [
        lambda values: raysd.load_experiment(values),
        lambda values: raysd.load_experiment(**values),
        lambda values: raysd.Experiment(**values),
        lambda values: raysd.generate(**values),
        lambda values: raysd.plan(values),
        lambda values: raysd.compare(values, {}),
    ],
)
def test_bad_values_are_one_line_wherever_they_are_given(make):
    with pytest.raises(UserError, match=r"^generation\.guidance_scale = -2: [^\n]*$"):
        make({"generation": {"guidance_scale": -2}})


def test_what_is_no_experiment_is_refused():
    with pytest.raises(UserError, match="configuration = 3: give the path of a YAML file, a mapping"):
        raysd.plan(3)
    with pytest.raises(UserError, match=r"^generation.images_per_class = \{1, 2\}: .*use texts, numbers"):
        raysd.load_experiment(generation={"images_per_class": {1, 2}})


# What the functions return


@pytest.fixture
def values(tmp_path):
    """A tiny experiment."""
    return {
        "storage": str(tmp_path / "runs"),
        "classes": ["cat", "dog"],
        "lint": "off",
        "generation": {"model": "dummy", "images_per_class": 3, "images_per_shard": 4},
    }


@pytest.fixture
def cache(tmp_path):
    """For `datasets`, which else writes into the home folder."""
    return str(tmp_path / "cache")


def test_a_plan_says_what_would_be_generated_and_generates_nothing(values, tmp_path):
    plan = raysd.plan(values)
    assert (plan.num_images, plan.num_shards, plan.num_missing_shards) == (6, 2, 2)
    assert plan.prompts == ("cat", "dog") and plan.variants["name"] == "cat" and plan.num_bytes > 0 and plan.cost
    assert plan.path.endswith(plan.fingerprint) and not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="holds no images yet"):
        plan.load()


@pytest.mark.slow
def test_a_clone_is_generated_grown_verified_scored_exported_and_loaded(values, tmp_path, cache, ray_cluster, capsys):
    clone = raysd.generate(values)
    assert (clone.num_images, clone.num_generated, clone.num_flagged, clone.short_classes) == (6, 6, 0, {})
    loaded = clone.load(cache_dir=cache)
    assert loaded.num_rows == 6 and loaded.features["label"].names == ["cat", "dog"]
    assert loaded[0]["image"].size and loaded[0]["prompt"] == "cat"
    assert raysd.grow(values, to=4, classes=["dog"]).num_images == 7
    verified = raysd.verify(values)
    assert verified.is_whole and verified.problems == {} and verified.num_images == 7
    scored = raysd.score(values)
    assert len(scored.scores()) == 7 and {"label", "index", "duplicate_similarity"} <= set(scored.scores().columns)
    exported = raysd.export(values, out=str(tmp_path / "out"))
    assert exported.num_exported == len(list((tmp_path / "out").rglob("*.png"))) == 6
    assert {handle.fingerprint for handle in (clone, verified, scored, exported, raysd.plan(values))} == {
        clone.fingerprint
    }
    assert repr(clone) == f"GeneratedClone(path='{clone.path}', num_images=6)"
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_clone_in_an_object_store_is_loaded_from_there(values, cache, s3_server):
    pytest.importorskip("s3fs")
    from raysd.generation.actor import GenerationActor

    values["storage"] = f"s3://raysd/api?endpoint_override=127.0.0.1:{s3_server}&scheme=http"
    plan = raysd.plan(values)
    for number in range(plan.num_shards):
        GenerationActor(plan.clone.spec, 32, 1).generate_shard(plan.clone, number)
    loaded = plan.load(cache_dir=cache)
    assert loaded.num_rows == 6 and loaded[0]["image"].size


@pytest.fixture
def digits(tmp_path):
    """Small classifiers of handwritten digits, whose weights are random."""
    import torch

    from raysd.classifier.model import build_classifier, save_classifier
    from raysd.commands.checks import checked_run

    values = {
        "storage": str(tmp_path / "runs"),
        "classes": [str(digit) for digit in range(10)],
        "training": {
            "real": "digits",
            "backbone": "resnet18",
            "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
            "image_size": 16,
            "batch_size": 50,
            "seeds": [0, 1],
        },
        "generation": {"images_per_class": 50},
        "evaluation": {"test_set": "digits"},
    }
    for num_epochs in (None, 3):
        changed = values if num_epochs is None else {**values, "training": {**values["training"], "num_epochs": 3}}
        run = checked_run(load_experiment(changed))
        for seed in (0, 1):
            torch.manual_seed(seed)
            record = {**run.record(), "seed": seed, "fingerprint": run.fingerprint(seed)}
            save_classifier(run.folder(seed), build_classifier(run.architecture), run.architecture, record)
    return values


def test_classifiers_come_with_their_folders_and_models(digits):
    import torch

    classifiers = raysd.train(digits)  # they are there, so nothing is trained
    assert [classifier.seed for classifier in classifiers] == [0, 1]
    assert all(classifier.path.endswith(classifier.fingerprint) for classifier in classifiers)
    assert classifiers[1].record["seed"] == 1
    model = classifiers[0].load()
    assert model.num_classes == 10 and model(torch.zeros(2, 3, 16, 16)).shape == (2, 10) and not model.training


def test_rows_become_a_flat_frame(digits, capsys):
    results = raysd.evaluate(digits)
    assert len(results) == 2 and results[0] is results.rows[0] and [row["seed"] for row in results] == [0, 1]
    frame = results.to_pandas()
    assert list(frame["seed"]) == [0, 1] and set(frame["trained_on.kind"]) == {"real"} and frame["value"].notna().all()
    other = load_experiment(digits, training={"num_epochs": 3})
    (compared,) = raysd.compare(digits, other)
    assert compared["verdict"] in ("better", "worse", "within noise")
    analyzed = raysd.analyze(digits).to_pandas()
    assert set(analyzed["kind"]) == {"features"} and analyzed["values.sparsity"].notna().all()
    assert capsys.readouterr().out == ""


def test_an_answer_of_a_sweep_gives_its_best_setting_and_its_ranking():
    from raysd.commands.answers.sweep import SweepAnswer, WrittenReport
    from raysd.report.page import ReportFiles
    from raysd.storage.location import Location

    ranking = [{"rank": 1, "setting": {"generation.guidance_scale": 2}}, {"rank": 2, "setting": {}}]
    files = ReportFiles(Location("/none"), "/none/report.html", ("2 is best",), None)
    answer = SweepAnswer({"best": {"setting": ranking[0]["setting"]}, "ranking": ranking}, "x", WrittenReport(files))
    assert answer.best == {"generation.guidance_scale": 2} and answer.report == "/none/report.html"
    assert list(answer.to_pandas()["rank"]) == [1, 2]
