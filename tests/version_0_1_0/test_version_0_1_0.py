"""Clones, classifiers and result rows that version 0.1.0 wrote still open, and nothing of them is made again.

Version 0.1.0 wrote `storage/` and `tiny.yaml`. Weights, features and real images are left out to keep it small.
"""

import json
import shutil
from pathlib import Path

import pytest
from in_process import run_main

STORED = Path(__file__).parent


@pytest.fixture
def no_ray(monkeypatch):
    """Ray must not be started: there is nothing to do."""
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A copy of the storage, and a function that runs a command on it and says which stored files it changed."""
    shutil.copytree(STORED / "storage", tmp_path / "storage")
    shutil.copy(STORED / "tiny.yaml", tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr("raysd.data.real_datasets.fashion_mnist_folder", lambda: None)  # the sample was measured

    def run(*words):
        finished = run_main(tmp_path, *words)
        assert finished.returncode == 0, finished.stderr
        after = contents(tmp_path)
        assert {name: after.get(name) for name in before} == before, "stored files were changed"
        return finished.stdout, tmp_path

    return run


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.glob("storage/**/*") if path.is_file()}


def test_a_clone_is_whole_and_nothing_is_generated_again(stored, no_ray):
    out, _ = stored("generate", "tiny.yaml")
    assert "clone 26437e21c12888ca: 40 images, 0 generated now" in out


def test_a_plan_finds_the_clone_and_the_measured_rate(stored, no_ray):
    out, _ = stored("plan", "tiny.yaml")
    assert "2 of 20; 0 to be generated" in out and "measured 2026-11-29" in out


def test_scores_are_read(stored, no_ray):
    out, _ = stored("score", "tiny.yaml")
    assert "40 images have scores, 0 scored now" in out


def test_classifiers_are_found_and_not_trained_again(stored, no_ray):
    out, folder = stored("train", "tiny.yaml")
    assert "classifier of seed 0" in out and not list(folder.glob("storage/classifiers/*/model.safetensors"))


def test_accuracies_are_found_and_not_measured_again(stored, no_ray):
    out, _ = stored("evaluate", "tiny.yaml")
    assert "top-1" in out


def test_a_finished_sweep_is_there_and_its_report_is_written(stored, no_ray):
    out, folder = stored("sweep", "tiny.yaml")
    (page,) = folder.glob("storage/reports/*/report.html")
    assert "guidance" in page.read_text() and (page.parent / "best.yaml").is_file()
    assert len(list(folder.glob("storage/results/sweep/*.json"))) == 1
    assert "60 images and 3 trainings" in out


def test_what_was_trained_with_the_number_format_of_its_head_is_found_on_another_one(stored, no_ray, monkeypatch):
    """Version 0.1.0 answered `precision: auto` on the machine that started a job, and named classifiers by it."""
    monkeypatch.setattr("raysd.device.has_bfloat16", lambda device: False)
    auto = "training.precision=auto"
    out, folder = stored("train", "tiny.yaml", auto)
    assert "classifier of seed 0" in out and not list(folder.glob("storage/classifiers/*/model.safetensors"))
    out, _ = stored("evaluate", "tiny.yaml", auto)
    assert "top-1" in out
    stored("sweep", "tiny.yaml", auto)
    assert len(list(folder.glob("storage/results/sweep/*.json"))) == 1


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_from_its_finished_rungs(tmp_path, ray_cluster, monkeypatch):
    monkeypatch.setattr("raysd.data.real_datasets.fashion_mnist_folder", lambda: None)  # the sample was measured
    shutil.copytree(
        STORED / "storage",
        tmp_path / "storage",
        ignore=lambda folder, _: ["sweep"] if folder.endswith("results") else [],
    )
    shutil.copy(STORED / "tiny.yaml", tmp_path)
    before = contents(tmp_path)
    finished = run_main(tmp_path, "sweep", "tiny.yaml")
    assert finished.returncode == 0, finished.stderr
    after = contents(tmp_path)
    assert {name: after.get(name) for name in before} == before, "stored files were changed"
    (row,) = [json.loads(path.read_text()) for path in tmp_path.glob("storage/results/sweep/*.json")]
    assert row["best"]["guidance_scale"] == 1.0
