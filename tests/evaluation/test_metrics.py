from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from raysd.errors import UserError
from raysd.evaluation.metrics import calibration_error, confusion_pairs, mean_per_class, per_class, top_k


def test_top_k_counts_the_rank_of_the_right_class():
    rank = np.array([0, 1, 4, 5, 9])
    assert [top_k(rank, k) for k in (1, 2, 5, 10)] == pytest.approx([20, 40, 60, 100])


@given(st.integers(0, 1000), st.integers(1, 40))
def test_calibration_error_is_that_of_all_probabilities(seed, bins):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(4, 0.3), size=50)
    labels = rng.integers(0, 4, 50)
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=4, n_bins=bins, norm="l1"
    )
    found = calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)
    assert found == pytest.approx(100 * float(expected), abs=1e-4)


def test_calibration_error_of_a_known_case():
    confidence = np.array([0.95] * 4 + [0.55] * 4, dtype=np.float32)
    correct = np.array([1, 1, 1, 0, 1, 1, 0, 0], dtype=bool)
    assert calibration_error(confidence, correct) == pytest.approx(100 * (0.5 * 0.20 + 0.5 * 0.05), abs=1e-4)


def test_calibration_error_bears_a_confidence_that_was_rounded_above_1():
    assert calibration_error(np.array([1.0000001, 1.0], dtype=np.float32), np.array([True, True])) == pytest.approx(
        0, abs=1e-6
    )


def test_a_class_without_images_has_no_accuracy_and_no_part_in_the_mean():
    labels, correct = np.array([0, 0, 2, 2, 2, 2]), np.array([1, 0, 1, 1, 1, 1], dtype=bool)
    assert per_class(labels, correct, 4) == [50, None, 100, None]
    assert mean_per_class(labels, correct, 4) == 75


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_confusion_pairs_are_the_most_frequent_mistakes(pairs):
    labels, predictions = np.array(pairs).T
    expected = Counter((label, prediction) for label, prediction in pairs if label != prediction)
    found = confusion_pairs(labels, predictions, most=5)
    assert {(label, prediction): count for label, prediction, count in found}.items() <= expected.items()
    assert [count for *_, count in found] == sorted(expected.values(), reverse=True)[:5]


@pytest.mark.parametrize(
    "measure",
    [
        lambda none: top_k(none, 1),
        lambda none: calibration_error(none, none),
        lambda none: mean_per_class(none, none, 3),
    ],
)
def test_no_images_have_no_accuracy(measure):
    with pytest.raises(UserError, match="at least one"):
        measure(np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize("measure", [lambda some: top_k(some, 0), lambda some: calibration_error(some, some, bins=0)])
def test_numbers_below_one_are_refused(measure):
    with pytest.raises(UserError, match="at least 1"):
        measure(np.zeros(3, dtype=np.int64))
