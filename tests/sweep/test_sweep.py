"""Whole sweeps on real Ray: a killed one goes on, rungs are nested, each search and scheduler ends, and nothing
stays held."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml
from in_process import run_main
from tiny_sweep import EXPERIMENT, assert_nothing_is_held, sweep_here

from raysd.config import load_experiment
from raysd.diffusion.checkpoint import EMBEDDED
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.storage.rows import ACCURACY, RUNG_RESULT, SWEEP, read_rows

pytestmark = pytest.mark.slow


def written(root):
    """What tells whether a rung result or classifier was made again."""
    results = {path: json.loads(path.read_text())["seconds"] for path in root.glob("results/rung_result/*.json")}
    return results | {path: path.stat().st_mtime_ns for path in root.glob("classifiers/*/record.json")}


def interrupt_after(num_results, root):
    """Ctrl-C in this process as soon as so many rung results are there."""

    def wait():
        while len(list(root.glob("results/rung_result/*.json"))) < num_results:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def run_and_kill(folder, config, num_results):
    """The sweep's command in a process and on a Ray of its own, with a SIGKILL once so many rung results are there."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "raysd.cli", "sweep", str(config)]
    driver = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    deadline = time.monotonic() + 240
    while len(list(folder.glob("runs/results/rung_result/*.json"))) < num_results:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()


@pytest.fixture(scope="module", params=["interrupted", pytest.param("killed", marks=pytest.mark.soak)])
def swept(request, tmp_path_factory, ray_cluster):
    """A tiny sweep that was stopped in its middle, then run to its end, then run again. The killed one generates
    with the real pipeline, from a folder that is named from where the command runs."""
    folder = tmp_path_factory.mktemp("sweep")
    config, root = folder / "tiny.yaml", folder / "runs"
    generation = {**EXPERIMENT["generation"], "model": "dummy"}
    if request.param == "killed":
        shutil.copytree(EMBEDDED, folder / "model")
        generation |= {"model": "./model", "dtype": "float32"}
    config.write_text(
        yaml.safe_dump(
            {
                **EXPERIMENT,
                "storage": "runs",
                "generation": generation,
                "training": {**EXPERIMENT["training"], "logger": "tensorboard"},
            }
        )
    )
    if request.param == "killed":
        run_and_kill(folder, config, 3)
    else:
        interrupt_after(3, root)
        assert run_main(folder, "sweep", config).returncode == 130
    assert not list(root.glob("results/sweep/*.json"))
    before = written(root)
    runs = [run_main(folder, "sweep", config) for _ in range(2)]
    return root, runs, before


def test_a_stopped_sweep_goes_on_and_ends_with_a_report_and_the_winner_as_a_file(swept):
    root, (first, _), _ = swept
    assert first.returncode == 0, first.stderr[-3000:]
    (page,) = root.glob("reports/*/report.html")
    (row,) = read_rows(Location(str(root)), SWEEP)
    best = load_experiment(page.parent / "best.yaml")
    assert (
        best.generation.guidance_scale == row["best"]["guidance_scale"]
        and best.generation.variant == row["best"]["variant"]
    )
    assert best.generation.images_per_class == 12
    assert "next: raysd generate" in first.stdout


def test_each_setting_is_logged_with_all_its_rungs_though_the_sweep_was_stopped(swept):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root, (first, _), _ = swept
    assert "no longer logged" not in first.stdout
    (row,) = read_rows(Location(str(root)), SWEEP)
    (folder,) = root.glob("logs/sweep-*")
    results = {result["fingerprint"]: result for result in read_rows(Location(str(root)), RUNG_RESULT)}
    taken = [results[fingerprint] for fingerprint in row["rung_results"]]
    scores = {}
    for path in folder.iterdir():
        if path.name != "answer":
            events = EventAccumulator(str(path)).Reload()
            scores[int(path.name[:4])] = {event.step: event.value for event in events.Scalars("score")}
            assert events.Images("samples")
    assert scores.keys() == {result["number"] for result in taken}
    for result in taken:
        assert scores[result["number"]][result["images_per_class"]] == pytest.approx(result["score"], abs=1e-3)
    last = next(result for result in taken if result["rung"] == 2)
    assert EventAccumulator(str(root / "logs" / last["classifiers"][0])).Reload().Tags()["scalars"] != ["loss"]


def test_what_had_finished_before_the_stop_is_not_done_again(swept):
    root, _, before = swept
    after = written(root)
    assert len(before) >= 6 and all(after[path] == when for path, when in before.items())


def test_rungs_are_nested_and_half_of_each_goes_on(swept):
    root, _, _ = swept
    results = read_rows(Location(str(root)), RUNG_RESULT)
    by_rung = [{result["label"]: result for result in results if result["rung"] == rung} for rung in range(3)]
    assert [len(rung) for rung in by_rung] == [4, 2, 1]
    for lower, higher in itertools.pairwise(by_rung):
        best = sorted(lower.values(), key=lambda result: -result["score"])[: len(higher)]
        assert {result["label"] for result in best} == set(higher)
        assert all(lower[label]["clone"] == result["clone"] for label, result in higher.items())
    images = sum(len(list(read_clone(folder))) for folder in root.glob("clones/*"))
    assert images == 10 * (4 + 4 + 8 + 12)


def read_clone(folder):
    import pyarrow.parquet as pq

    for path in folder.glob("data/*.parquet"):
        yield from pq.read_table(path, columns=["label", "index"]).to_pylist()


