"""Halving, ASHA's levels, and TPE's suggestions, without a cluster."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st
from ray.tune.search import Searcher

from raysd.config import validate_experiment
from raysd.sweep.search import HalvingSearch, NumberedSearch, decode, level, tpe
from raysd.sweep.space import Setting


def run_to_the_end(search, score_of, num_concurrent, seed=0):
    """Hand out jobs as Tune does, and end them in any order; returns the jobs in the order in which they began."""
    generator, running, jobs = random.Random(seed), {}, []
    while True:
        while len(running) < num_concurrent:
            name = f"t_{len(jobs)}"
            job = search.suggest(name)
            if job == Searcher.FINISHED and not running:
                return jobs
            if job is None or job == Searcher.FINISHED:
                break
            jobs.append(job)
            running[name] = job
        assert running, "nothing runs and nothing is handed out"
        name = generator.choice(list(running))
        job = running.pop(name)
        search.on_trial_complete(
            name, {"seed_scores": score_of(job["setting"], job["rung"])} if "setting" in job else {}
        )


@given(
    num_settings=st.integers(1, 30),
    num_rungs=st.integers(1, 4),
    keep=st.floats(0.05, 0.95),
    num_concurrent=st.integers(1, 8),
    within_noise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_halving_ends_and_takes_each_step_once(num_settings, num_rungs, keep, num_concurrent, within_noise, seed):
    search = HalvingSearch(num_settings, num_rungs, keep, within_noise, ["real", "random"])
    jobs = run_to_the_end(search, lambda setting, rung: [setting + 0.1 * rung, setting + 0.2], num_concurrent, seed)
    steps = [(job["setting"], job["rung"]) for job in jobs if "setting" in job]
    assert len(steps) == len(set(steps))
    assert {setting for setting, rung in steps if rung == 0} == set(range(num_settings))
    assert [job["baseline"] for job in jobs if "baseline" in job] == ["real", "random"]
    for rung in range(1, num_rungs):
        below, own = ({setting for setting, number in steps if number == place} for place in (rung - 1, rung))
        assert own <= below and len(own) >= math.ceil(round(len(below) * keep, 9))
        if not within_noise:
            assert own == set(sorted(below)[-len(own) :])


@given(
    num_settings=st.integers(1, 12),
    num_rungs=st.integers(1, 4),
    num_known=st.integers(0, 40),
    num_concurrent=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_what_an_earlier_run_did_is_not_handed_out_again(num_settings, num_rungs, num_known, num_concurrent, seed):
    def score_of(setting, rung):
        return [setting + 0.1 * rung, setting + 0.2]

    whole = run_to_the_end(HalvingSearch(num_settings, num_rungs, 0.5, False, []), score_of, num_concurrent, seed)
    steps = [(job["setting"], job["rung"]) for job in whole]
    known = {step: score_of(*step) for step in steps[:num_known]}
    search = HalvingSearch(num_settings, num_rungs, 0.5, False, ["real"], known)
    jobs = [
        (job["setting"], job["rung"])
        for job in run_to_the_end(search, score_of, num_concurrent, seed)
        if "setting" in job
    ]
    assert sorted(jobs) == sorted(steps[num_known:]) and sorted(search.passed) == sorted(known)
    assert (
        search.is_done
        and HalvingSearch(num_settings, num_rungs, 0.5, False, [], {step: score_of(*step) for step in steps}).is_done
    )


def test_the_next_rung_begins_when_the_last_step_of_a_rung_has_ended():
    search = HalvingSearch(2, 2, 0.5, False, [])
    assert search.suggest("a")["setting"] == 0 and search.suggest("b")["setting"] == 1
    search.on_trial_complete("a", {"seed_scores": [1.0]})
    assert search.suggest("c") is None
    search.on_trial_complete("b", {"seed_scores": [2.0]})
    assert search.suggest("c") == {"setting": 1, "rung": 1}


def test_a_setting_that_failed_does_not_go_on():
    jobs = run_to_the_end(
        HalvingSearch(3, 2, 0.5, False, []), lambda setting, rung: [] if setting == 2 else [setting, setting], 2
    )
    assert {job["setting"] for job in jobs if job["rung"] == 1} == {0, 1}


def test_a_rung_where_all_failed_ends_the_search():
    jobs = run_to_the_end(HalvingSearch(3, 2, 0.5, False, []), lambda setting, rung: [], 1)
    assert {job["rung"] for job in jobs} == {0}


def test_settings_within_noise_go_on_where_that_is_wanted():
    scores = {0: [70.0, 72.0], 1: [71.0, 70.5], 2: [70.5, 72.5], 3: [50.0, 52.5]}
    jobs = {
        wanted: [
            job["setting"]
            for job in run_to_the_end(HalvingSearch(4, 2, 0.25, wanted, []), lambda setting, _: scores[setting], 1)
            if job["rung"] == 1
        ]
        for wanted in (False, True)
    }
    assert jobs[False] == [2] and set(jobs[True]) == {0, 1, 2}


def sweep_of(**values):
    space = {
        "generation": {
            "guidance_scale": [4, 1, 2],
            "variant": ["name", "attributes"],
            "num_inference_steps": {"low": 5, "high": 50, "step": 5},
        }
    }
    return validate_experiment({"sweep": {"space": space, "search": "tpe", "num_settings": 6, **values}}).sweep


def test_asha_is_asked_at_each_rung_once():
    from ray.tune.schedulers.async_hyperband import _Bracket

    for keep in (0.2, 1 / 3, 0.5, 0.8):
        sweep = sweep_of(keep=keep, scheduler="asha", rungs=[10, 20, 30])
        bracket = _Bracket(1, math.ceil(1.2 * level(sweep, 2)), 1 / keep, 0)
        for rung in range(3):
            bracket.on_result(Trial("only"), level(sweep, rung), 50.0)
            assert sum("only" in recorded for _, recorded in bracket._rungs) == rung + 1


class Suggesting(Searcher):
    """Suggests what it is told to, and notes what ended."""

    def __init__(self, values):
        super().__init__(metric="score", mode="max")
        self.values, self.ended = list(values), []

    def suggest(self, trial_id):
        return {"x": self.values.pop(0)} if self.values else None

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.ended.append((trial_id, result))

    def save(self, checkpoint_path): ...

    def restore(self, checkpoint_path): ...


def numbered(inner, numbers=(), baselines=()):
    return NumberedSearch(
        list(baselines), inner, dict(numbers), lambda values: Setting(values), lambda setting: setting.label
    )


def test_a_searcher_hears_the_score_of_the_rung_that_all_settings_have():
    inner = Suggesting([1, 2, 3])
    search = numbered(inner)
    for trial in ("a", "b", "c"):
        search.suggest(trial)
    low, high, failed = ({"score": score, "seed_scores": scores} for score, scores in ((60, [60]), (80, [80]), (0, [])))
    search.on_trial_result("a", low)
    search.on_trial_result("a", high)
    search.on_trial_complete("a", high)
    search.on_trial_complete("b", low)  # stopped after its first rung
    search.on_trial_result("c", low)
    search.on_trial_complete("c", failed)
    assert [result for _, result in inner.ended] == [low, low, failed]


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=12), num_concurrent=st.integers(1, 4), data=st.data())
def test_numbers_have_no_holes_and_no_number_is_two_settings_whatever_ends_first_and_whenever_it_is_interrupted(
    values, num_concurrent, data
):
    """Runs are interrupted after any number of events; what ended has a row, which is all that the next run knows."""
    rows = {}
    for run in range(4):
        fresh = [value for value in values if Setting({"x": value}) not in rows]
        inner = Suggesting([setting.values["x"] for setting in sorted(rows, key=rows.get)] + fresh)
        search, running, num_begun = numbered(inner, rows), {}, 0
        left = data.draw(st.integers(0, 20)) if run < 3 else None  # the last run ends by itself
        while left is None or left > 0:
            left = None if left is None else left - 1
            suggestion = search.suggest(f"t{num_begun}") if len(running) < num_concurrent else None
            if suggestion is not None:
                running[f"t{num_begun}"] = suggestion
                num_begun += 1
            elif running:
                name = data.draw(st.sampled_from(sorted(running)))
                ended = running.pop(name)
                assert rows.setdefault(Setting(ended["values"]), ended["number"]) == ended["number"]
                search.on_trial_complete(name, {"score": 1})
            else:
                break
    assert sorted(rows.values()) == list(range(len(set(values))))


def test_an_interrupted_run_goes_on_with_the_number_that_has_no_row():
    search = numbered(Suggesting("acde"), {Setting({"x": "a"}): 0, Setting({"x": "c"}): 2})
    assert [search.suggest(f"t{i}")["number"] for i in range(4)] == [0, 2, 1, 3]
    assert search.suggest("t4") is None


def test_a_setting_that_is_being_tried_waits_for_its_twin_and_keeps_its_number():
    inner = Suggesting("aab")
    search = numbered(inner, baselines=["real"])
    assert search.suggest("first") == {"baseline": "real"}
    search.on_trial_complete("first", {"score": 0})
    assert search.suggest("t0") == {"values": {"x": "a"}, "number": 0}
    assert search.suggest("t1") is None and search.suggest("t2") is None
    search.on_trial_complete("t0", {"score": 1})
    assert search.suggest("t3") == {"values": {"x": "a"}, "number": 0}
    assert search.suggest("t4") == {"values": {"x": "b"}, "number": 1}
    search.on_trial_complete("t3", {"score": 2})
    assert inner.ended == [("suggestion-0", {"score": 1}), ("suggestion-1", {"score": 2})]


class Trial:
    def __init__(self, trial_id):
        self.trial_id = trial_id


def test_tpe_repeats_and_learns_and_stays_in_the_space():
    def play(tried, count):
        search = tpe(sweep_of(), tried)
        settings = []
        for number in range(count):
            setting = decode(sweep_of(), search.suggest(f"t_{number}"))
            settings.append(setting)
            search.on_trial_complete(
                f"t_{number}", {"score": -abs(setting.values["generation.num_inference_steps"] - 20)}
            )
        return settings

    first = play([], 30)
    assert first == play([], 30)
    assert play(first[:5], 5) == first[:5]
    for setting in first:
        assert setting.values["generation.guidance_scale"] in (1, 2, 4) and setting.values[
            "generation.num_inference_steps"
        ] in range(5, 51, 5)
    early, late = (
        sum(abs(setting.values["generation.num_inference_steps"] - 20) for setting in part)
        for part in (first[:10], first[20:])
    )
    assert late < early / 2
