"""Settings that fail by what nobody foresaw: they are listed, the others go on, and the next start tries them again."""

import html
import os
import signal
from types import SimpleNamespace

import pytest
import yaml
from in_process import run_main
from tiny_sweep import EXPERIMENT, assert_nothing_is_held

from raysd.config import load_experiment
from raysd.errors import Failure, UserError, has_failed, reason_of, try_again
from raysd.generation.shared_pool import TrialNote
from raysd.progress import Progress
from raysd.storage.location import Location
from raysd.storage.rows import SWEEP, read_rows
from raysd.sweep import search, trials
from raysd.sweep.exceptions import Exceptions
from raysd.sweep.plan import TrialPlan
from raysd.sweep.rung import RungRunner
from raysd.sweep.space import list_settings, rungs_of

ONE_IMAGE = {
    **EXPERIMENT,
    "storage": "runs",
    "evaluation": {"transfer_sets": [{"name": "digits", "shots": 4}]},
    "training": {**EXPERIMENT["training"], "image_size": 8, "num_epochs": 1, "seeds": [0]},
    "sweep": {
        "space": {"training": {"batch_size": [20, 1]}},
        "rungs": [4],
        "objective": "transfer",
        "random": False,
    },
}


def block_classifier(storage, batch_size):
    """Put a file where the classifier of a setting goes, so that its training raises at the end."""
    from raysd import commands
    from raysd.config import load_experiment
    from raysd.resolve import training_pools, training_run

    training = {**ONE_IMAGE["training"], "batch_size": batch_size}
    at = load_experiment(
        {**ONE_IMAGE, "storage": str(storage), "training": training}, generation={"images_per_class": 4}
    )
    commands.generate(at)
    place = storage / "classifiers" / training_run(at, training_pools(at)).fingerprint(0)
    place.parent.mkdir(exist_ok=True)
    place.write_text("")


def raiser(*errors):
    waiting = list(errors)

    def run():
        if waiting:
            raise waiting.pop(0)
        return "done"

    return run


def test_what_raises_the_same_twice_is_not_tried_again_and_another_exception_is():
    assert try_again(raiser(RuntimeError("one"))) == "done"
    assert try_again(raiser(RuntimeError("one"), RuntimeError("two"), ValueError("one"))) == "done"
    with pytest.raises(Failure, match=r"^RuntimeError: out of memory, 7 MiB free$"):
        try_again(raiser(RuntimeError("out of memory, 12 MiB free\nat ..."), RuntimeError("out of memory, 7 MiB free")))
    with pytest.raises(Failure, match="KeyError"):
        try_again(raiser(RuntimeError("a"), RuntimeError("b"), RuntimeError("c"), KeyError("d")))
    with pytest.raises(UserError, match="is wrong"):
        try_again(raiser(UserError("field", 1, "is wrong"), UserError("field", 1, "is wrong")))


def test_a_reason_is_that_of_the_first_worker():
    error = RuntimeError("Training failed due to worker errors:\n...")
    error.worker_failures = {0: ValueError("Expected more than 1 value per channel"), 1: RuntimeError("x")}
    assert reason_of(error) == "ValueError: Expected more than 1 value per channel"
    reasons = []
    assert [has_failed(reasons, error) for _ in range(2)] == [False, True]


def test_exceptions_are_counted_over_processes_and_dead_ones_are_not_counted(tmp_path):
    from ray.exceptions import ActorDiedError

    noted = Exceptions(Location(str(tmp_path / "notes")))
    for _ in range(3):
        with pytest.raises(ActorDiedError):
            noted.reason("a", ActorDiedError())
    with pytest.raises(RuntimeError, match="once"):
        noted.reason("a", RuntimeError("once"))
    with pytest.raises(RuntimeError, match="once"):
        noted.reason("b", RuntimeError("once"))
    assert Exceptions(noted.folder).reason("a", RuntimeError("once")) == "RuntimeError: once"
    noted.clear()
    with pytest.raises(RuntimeError, match="once"):
        noted.reason("a", RuntimeError("once"))


