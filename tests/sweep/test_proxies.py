from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rung_rows import rung_result
from tiny_sweep import EXPERIMENT

from raysd.config import load_experiment
from raysd.sweep import proxies
from raysd.sweep.analysis.proxies import proxy_regrets
from raysd.sweep.space import rungs_of


def results_of(proxy, values, scores, rung=0):
    return [
        rung_result(number, [score], rung, proxies={} if value is None else {proxy: value})
        for number, (value, score) in enumerate(zip(values, scores, strict=True))
    ]


def test_the_regret_is_what_the_proxys_pick_lacks():
    (row,) = proxy_regrets(results_of("coverage", [0.9, 0.5, 0.1], [60.0, 62.5, 50.0]))
    assert row == {
        "proxy": "coverage",
        "better": "higher",
        "images_per_class": 25,
        "pick": "setting 0",
        "pick_score": 60.0,
        "best_score": 62.5,
        "regret": 2.5,
        "spearman": pytest.approx(0.5),
        "num_settings": 3,
    }


def test_a_lower_distance_is_better_and_agreement_is_one():
    (row,) = proxy_regrets(results_of("frechet_distance", [3.0, 1.0, 2.0, 9.0], [60.0, 80.0, 70.0, 10.0]))
    assert (row["better"], row["pick"], row["regret"], row["spearman"]) == ("lower", "setting 1", 0.0, pytest.approx(1))


def test_few_settings_or_constant_values_have_no_correlation():
    assert proxy_regrets(results_of("recall", [0.1, 0.2], [1.0, 2.0]))[0]["spearman"] is None
    assert proxy_regrets(results_of("recall", [0.1] * 4, [1.0, 2.0, 3.0, 4.0]))[0]["spearman"] is None
    assert proxy_regrets(results_of("recall", [0.1, 0.2, 0.3], [5.0] * 3))[0]["spearman"] is None


def test_equal_values_pick_the_setting_that_was_tried_first():
    assert proxy_regrets(results_of("recall", [0.1, 0.2, 0.2], [1.0, 2.0, 3.0])[::-1])[0]["pick"] == "setting 1"


def test_each_proxy_is_judged_where_the_most_settings_have_it():
    low, high = (
        results_of("coverage", [None, 0.5, 0.6], [1.0, 2.0, 3.0]),
        results_of("coverage", [0.1, 0.2, 0.3], [4.0, 6.0, 5.0], rung=1),
    )
    (row,) = proxy_regrets([*low, *high])
    assert (row["images_per_class"], row["num_settings"], row["regret"]) == (100, 3, 1.0)
    (row,) = proxy_regrets([*low, *high[1:]])
    assert (row["images_per_class"], row["num_settings"]) == (100, 2)
    (row,) = proxy_regrets([*low, high[1]])
    assert (row["images_per_class"], row["num_settings"]) == (25, 2)


def test_failed_settings_and_absent_proxies_are_left_out():
    failed = rung_result(7, [], proxies={"coverage": 1.0})
    (row,) = proxy_regrets([failed, *results_of("coverage", [0.5, None], [60.0, 90.0])])
    assert (row["pick"], row["best_score"], row["num_settings"]) == ("setting 0", 60.0, 1)
    assert proxy_regrets([failed, rung_result(0, [60])]) == []


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 100)), min_size=1, max_size=10),
    st.sampled_from(["density", "frechet_distance"]),
)
def test_a_regret_is_never_negative_and_a_proxy_that_is_the_score_has_none(pairs, proxy):
    (row,) = proxy_regrets(results_of(proxy, [value for value, _ in pairs], [score for _, score in pairs]))
    assert row["regret"] >= 0 and (row["spearman"] is None or -1 - 1e-9 <= row["spearman"] <= 1 + 1e-9)
    sign = -1 if proxy == "frechet_distance" else 1
    (perfect,) = proxy_regrets(results_of(proxy, [sign * score for _, score in pairs], [score for _, score in pairs]))
    assert perfect["regret"] == 0


def test_without_the_classifier_of_real_images_a_sweep_goes_on_without_proxies(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "raysd")
    experiment = load_experiment(EXPERIMENT, storage=str(tmp_path))
    run = SimpleNamespace(fingerprint=lambda seed: "abc", settings=experiment.training)
    monkeypatch.setattr(proxies, "baseline_run", lambda *_: run)  # its training failed
    results = results_of("recall", [None], [60.0])
    proxies.note_proxies(experiment, results, rungs_of(experiment), "")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("no proxies: ") and results[0]["proxies"] == {}
