import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rung_rows import rung_result
from scipy.stats import ttest_rel

from raysd.sweep.analysis.ranking import rank_settings


def test_a_higher_rung_comes_first_and_within_a_rung_the_score():
    results = [
        rung_result(0, [70, 70]),
        rung_result(1, [60, 60]),
        rung_result(2, [65, 65]),
        rung_result(1, [62, 62], rung=1),
        rung_result(2, [61, 61], rung=1),
    ]
    ranking = rank_settings(results)
    assert [(row["rank"], row["label"], row["score"], row["images_per_class"]) for row in ranking] == [
        (1, "setting 1", 62.0, 100),
        (2, "setting 2", 61.0, 100),
        (3, "setting 0", 70.0, 25),
    ]


def test_settings_are_compared_at_the_highest_rung_that_both_reached():
    results = [
        *(rung_result(number, scores) for number, scores in enumerate([[60.0, 61.0], [50.0, 51.2], [59.0, 61.5]])),
        *(rung_result(number, scores, rung=1) for number, scores in [(0, [80.0, 81.0, 82.0]), (2, [79.0, 80.5, 80.0])]),
    ]
    first, second, third = rank_settings(results)
    assert (
        first["label"],
        first["difference"],
        first["difference_low"],
        first["difference_high"],
        first["compared_at"],
    ) == ("setting 0", 0, None, None, 100)
    assert (second["label"], second["compared_at"], second["num_seeds"]) == ("setting 2", 100, 3)
    assert second["difference"] == pytest.approx(np.mean([-1, -0.5, -2]))
    assert (third["label"], third["compared_at"], third["num_seeds"], third["difference"]) == (
        "setting 1",
        25,
        2,
        pytest.approx(-9.9),
    )


def test_two_settings_have_the_interval_of_the_paired_t_test():
    a, b = [60.0, 61.5, 63.0], [58.0, 60.5, 60.0]
    _, second = rank_settings([rung_result(0, a), rung_result(1, b)])
    interval = ttest_rel(b, a).confidence_interval(0.95)
    assert (second["difference_low"], second["difference_high"]) == pytest.approx((interval.low, interval.high))
    assert second["verdict"] == "within noise"


def test_only_a_difference_beyond_noise_is_worse():
    first, near, far = rank_settings(
        [rung_result(0, [60, 62, 61]), rung_result(1, [59.8, 61.5, 61]), rung_result(2, [50, 52.2, 51.1])]
    )
    assert (first["verdict"], near["verdict"], far["verdict"]) == ("best", "within noise", "worse")
    assert far["difference_high"] < 0 < near["difference_high"]


def test_a_shift_by_seed_that_all_settings_share_does_not_widen_intervals():
    scores = np.array([[60, 62, 61], [59, 61.5, 60.5], [55, 56.8, 56.1]])
    calm = rank_settings([rung_result(number, own) for number, own in enumerate(scores)])
    rough = rank_settings([rung_result(number, own + np.array([-9, 0, 9])) for number, own in enumerate(scores)])
    for before, after in zip(calm, rough, strict=True):
        assert before["verdict"] == after["verdict"]
        assert before["difference_high"] == pytest.approx(after["difference_high"])
        if before["rank"] > 1:
            assert (before["low"], before["high"]) == pytest.approx((after["low"], after["high"]))
    assert rough[0]["high"] - rough[0]["low"] > 3 * (calm[0]["high"] - calm[0]["low"]), (
        "the best one's is for any seeds"
    )


def test_one_seed_gives_no_interval_and_no_verdict_of_worse():
    _, second = rank_settings([rung_result(0, [60]), rung_result(1, [10])])
    assert [second[key] for key in ("low", "high", "difference_low", "difference_high")] == [None] * 4
    assert (second["difference"], second["verdict"]) == (-50, "unknown")