@pytest.mark.soak
def test_a_setting_that_raises_is_listed_and_tried_again_by_the_next_start(ray_cluster, tmp_path):
    config, root = tmp_path / "tiny.yaml", Location(str(tmp_path / "runs"))
    config.write_text(yaml.safe_dump(ONE_IMAGE))
    block_classifier(tmp_path / "runs", 1)
    first = run_main(tmp_path, "sweep", config)
    assert first.returncode == 3, first.stderr[-3000:]
    (missing,) = [line for line in first.stdout.splitlines() if line.startswith("missing")]
    assert (reason := missing.removeprefix("missing  batch_size 1: ")).split(":")[0].endswith("Error")
    assert f"failed: batch_size 1: {reason}" in first.stdout + first.stderr and "Traceback" not in first.stderr
    (row,) = read_rows(root, SWEEP)
    assert row["best"]["label"] == "batch_size 20" and len(row["clones"]) == 2
    (page,) = (tmp_path / "runs" / "reports").glob("*/report.html")
    assert f"batch_size 1: failed: {reason}" in html.unescape(page.read_text())
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/classifiers/*/record.json")}
    assert len(trained) == 1
    alone = run_main(tmp_path, "sweep", config, "sweep.space.training.batch_size=[1]")
    assert alone.returncode == 1
    (line,) = alone.stderr.strip().splitlines()[-1:]
    assert line.startswith("error: all 1 settings of the sweep failed: batch_size 1: ") and reason[:40] in line
    again = run_main(tmp_path, "sweep", config)
    assert again.returncode == 3 and "rung results are there" not in again.stdout
    assert all(path.stat().st_mtime_ns == when for path, when in trained.items())
    assert_nothing_is_held()


@pytest.mark.soak
def test_a_trial_whose_process_dies_each_time_is_given_up_and_the_others_go_on(ray_cluster, tmp_path, monkeypatch):
    from ray import tune

    monkeypatch.setattr(trials, "MAX_FAILURES", 1)
    lost = []

    def run(config):
        if config["job"]["setting"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        tune.report({search.METRIC: 1.0, "seed_scores": [1.0], "label": "fine", "rung_result": "aa"})

    def give_up(config, reason, ended):
        lost.append((config["job"], reason))
        return "setting 1"

    runner = SimpleNamespace(
        placement=SimpleNamespace(trial_cpus=0.5, trial_gpus=0, num_trials=3, actors_each=1, extra_trials=0),
        experiment=SimpleNamespace(root=Location(str(tmp_path))),
    )
    jobs = [{"setting": place} for place in range(3)]
    plan = TrialPlan(
        {"job": tune.grid_search(jobs)}, {"metric": search.METRIC, "mode": "max"}, lambda ended: ended == 3
    )
    with Progress("measured", 3, "trials") as progress:
        ended = trials._fit(runner, plan, run, give_up, "dying", progress)
    assert ended.taken == {"aa"}
    ((job, reason),) = lost
    assert job == {"setting": 1} and reason.startswith("its process failed 2 times, the last time by ")


def test_a_trial_that_fails_no_longer_shows_what_it_did(tmp_path, monkeypatch):
    experiment = load_experiment(EXPERIMENT, storage=str(tmp_path), generation={"model": "embedded"})
    notes, setting = [], list_settings(experiment)[0]
    pool = SimpleNamespace(note=lambda note, *_, **__: notes.append(note))
    runner = RungRunner(experiment, "abc", rungs_of(experiment), SimpleNamespace(sets=[], confined=str), pool, None)

    def fail(*_):
        runner.pool.note(TrialNote("setting", "trains 1 classifiers"))
        raise RuntimeError("one")

    monkeypatch.setattr(RungRunner, "_measured", fail)
    monkeypatch.setattr(RungRunner, "run_baseline", fail)
    with pytest.raises(RuntimeError):
        runner.run(setting, 0, 0)
    assert notes[-1] is None
    notes.clear()
    with pytest.raises(RuntimeError):
        trials._report_baseline(runner, "real")
    assert notes[-1] is None
