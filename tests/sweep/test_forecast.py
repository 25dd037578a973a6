"""The time left of a sweep, by a clock that is simulated, and what is shown of its progress."""

import logging

import pytest
from ray import cloudpickle

from raysd.commands import DEMO
from raysd.config import load_experiment
from raysd.generation.shared_pool import Board, TrialNote
from raysd.progress import shown_lines
from raysd.storage.location import Location
from raysd.sweep.board import SweepProgress, SweepWork, confirmation_work, plan_work
from raysd.sweep.confirm import confirmed_experiment
from raysd.sweep.forecast import DENOISE, MEASURE, TRAIN, Forecast
from raysd.sweep.placement import place
from raysd.sweep.space import list_settings, rungs_of

TOTAL = {DENOISE: 60_000.0, TRAIN: 3240.0, MEASURE: 9.0}
PRIOR = {DENOISE: 0.0014, TRAIN: 0.02, MEASURE: 1.5}


def simulate(costs, prior, start=15.0, overlap=False):
    """The true and the expected seconds left, at each look at the clock, of a sweep whose work has these costs.

    Three settings are generated one after the other, trained on and measured. With `overlap` the next one is generated
    while one trains, on the same processors, so both take their time.
    """
    forecast, now = Forecast(dict(TOTAL), prior), start
    done = dict.fromkeys(TOTAL, 0.0)
    third = {kind: total / 3 for kind, total in TOTAL.items()}
    stages = [{kind: third[kind]} for _ in range(3) for kind in (DENOISE, TRAIN, MEASURE)]
    if overlap:
        both = {DENOISE: third[DENOISE], TRAIN: third[TRAIN]}
        stages = [stages[0], both, stages[2], both, stages[2], stages[1], stages[2]]
    seen = []
    forecast.update(done, 0.0)
    for stage in stages:
        seconds = sum(costs[kind] * amount for kind, amount in stage.items())
        parts = 1 if MEASURE in stage else max(1, int(seconds / 2))  # a look each two seconds
        for _ in range(parts):
            now += seconds / parts
            done = {kind: done[kind] + stage.get(kind, 0.0) / parts for kind in done}
            forecast.update(done, now)
            seen.append((now, forecast.seconds_left(now)))
    return [(at, now - at, left) for at, left in seen]


@pytest.mark.parametrize("machine", [0.5, 1, 2, 4])
@pytest.mark.parametrize(("denoise", "train"), [(1, 1), (1.25, 0.8), (0.8, 1.25)])
@pytest.mark.parametrize("overlap", [False, True])
def test_from_the_first_minute_on_the_time_left_is_right_within_a_factor_of_one_and_a_half(
    machine, denoise, train, overlap
):
    costs = {
        DENOISE: machine * denoise * PRIOR[DENOISE],
        TRAIN: machine * train * PRIOR[TRAIN],
        MEASURE: machine * PRIOR[MEASURE],
    }
    looks = [look for look in simulate(costs, PRIOR, overlap=overlap) if look[0] >= 60]
    assert len(looks) > 5
    for at, truth, left in looks:
        assert truth / 1.5 - 5 <= left <= truth * 1.5 + 5, f"after {at:.0f} s: {left:.0f} s for {truth:.0f} s"


def test_without_a_prior_no_time_is_said_before_each_kind_of_work_was_seen():
    looks = simulate(PRIOR, {})
    first = next(place for place, (_, _, left) in enumerate(looks) if left is not None)
    assert looks[first][0] > 15 + TOTAL[DENOISE] / 3 * PRIOR[DENOISE]
    assert all(truth / 1.5 - 5 <= left <= truth * 1.5 + 5 for _, truth, left in looks[first + 1 :])


def test_work_that_was_there_at_the_start_costs_nothing():
    forecast = Forecast({TRAIN: 100.0}, {})
    forecast.update({TRAIN: 50.0}, 0.0)
    forecast.update({TRAIN: 60.0}, 10.0)
    assert forecast.seconds_left(10.0) == pytest.approx(40.0)
    assert forecast.seconds_left(30.0) == pytest.approx(20.0), "the clock goes on while nothing is said"


@pytest.fixture
def progress(tmp_path):
    work = SweepWork(3, 1200, 9, {DENOISE: 12_000.0, TRAIN: 900.0, MEASURE: 9.0}, {}, {"a": 5.0, "b": 10.0})
    return SweepProgress(work, Location(str(tmp_path)))