def test_a_setting_alone_on_its_rung_has_the_interval_of_its_own_seeds():
    results = [rung_result(0, [60, 61]), rung_result(1, [50, 51.5]), rung_result(0, [70, 72, 74], rung=1)]
    first, second = rank_settings(results)
    assert (first["low"], first["high"]) == pytest.approx((72 - 4.302653 * 2 / 3**0.5, 72 + 4.302653 * 2 / 3**0.5))
    assert second["compared_at"] == 25


def test_failed_settings_are_left_out_and_a_failed_rung_falls_back():
    results = [
        rung_result(0, [60, 61]),
        rung_result(1, []),
        rung_result(2, [59, 61]),
        rung_result(0, [65, 66], rung=1),
        rung_result(2, [], rung=1),
    ]
    assert [(row["label"], row["images_per_class"]) for row in rank_settings(results)] == [
        ("setting 0", 100),
        ("setting 2", 25),
    ]
    assert rank_settings([rung_result(0, [])]) == []


def test_settings_that_are_alike_are_seldom_called_worse():
    """Of two settings, so that the best is chosen by nothing but noise."""
    rng, runs = np.random.default_rng(0), 400
    found = [
        rank_settings([rung_result(number, rng.normal(60, 1, 3)) for number in range(2)])[1]["verdict"] == "worse"
        for _ in range(runs)
    ]
    assert 0.02 < np.mean(found) < 0.09


def nested(rng, num_clones, num_classifiers):
    """Scores of equal settings: a clone moves all of its classifiers by 0.9 points, each moves by 0.5 on its own."""
    return 60 + np.resize(rng.normal(0, 0.9, num_clones), num_classifiers) + rng.normal(0, 0.5, num_classifiers)


def test_classifiers_of_one_clone_count_as_one_or_too_many_settings_are_called_worse():
    rng, runs, num_settings, num_clones, num_classifiers = np.random.default_rng(0), 300, 4, 2, 4
    counted, each_by_itself, held = [], [], []
    for _ in range(runs):
        scores = [nested(rng, num_clones, num_classifiers) for _ in range(num_settings)]
        by_clone = rank_settings(
            [rung_result(number, own, clones=[f"{number}a", f"{number}b"]) for number, own in enumerate(scores)]
        )
        alone = rank_settings([rung_result(number, own) for number, own in enumerate(scores)])
        counted.append(any(row["verdict"] == "worse" for row in by_clone))
        each_by_itself.append(any(row["verdict"] == "worse" for row in alone))
        held.append(by_clone[0]["low"] <= 60 <= by_clone[0]["high"])
    assert np.mean(counted) <= 0.07 and np.mean(held) >= 0.93
    assert np.mean(each_by_itself) > 0.15


def test_unequal_numbers_of_classifiers_do_not_weigh_clones():
    first, second = rank_settings(
        [rung_result(0, [60, 64, 61], clones=["a", "b"]), rung_result(1, [62, 62, 62.8], clones=["c", "d"])]
    )
    assert (first["score"], first["num_clone_seeds"], first["num_seeds"]) == (pytest.approx(62.25), 2, 3)
    assert second["difference"] == pytest.approx(62.2 - 62.25)


@given(st.lists(st.lists(st.integers(0, 100), min_size=2, max_size=2), min_size=1, max_size=8), st.randoms())
def test_the_order_of_the_rows_does_not_matter(scores, random):
    results = [rung_result(number, own) for number, own in enumerate(scores)]
    shuffled = random.sample(results, len(results))
    ranking = rank_settings(shuffled)
    assert ranking == rank_settings(results)
    assert [row["score"] for row in ranking] == sorted((row["score"] for row in ranking), reverse=True)
    assert [row["verdict"] == "best" for row in ranking] == [row["rank"] == 1 for row in ranking]


def test_two_settings_of_one_number_are_two_settings():
    results = [rung_result(0, [70, 71]), rung_result(1, [72, 73]), {**rung_result(2, [60, 61]), "number": 1}]
    assert [each["score"] for each in rank_settings(results)] == [72.5, 70.5, 60.5]
