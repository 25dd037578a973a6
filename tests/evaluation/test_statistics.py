import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from raysd.errors import UserError
from raysd.statistics.images import bootstrap_interval, mcnemar, paired_difference, wilson_interval
from raysd.statistics.means import mean_log_odds, mean_over_sets
from raysd.statistics.seeds import independent_groups


def test_the_wilson_interval_has_its_textbook_value():
    low, high = wilson_interval(80, 50)
    assert (round(low, 1), round(high, 1)) == (67.0, 88.8)


@given(st.floats(0, 100), st.integers(1, 10_000))
def test_the_interval_holds_the_accuracy_and_stays_in_range(percent, count):
    low, high = wilson_interval(percent, count)
    assert 0 <= low <= percent + 1e-9 and percent - 1e-9 <= high <= 100


@pytest.mark.parametrize(
    ("count", "num_images"), [(0, 7), (7, 7), (320, 896), (320.5, 896), (0.25, 50), (1e5 / 3, 50_000)]
)
def test_the_interval_holds_all_shares_that_are_near_enough(count, num_images):
    """Wilson's ends are where the share is 1.96 standard errors of the end itself away."""
    for end in wilson_interval(100 * count / num_images, num_images):
        error = math.sqrt(end / 100 * (1 - end / 100) / num_images)
        away = abs(count / num_images - end / 100)
        assert away == pytest.approx(1.959964 * error, rel=1e-5, abs=1e-9)


def test_log_odds_of_a_perfect_score_are_finite():
    assert mean_log_odds([50.0, 50.0], [10, 10]) == 0
    assert math.isfinite(mean_log_odds([100.0], [10]))


def random_setting(rng, num_seeds, difficulty, own=0.0, seed_sd=0.0, shift=0.0):
    """Right or wrong [num_seeds, N]: images are hard for all settings or for this one, classifiers are good or bad,
    and the rest is chance."""
    num_images = len(difficulty)
    ease = 1 + shift + difficulty + rng.normal(0, own, num_images) + rng.normal(0, seed_sd, (num_seeds, 1))
    return ease + rng.logistic(size=(num_seeds, num_images)) > 0


def verdicts(num_seeds, runs=1000, num_images=400, **kind):
    """The share of comparisons of two settings of one kind that are not within noise."""
    rng, found = np.random.default_rng(1), 0
    for _ in range(runs):
        difficulty = rng.normal(0, 2, num_images)
        a, b = (random_setting(rng, count, difficulty, **kind) for count in num_seeds)
        found += paired_difference(a, b).verdict != "within noise"
    return found / runs


def test_the_bootstrap_of_right_and_wrong_agrees_with_wilson():
    correct = np.arange(2000) < 1600
    assert bootstrap_interval(correct) == pytest.approx(wilson_interval(80, 2000), abs=0.1)


def test_the_bootstrap_follows_its_seed_and_shrinks_with_more_images():
    correct = np.arange(200) % 4 > 0
    low, high = bootstrap_interval(correct, seed=3)
    assert (low, high) == bootstrap_interval(correct, seed=3) != bootstrap_interval(correct, seed=4, resamples=100)
    many_low, many_high = bootstrap_interval(np.tile(correct, 100))
    assert (high - low) / (many_high - many_low) == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("values", [4, 1000], ids=["few different values", "many"])
def test_the_bootstrap_of_shares_has_the_width_of_their_standard_error(values):
    shares = np.round(np.random.default_rng(0).random(1000) * values) / values
    low, high = bootstrap_interval(shares, resamples=4000)
    error = 100 * shares.std() / math.sqrt(1000)
    assert (low, high) == pytest.approx(
        (100 * shares.mean() - 1.96 * error, 100 * shares.mean() + 1.96 * error), abs=0.15 * error
    )


def test_mcnemar_has_its_exact_value_and_only_discordant_images_count():
    a, b = np.array([1] * 8 + [0] * 2 + [1] * 50), np.array([0] * 8 + [1] * 2 + [1] * 50)
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(a[:10], b[:10]) == mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(a, a) == 1


def test_one_classifier_each_gets_the_interval_of_adjusted_wald():
    """Bonett and Price 2012 in closed form, but for the center, which is the plain difference."""
    a, b = np.array([1] * 30 + [0] * 10 + [1] * 460), np.array([0] * 30 + [1] * 10 + [1] * 460)
    found = paired_difference(a, b)
    error = 100 * math.sqrt((42 / 500 - 500 * 0.04**2 / 500) / 501)
    assert found.difference == pytest.approx(4)
    assert (found.low, found.high) == pytest.approx((4 - 1.965 * error, 4 + 1.965 * error), abs=0.01)
    assert (found.verdict, found.counts_seeds) == ("better", False)
    assert found.p_value == pytest.approx(mcnemar(a, b), abs=0.003)


