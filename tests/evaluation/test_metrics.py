import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.evaluation.metrics import mean_log_odds, per_class_accuracy, top1, wilson_interval


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
