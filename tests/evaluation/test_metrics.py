from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from raysd.evaluation.metrics import mean_log_odds, per_class_accuracy, top1, wilson_interval


def test_top_k_counts_the_rank_of_the_right_class():
    rank = np.array([0, 1, 4, 5, 9])
    assert [top_k(rank, k) for k in (1, 2, 5, 10)] == pytest.approx([20, 40, 60, 100])


@given(st.integers(0, 1000), st.integers(1, 40))
def test_calibration_error_is_that_of_all_probabilities(seed, bins):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(4, 0.3), size=50)
    labels = rng.integers(0, 4, 50)
    expected = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=4, n_bins=bins, norm="l1")
    found = calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)
    assert found == pytest.approx(100 * float(expected), abs=1e-4)


def test_calibration_error_of_a_known_case():
    confidence = np.array([0.95] * 4 + [0.55] * 4, dtype=np.float32)
    correct = np.array([1, 1, 1, 0, 1, 1, 0, 0], dtype=bool)
    assert calibration_error(confidence, correct) == pytest.approx(100 * (0.5 * 0.20 + 0.5 * 0.05), abs=1e-4)


def test_log_odds_of_a_perfect_score_are_finite():
    assert mean_log_odds([50.0, 50.0], [10, 10]) == 0
    assert math.isfinite(mean_log_odds([100.0], [10]))