def test_few_discordant_images_show_no_difference():
    a, b = np.ones(10_000), np.ones(10_000)
    b[:4] = 0
    assert mcnemar(a, b) > 0.05
    assert paired_difference(a, b).verdict == "within noise"


def test_seeds_that_differ_on_all_images_alike_make_it_welchs_test():
    """With very many images only the classifiers' accuracies count."""
    num_images = 200_000
    accuracies_a, accuracies_b = np.array([0.70, 0.73, 0.72]), np.array([0.68, 0.60, 0.66, 0.63])
    rng = np.random.default_rng(0)
    a, b = (
        rng.random((len(accuracies), num_images)) < accuracies[:, None] for accuracies in (accuracies_a, accuracies_b)
    )
    found, welch = paired_difference(a, b), ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=False)
    low, high = welch.confidence_interval(0.95)
    assert found.counts_seeds
    assert found.p_value == pytest.approx(welch.pvalue, rel=0.03)
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=0.1)


def test_chance_in_seeds_and_images_is_counted_once():
    """Where each answer is sampled alone, the variance is p (1 - p) / N (1 / S_a + 1 / S_b); counting it twice would
    double it."""
    rng = np.random.default_rng(0)
    a, b = rng.random((60, 2000)) < 0.7, rng.random((60, 2000)) < 0.7
    found = paired_difference(a, b)
    assert (found.high - found.low) / 2 == pytest.approx(100 * 1.97 * math.sqrt(0.21 / 2000 * 2 / 60), rel=0.2)


@pytest.mark.parametrize(
    "kind",
    [{}, {"own": 1.5}, {"seed_sd": 0.4}, {"own": 1.0, "seed_sd": 0.12}],
    ids=["chance", "images", "seeds", "images and seeds"],
)
def test_settings_that_are_alike_are_seldom_told_apart(kind):
    assert 0.01 < verdicts((3, 3), **kind) < 0.07


def test_one_seed_against_several_borrows_their_spread():
    assert verdicts((1, 3), own=1.0, seed_sd=0.12) < 0.10


def test_one_seed_each_leaves_the_seeds_out_of_the_interval():
    """Why `counts_seeds` is there: real seed noise is taken for a difference far too often."""
    assert verdicts((1, 1), runs=200, seed_sd=0.4) > 0.3


def test_a_real_difference_is_found_in_both_directions():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 2, 2000)
    good, bad = (
        random_setting(rng, 3, difficulty, shift=1.0, seed_sd=0.05),
        random_setting(rng, 3, difficulty, seed_sd=0.05),
    )
    assert paired_difference(good, bad).verdict == "better"
    assert paired_difference(bad, good).verdict == "worse"


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.integers(2, 30))
def test_the_difference_turns_round_with_the_settings_and_fits_its_verdict(seed, num_a, num_b, num_images):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((count, num_images)) < rng.random() for count in (num_a, num_b))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.difference, there.low, there.high, there.p_value) == pytest.approx(
        (-back.difference, -back.high, -back.low, back.p_value), abs=1e-9
    )
    assert there.low <= there.difference <= there.high
    assert (there.verdict == "within noise") == (there.low <= 0 <= there.high)
    assert 0 <= there.p_value <= 1


def test_settings_on_different_images_cannot_be_compared():
    with pytest.raises(UserError, match="same images"):
        paired_difference(np.ones((3, 10)), np.ones((3, 11)))
    with pytest.raises(UserError, match="same images"):
        mcnemar(np.ones(10), np.ones(11))
    with pytest.raises(UserError, match="at least 2"):
        paired_difference(np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(UserError, match="at least one"):
        bootstrap_interval(np.zeros(0))


def test_a_mean_names_the_sets_it_lacks():
    found = mean_over_sets({"cars": 60.0, "dtd": None, "pets": 80.0, "food": math.nan})
    assert (found.mean, found.used, found.missing) == (70, ("cars", "pets"), ("dtd", "food"))
    assert mean_over_sets({"dtd": None}).mean is None


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_classifiers_count_by_clone_where_there_are_several(clones):
    groups = independent_groups(clones)
    assert sorted(place for group in groups for place in group) == list(range(len(clones)))
    assert len(groups) == (len(set(clones)) if len(set(clones)) > 1 else len(clones))
    assert all(len({clones[place] for place in group}) == 1 for group in groups)