def test_lower_rungs_are_measured_on_the_objective_alone_and_the_last_one_on_all_sets(swept):
    root, _, _ = swept
    results = {
        classifier: result["rung"]
        for result in read_rows(Location(str(root)), RUNG_RESULT)
        for classifier in result["classifiers"]
    }
    roles = {}
    for row in read_rows(Location(str(root)), ACCURACY):
        if row["classifier"] in results:
            roles.setdefault(results[row["classifier"]], set()).add(row["role"])
    assert roles == {
        0: {"validation", "transfer"},
        1: {"validation", "transfer"},
        2: {"validation", "transfer", "test"},
    }


def test_the_answer_ranks_every_setting_and_names_the_cost(swept):
    root, _, _ = swept
    (row,) = read_rows(Location(str(root)), SWEEP)
    assert [each["images_per_class"] for each in row["ranking"]] == [12, 8, 4, 4]
    assert row["ranking"][0]["setting"] == row["best"]["setting"]
    assert {effect["factor"] for effect in row["effects"]} == {"generation.guidance_scale", "generation.variant"}
    assert row["cost"]["num_images"] == 280 and row["cost"]["grid"]["num_images"] == 480
    assert row["cost"]["trainings"] == 4 + 4 + 2 and row["cost"]["grid"]["trainings"] == 8
    assert {each["proxy"] for each in row["proxies"]} >= {"frechet_distance", "coverage"}
    assert {each["with"] for each in row["comparisons"]} == {"real", "random"}
    assert row["failed"] == [] and row["skipped_sets"] == {}


def test_a_second_run_generates_and_trains_nothing(swept):
    _, (_, second), _ = swept
    assert second.returncode == 0, second.stderr[-3000:]
    assert "all 7 rung results are there" in second.stdout and "generation actors" not in second.stdout


def test_asha_stops_trials_and_holds_nothing(ray_cluster, tmp_path):
    space = {"generation": {"guidance_scale": [1, 4]}}
    row, results = sweep_here(tmp_path, {"seeds": [0]}, space=space, scheduler="asha", keep=0.5, rungs=[4, 8])
    assert [result["rung"] for result in results].count(0) == 2
    assert 1 <= [result["rung"] for result in results].count(1) <= 2
    assert (
        sum(result["num_generated"] for result in results)
        == row["cost"]["num_images"]
        == 10 * sum(clone["images_per_class"] for clone in row["clones"])
    )
    assert_nothing_is_held()


@pytest.mark.soak
def test_a_trial_starts_workers_of_its_own_and_holds_nothing(ray_cluster, tmp_path):
    _, (result,) = sweep_here(
        tmp_path, {"num_workers": 2, "seeds": [0]}, space={"generation": {"guidance_scale": [4]}}, rungs=[4]
    )
    (path,) = tmp_path.glob("classifiers/*/record.json")
    assert [count for _, count in json.loads(path.read_text())["workers"]] == [2] and result["score"] is not None
    assert_nothing_is_held()


@pytest.mark.soak
def test_an_interrupted_tpe_leaves_no_answer_and_goes_on_with_what_it_tried(ray_cluster, tmp_path):
    space = {
        "generation": {"guidance_scale": {"low": 1, "high": 5, "step": 1}, "variant": ["name", "attributes"]},
        "training": {"recipe_options": {"learning_rate": {"low": 0.01, "high": 1, "log": True}}},
    }
    options = {"space": space, "search": "tpe", "num_settings": 4, "rungs": [4], "max_concurrent_trials": 2}

    interrupt_after(2, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep_here(tmp_path, {"seeds": [0]}, **options)
    assert not list(tmp_path.glob("results/sweep/*.json"))
    before = {result["fingerprint"]: result for result in read_rows(Location(str(tmp_path)), RUNG_RESULT)}
    row, results = sweep_here(tmp_path, {"seeds": [0]}, **options)
    after = {result["fingerprint"]: result for result in results}  # one more where a trial was in its middle
    assert len(before) >= 2 and all(after[name] == result for name, result in before.items())
    assert len(row["clones"]) == len(row["ranking"]) == 4 and sorted(
        after[name]["number"] for name in row["rung_results"]
    ) == [0, 1, 2, 3]
    assert set(before) <= set(row["rung_results"])
    assert all(result["setting"]["generation.guidance_scale"] in range(1, 6) for result in results)
    assert set(row["factors"]) == {
        "generation.guidance_scale",
        "generation.variant",
        "training.recipe_options.learning_rate",
    }
    assert_nothing_is_held()


def test_a_setting_that_fails_by_itself_is_named_and_the_others_go_on(ray_cluster, tmp_path):
    space = {"training": {"recipe_options": {"learning_rate": [0.1, 1e30]}}}
    row, results = sweep_here(tmp_path, {"seeds": [0], "recipe": "fast"}, space=space, rungs=[8])
    assert [result["score"] is None for result in results] == [False, True]
    assert row["best"]["setting"] == {"training.recipe_options.learning_rate": 0.1}
    (failed,) = row["failed"]
    assert failed["trained_on"] == results[1]["label"] and "no number" in failed["error"]
    assert_nothing_is_held()


def test_an_impossible_setting_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match=r"sweep\.space\.generation\.guidance_scale"):
        sweep_here(tmp_path, space={"generation": {"guidance_scale": [2, 0.5]}}, rungs=[4])
    with pytest.raises(UserError, match=r"generation\.variant"):
        sweep_here(tmp_path, space={"generation": {"variant": ["name", "no_such_variant"]}}, rungs=[4])
    with pytest.raises(UserError, match=r"training\.batch_size"):
        sweep_here(tmp_path, scheduler="halving", rungs=[1, 20])
    with pytest.raises(UserError, match=r"sweep\.objective"):
        sweep_here(tmp_path, objective="test", rungs=[4])
    assert not (tmp_path / "clones").exists()
