import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.evaluation.metrics import mean_log_odds, per_class_accuracy, top1, wilson_interval
from raysd.evaluation.probe import choose_shots, linear_probe


def test_accuracies_are_counted_over_all_pictures_and_per_class():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 2, 2]]
    labels = np.array([0, 0, 1, 2, 2, 0])
    assert top1(logits, labels) == pytest.approx(100 * 4 / 6)
    assert per_class_accuracy(logits, labels) == pytest.approx([100 / 3, 100, 100])


def test_the_wilson_interval_has_its_textbook_value():
    low, high = wilson_interval(80, 50)
    assert (round(low, 1), round(high, 1)) == (67.0, 88.8)


@given(st.floats(0, 100), st.integers(1, 10_000))
def test_the_interval_holds_the_accuracy_and_stays_in_range(percent, count):
    low, high = wilson_interval(percent, count)
    assert 0 <= low <= percent + 1e-9 and percent - 1e-9 <= high <= 100


def test_log_odds_of_a_perfect_score_are_finite():
    assert mean_log_odds([50.0, 50.0], [10, 10]) == 0
    assert math.isfinite(mean_log_odds([100.0], [10]))


def test_shots_are_per_class_and_follow_the_seed():
    labels = np.repeat([0, 1, 2], 20)
    chosen = choose_shots(labels, 4, 7)
    assert np.bincount(labels[chosen]).tolist() == [4, 4, 4]
    assert np.array_equal(chosen, choose_shots(labels, 4, 7))
    assert not np.array_equal(chosen, choose_shots(labels, 4, 8))
    assert len(choose_shots(labels, None, 0)) == 60


def test_a_probe_finds_a_linear_rule_and_only_guesses_at_noise():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    features = rng.standard_normal((400, 10)).astype(np.float32)
    separable = features + 4 * np.eye(10)[labels]
    assert linear_probe((separable[:200], labels[:200]), (separable[200:], labels[200:]), 0) > 95
    assert linear_probe((features[:200], labels[:200]), (features[200:], labels[200:]), 0) < 50
