import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ttest_1samp, ttest_rel

from raysd.statistics.seeds import (
    keep_best,
    margin_of_mean,
    margins_over_sets,
    noise_margin,
    pooled_spread,
    within_noise,
)

SCORES = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(0, 100) | st.just(math.nan))
)
SHARES = st.floats(0.01, 1)


def test_the_spread_is_that_of_a_two_way_layout():
    scores = np.array([[60.0, 62.0, 64.0], [50.0, 54.0, 52.0]])
    # The differences of the two settings are 10, 8, 12, so the residuals 0, -1, 1 and 0, 1, -1, with 2 degrees of
    # freedom.
    assert pooled_spread(scores) == (pytest.approx(math.sqrt(4 / 2)), 2)


@given(st.integers(0, 10_000))
def test_what_a_seed_does_to_all_settings_alike_is_no_spread(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(60, 5, (6, 3))
    shifted = scores + rng.normal(0, 10, (6, 1)) + rng.normal(0, 10, 3)
    assert pooled_spread(shifted) == (pytest.approx(pooled_spread(scores)[0]), 10)


def test_the_spread_estimates_the_noise():
    rng = np.random.default_rng(0)
    found = [pooled_spread(rng.normal(0, 2, (5, 3)))[0] ** 2 for _ in range(400)]
    assert np.mean(found) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    "scores",
    [[[60.0], [61.0]], [[60.0, 61.0]], [[60.0, 61.0], [math.nan] * 2]],
    ids=["one seed", "one setting", "one did not fail"],
)
def test_without_seeds_or_settings_to_compare_there_is_no_spread(scores):
    spread, freedom = pooled_spread(np.array(scores))
    assert math.isnan(spread) and freedom == 0
    assert math.isnan(noise_margin(np.array(scores), 0.975))


def test_failed_settings_leave_the_spread_as_it_is():
    scores = np.random.default_rng(0).normal(60, 1, (5, 3))
    assert pooled_spread(np.vstack([scores, np.full((1, 3), math.nan)])) == pooled_spread(scores)


def test_a_difference_of_two_settings_has_the_margin_of_the_paired_t_test():
    a, b = np.array([60.0, 61.5, 63.0]), np.array([58.0, 60.5, 60.0])
    low, high = ttest_rel(a, b).confidence_interval(0.95)
    assert noise_margin(np.stack([a, b]), 0.975) == pytest.approx((high - low) / 2)


@pytest.mark.parametrize(("num_settings", "num_seeds"), [(8, 2), (5, 3), (3, 2)])
def test_a_setting_as_good_as_the_reference_is_dropped_as_often_as_the_confidence_says(num_settings, num_seeds):
    rng, dropped, runs = np.random.default_rng(1), 0, 500
    for _ in range(runs):
        scores = 60 + rng.normal(0, 1.5, num_seeds) + rng.normal(0, 1, (num_settings, num_seeds))
        dropped += not within_noise(scores, 0)[1]
    assert 0.025 < dropped / runs < 0.08


def test_a_setting_far_below_the_reference_is_not_within_noise():
    scores = np.array([[60.0, 62.0, 61.0], [59.5, 61.0, 61.2], [50.0, 52.0, 51.5]])
    assert within_noise(scores, 0).tolist() == [True, True, False]
    assert within_noise(scores, 2).all()


def test_higher_confidence_never_drops_more():
    scores = np.random.default_rng(3).normal(60, 2, (10, 2))
    kept = [within_noise(scores, int(np.argmax(scores.mean(axis=1))), confidence) for confidence in (0.6, 0.9, 0.99)]
    assert all((less <= more).all() for less, more in itertools.pairwise(kept))
    assert kept[0].sum() < kept[-1].sum()


def test_with_one_seed_only_those_at_least_as_good_pass():
    scores = np.array([[60.0], [59.9], [60.0], [61.0], [math.nan]])
    assert within_noise(scores, 0).tolist() == [True, False, True, True, False]
    assert keep_best(scores, 0.4, within_noise=True) == [3, 0, 2]


def test_the_best_share_is_kept_best_first_and_ties_go_to_the_first():
    scores = np.array([[50.0], [60.0], [70.0], [60.0], [40.0]])
    assert keep_best(scores, 0.4, within_noise=False) == [2, 1]
    assert keep_best(scores, 0.41, within_noise=False) == [2, 1, 3]
    assert keep_best(scores, 0.01, within_noise=False) == [2]


def test_a_share_is_not_rounded_up_by_floating_point():
    assert len(keep_best(np.arange(100.0)[:, None], 0.07, within_noise=False)) == 7


def test_noise_is_counted_from_the_last_one_kept():
    scores = np.array([[70.0, 70.2], [60.0, 60.3], [60.0, 60.2], [40.0, 40.1]])
    assert keep_best(scores, 0.5, within_noise=False) == [0, 1]
    assert keep_best(scores, 0.5, within_noise=True) == [0, 1, 2]


@given(SCORES, SHARES)
def test_the_flag_only_adds_and_failed_ones_never_go_on(scores, share):
    plain, more = keep_best(scores, share, within_noise=False), keep_best(scores, share, within_noise=True)
    means = scores.mean(axis=1)
    assert more[: len(plain)] == plain
    assert not np.isnan(means[more]).any()
    alive = int((~np.isnan(means)).sum())
    assert len(plain) == min(alive, max(1, math.ceil(round(len(scores) * share, 9))))
    dropped = means[[index for index in range(len(scores)) if index not in plain and not math.isnan(means[index])]]
    assert not len(plain) or (dropped <= means[plain].min()).all()


def test_noise_seldom_costs_the_truly_best_setting():
    rng, lost, lost_without, runs = np.random.default_rng(2), 0, 0, 300
    truth = np.array([60.3, 60.0, 60.0, 60.0, 59.9, 59.5, 59.0, 58.0])
    for _ in range(runs):
        scores = truth[:, None] + rng.normal(0, 1.5, 2) + rng.normal(0, 1, (8, 2))
        lost += 0 not in keep_best(scores, 0.25, within_noise=True)
        lost_without += 0 not in keep_best(scores, 0.25, within_noise=False)
    assert lost / runs < 0.15 < 0.3 < lost_without / runs


def test_a_setting_alone_has_the_margin_of_its_own_seeds():
    scores = np.array([[60.0, 61.5, 63.0]])
    interval = ttest_1samp(scores[0], 0).confidence_interval(0.95)
    assert margin_of_mean(scores) == pytest.approx((interval.high - interval.low) / 2)
    both = np.vstack([scores, [[50.0, 52.0, 51.0]]])
    assert margin_of_mean(both) == pytest.approx(noise_margin(both, 0.975) / math.sqrt(2))


def test_margins_of_independent_sets_add_up_by_squares():
    assert margins_over_sets([(3.0, 6.0), (4.0, 8.0)]) == (2.5, 5.0)