def test_a_line_counts_images_and_trainings_of_all_trials(progress, capsys, monkeypatch):
    monkeypatch.setattr("raysd.sweep.board.LINE_SECONDS", 0.0)
    with shown_lines(), progress:
        progress.look(Board({"a": 400, "b": 100}, {}, 300, 0, 3))
        progress.advance(1, ", guidance 1 84.2 %")
    first, second = capsys.readouterr().out.splitlines()
    assert first == "measured: 0/3 trials, 500/1,200 images, 3/9 trainings"
    assert second == "measured: 1/3 trials, 500/1,200 images, 3/9 trainings, guidance 1 84.2 %"
    assert progress.forecast.done[DENOISE] == 400 * 5 + 100 * 10


def test_steps_of_a_training_that_runs_are_read_where_it_writes_them(progress, tmp_path):
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "progress.json").write_text('{"step": 120}')
    trials = {"1": TrialNote("guidance 1", "trains 3 classifiers", ("x", "not there yet"))}
    progress.look(Board({}, trials, 300, 100, 3))
    assert progress.forecast.done[TRAIN] == 420 and progress.forecast.total[TRAIN] == 800
    assert progress.doing() == ["  guidance 1: trains 3 classifiers"]


def test_on_a_terminal_each_trial_says_what_it_does_now(progress, monkeypatch):
    shown = []
    monkeypatch.setattr("raysd.sweep.board.has_bars", lambda: True)
    monkeypatch.setattr("rich.live.Live.update", lambda self, text, **_: shown.append(text))
    logging.getLogger("raysd").setLevel(logging.NOTSET)
    with progress:
        assert cloudpickle.dumps(progress), "Tune writes down what its callbacks hold"
        progress.look(Board({"a": 1}, {"1": TrialNote("guidance 1", "waits for images")}))
    assert shown[-2].splitlines()[1:] == ["  guidance 1: waits for images"]
    assert len(shown[-1].splitlines()) == 1  # what stays


def test_the_work_of_the_demo_fits_into_five_minutes_on_two_cores(tmp_path):
    """By what a unit of work takes without bfloat16; starts of processes come on top, so the limit is four minutes."""
    experiment = load_experiment(DEMO, [f"storage={tmp_path}"])
    placement = place(2, 0, experiment.generation, experiment.training, experiment.sweep.max_concurrent_trials)
    work = plan_work(experiment, list_settings(experiment), rungs_of(experiment), placement, 3, 0)
    assert (work.num_images, work.num_trainings) == (12_000, 9)
    assert set(work.prior) == set(work.units), "a time is said from the start"
    assert sum(work.units[kind] * work.prior[kind] for kind in work.units) < 240


def test_images_and_rungs_that_are_there_or_come_later_are_counted(tmp_path):
    words = ["sweep.rungs=[10, 30]", "sweep.scheduler=halving", "sweep.keep=0.4", f"storage={tmp_path}"]
    experiment = load_experiment(DEMO, words)
    placement = place(2, 0, experiment.generation, experiment.training, 2)
    work = plan_work(experiment, list_settings(experiment), rungs_of(experiment), placement, 4, 1)
    assert work.num_images == 3 * 100 + 2 * 200
    assert work.num_trainings == 3 * 3 + 2 * 3 + 1 * 3
    known = {(0, 0): [80.0], (2, 0): [70.0], (0, 1): [90.0]}  # an earlier run measured these
    rest = plan_work(experiment, list_settings(experiment), rungs_of(experiment), placement, 4, 0, known)
    assert rest.num_trainings == 1 * 3 + 1 * 3 and rest.num_images == 3 * 100 + 1 * 200 and rest.num_trials == 4
    assert rest.units[MEASURE] == 6 and rest.units[TRAIN] < work.units[TRAIN] / 2


def test_finalists_that_an_earlier_run_measured_again_are_no_work(tmp_path):
    experiment = load_experiment(DEMO, ["sweep.confirm={settings: 2, seeds: 2}", f"storage={tmp_path}"])
    placement = place(2, 0, experiment.generation, experiment.training, 2)
    jobs = [confirmed_experiment(experiment, setting) for setting in list_settings(experiment)[:2]]
    both, one, none = (confirmation_work(jobs[first:], placement, 2) for first in (0, 1, 2))
    assert [work.num_trainings for work in (both, one, none)] == [4, 2, 0]
    assert both.num_images == 2 * one.num_images and none.num_images == 0
    assert {work.num_trials for work in (both, one, none)} == {2}
