"""What a sweep says of its best setting and of the others is as often true as it claims."""

import numpy as np
import pytest
from scipy.stats import tukey_hsd

from raysd.statistics.images import paired_difference
from raysd.statistics.many import interval_of_best, margin_to_best, shrunk_best, tukey_p_value, tukey_quantile

RUNS = 1000


def sweeps(truth, num_seeds=3, common=0.0, seed=0):
    """Scores of many sweeps [S, K], with seed noise of 1 point, and what seeds do to all settings alike."""
    rng, shape = np.random.default_rng(seed), (RUNS, len(truth), num_seeds)
    return np.asarray(truth)[:, None] + rng.normal(0, 1, shape) + rng.normal(0, 1, (RUNS, 1, num_seeds)) * common


def test_the_quantile_is_the_one_of_the_studentized_range():
    # The standard table of the studentized range: 3.77 for 3 means and 12 degrees of freedom, 4.77 for 8 and 20.
    assert tukey_quantile(3, 12) * 2**0.5 == pytest.approx(3.77, abs=0.005)
    assert tukey_quantile(8, 20) * 2**0.5 == pytest.approx(4.77, abs=0.005)
    assert tukey_quantile(2, 10) == pytest.approx(2.228, abs=0.001), "Student's t"
    assert tukey_p_value(tukey_quantile(5, 9), 5, 9) == pytest.approx(0.05, abs=1e-4)
    assert tukey_p_value(-2.228, 2, 10) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize("count", [2, 8, 24])
def test_among_equal_settings_one_is_seldom_called_worse_and_the_best_ones_interval_holds(count):
    worse = held = 0
    for scores in sweeps([60.0] * count):
        means = scores.mean(axis=1)
        worse += means.min() < means.max() - margin_to_best(scores, count)
        low, high = interval_of_best(scores)
        held += low <= 60 <= high
    assert worse / RUNS <= 0.06 + 0.014, "0.06, and two standard errors of the simulation"
    assert held / RUNS >= 0.93


@pytest.mark.parametrize("truth", [[60.0, 59.0], [60.0] + [58.0] * 7, list(np.linspace(57, 60, 24))])
@pytest.mark.parametrize("common", [0.0, 2.0])
def test_the_interval_holds_where_settings_differ_and_seeds_shift_all(truth, common):
    held = 0
    for scores in sweeps(truth, common=common):
        low, high = interval_of_best(scores)
        held += low <= truth[int(scores.mean(axis=1).argmax())] <= high
    assert held / RUNS >= 0.93


def test_a_setting_that_is_truly_worse_is_found_when_the_gap_is_large():
    found = [
        (scores.mean(axis=1)[1:] < scores.mean(axis=1)[0] - margin_to_best(scores, 8)).mean()
        for scores in sweeps([60.0] + [55.0] * 7)
    ]
    assert np.mean(found) > 0.9


def test_the_shrunk_score_has_less_luck_in_it():
    all_scores = sweeps([60.0] * 8)
    raw = np.mean([scores.mean(axis=1).max() for scores in all_scores]) - 60
    shrunk = np.mean([shrunk_best(scores) for scores in all_scores]) - 60
    assert 0.7 < raw < 0.95 and abs(shrunk) < raw / 2
    far = [shrunk_best(scores) - scores.mean(axis=1).max() for scores in sweeps([80.0] + [60.0] * 7)]
    assert abs(np.mean(far)) < 0.3, "where settings differ by more than noise, nothing is taken away"


def test_one_seed_few_settings_and_failed_ones():
    assert interval_of_best(np.array([[60.0], [50.0]])) == (None, None)
    assert np.isnan(margin_to_best(np.array([[60.0], [50.0]]), 2))
    assert shrunk_best(np.array([[60.0], [50.0], [40.0], [30.0]])) == 60
    scores = sweeps([60.0] * 5)[0]
    with_failed = np.vstack([scores, np.full((1, 3), np.nan)])
    assert interval_of_best(with_failed) == interval_of_best(scores)
    assert shrunk_best(with_failed) == shrunk_best(scores)
    assert interval_of_best(np.full((3, 2), 50.0)) == (50.0, 50.0)


def test_a_comparison_of_two_that_were_picked_among_many_is_wider():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 400)) < 0.7, rng.random((3, 400)) < 0.6
    alone, among = paired_difference(a, b), paired_difference(a, b, num_settings=8)
    assert among.low < alone.low and among.high > alone.high and among.p_value > alone.p_value
    assert among.difference == alone.difference


def test_the_margin_is_that_of_tukeys_test_where_seeds_shift_nothing():
    scores = sweeps([60.0] * 4, num_seeds=4)[0]
    groups = [own - scores.mean(axis=0) + scores.mean() for own in scores]
    interval = tukey_hsd(*groups).confidence_interval(0.95)
    half = (interval.high - interval.low)[0, 1] / 2
    # The same quantile but for the degrees of freedom: 12 for groups, 9 for a layout by setting and seed.
    ratio = tukey_quantile(4, 9) / tukey_quantile(4, 12) * (12 / 9) ** 0.5
    assert margin_to_best(scores, 4) == pytest.approx(half * ratio, rel=1e-3)
