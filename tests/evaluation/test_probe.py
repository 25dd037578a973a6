import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from raysd.errors import UserError
from raysd.evaluation.neighbours import predict_by_neighbours
from raysd.evaluation.probe import choose_shots, run_probe
from raysd.evaluation.settings import ProbeSettings
from raysd.evaluation.sgd import SgdSetting, fit_sgd

QUICK = ProbeSettings(trials=8)
DIGITS = load_digits()
FIRST, REST = train_test_split(np.arange(1797), train_size=600, stratify=DIGITS.target, random_state=0)
TRAIN, TEST = ((DIGITS.data[rows].astype(np.float32), DIGITS.target[rows].astype(np.int64)) for rows in (FIRST, REST))


def blobs(num=300, num_classes=3, distance=4.0, seed=0):
    """Classes around the corners of a simplex."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    features = rng.standard_normal((num, 10)).astype(np.float32) + distance * np.eye(10, dtype=np.float32)[labels]
    return (features[::2], labels[::2]), (features[1::2], labels[1::2])


def test_shots_are_per_class_and_follow_the_seed():
    labels = np.repeat([0, 1, 2], 20)
    chosen = choose_shots(labels, 4, 7)
    assert np.bincount(labels[chosen]).tolist() == [4, 4, 4]
    assert np.array_equal(chosen, choose_shots(labels, 4, 7))
    assert not np.array_equal(chosen, choose_shots(labels, 4, 8))
    assert len(choose_shots(labels, None, 0)) == 60
    with pytest.raises(UserError, match="class 2 has only 3"):
        choose_shots(np.array([0] * 5 + [2] * 3), 4, 0)


@pytest.mark.parametrize("kind", ["lbfgs", "sgd", "knn"])
def test_each_probe_finds_a_rule_and_only_guesses_at_noise(kind):
    probe = ProbeSettings(kind=kind, trials=5, epochs=20, scale="raw" if kind == "sgd" else None)
    train, test = blobs()
    assert run_probe(train, test, probe, 0).top1 > 95
    noise = np.random.default_rng(1).permutation(train[1])
    assert run_probe((train[0], noise), test, probe, 0).top1 < 60


def test_the_search_chooses_and_refits_as_scikit_learn_does():
    result = run_probe(TRAIN, TEST, ProbeSettings(trials=12), 3)
    fit, check = train_test_split(np.arange(600), test_size=120, stratify=TRAIN[1], random_state=3)

    def reference(rows, strength):
        return LogisticRegression(C=strength, max_iter=5000, tol=1e-6).fit(TRAIN[0][rows], TRAIN[1][rows])

    validation = reference(fit, result.chosen["C"]).score(TRAIN[0][check], TRAIN[1][check])
    assert result.chosen["validation_top1"] == pytest.approx(100 * validation, abs=0.1)
    assert result.top1 == pytest.approx(100 * reference(np.arange(600), result.chosen["C"]).score(*TEST), abs=0.1)
    assert result.top1 > 90 and result.chosen["trials"] == 12 and not result.chosen["at_edge"]


def test_tpe_asks_for_one_strength_after_another_and_repeats_by_its_seed():
    probe = ProbeSettings(search="tpe", trials=5)
    first, again = (run_probe(TRAIN, TEST, probe, 0) for _ in range(2))
    assert first.chosen == again.chosen and 1e-5 <= first.chosen["C"] <= 1e6 and first.top1 > 88


def test_one_shot_has_nothing_to_choose_on():
    result = run_probe(TRAIN, TEST, QUICK, 0, shots=1)
    assert result.chosen == {"C": 1.0, "trials": 0} and result.top1 > 40
    assert run_probe(TRAIN, TEST, QUICK, 0, shots=8).top1 > result.top1
    with pytest.raises(UserError, match="leaves nothing to choose"):
        run_probe(TRAIN, TEST, ProbeSettings(kind="sgd"), 0, shots=1)


def test_labels_may_have_gaps_and_the_classes_are_told_apart_as_without():
    shifted = [(features, labels * 7 + 5) for features, labels in (TRAIN, TEST)]
    plain, moved = run_probe(TRAIN, TEST, QUICK, 0), run_probe(*shifted, QUICK, 0)
    assert np.array_equal(moved.predictions, plain.predictions * 7 + 5)
    assert moved.mean_per_class == pytest.approx(plain.mean_per_class)


def test_neighbours_vote_as_in_scikit_learn():
    unit = [features / np.linalg.norm(features, axis=1, keepdims=True) for features in (TRAIN[0], TEST[0])]

    def weight(distance):
        return np.exp((1 - distance**2 / 2) / 0.07)  # the cosine, from the distance of unit vectors

    reference = KNeighborsClassifier(20, weights=weight).fit(unit[0], TRAIN[1]).predict(unit[1])
    found = predict_by_neighbours(TRAIN, TEST[0], 20)
    assert (found == reference).mean() > 0.998
    assert predict_by_neighbours(blobs()[0], blobs()[1][0], 10_000).shape == (150,)


def test_sgd_repeats_and_a_setting_that_diverges_is_none():
    train, _ = blobs()
    chosen = [SgdSetting(1.0, 1e-6), SgdSetting(1e30, 1e-4)]
    first, again = (fit_sgd(*train, 3, chosen, 5, 64, 0) for _ in range(2))
    assert np.array_equal(first[0].weights, again[0].weights) and first[1] is None
    alone = fit_sgd(*train, 3, chosen[:1], 5, 64, 0)[0]
    assert np.allclose(alone.weights, first[0].weights, atol=1e-4)


@settings(max_examples=8)
@given(st.integers(0, 1000), st.floats(-100, 100))
def test_the_order_of_pictures_and_a_shift_of_all_features_change_nothing(seed, shift):
    train, test = blobs(120, seed=seed)
    order = np.random.default_rng(seed).permutation(len(train[1]))
    one_shot = [run_probe(pair, test, ProbeSettings(kind="knn"), 0).predictions for pair in (train, (train[0][order], train[1][order]))]
    assert np.array_equal(*one_shot)
    moved = (train[0] + np.float32(shift), train[1]), (test[0] + np.float32(shift), test[1])
    assert (run_probe(train, test, QUICK, 0).predictions != run_probe(*moved, QUICK, 0).predictions).mean() < 0.03


BAD = {
    "'classes 3': have test pictures": ((blobs()[0]), (np.zeros((2, 10), np.float32), np.array([1, 3]))),
    "training.*has no pictures": ((np.zeros((0, 10), np.float32), np.zeros(0, np.int64)), blobs()[1]),
    "test.*has no pictures": (blobs()[0], (np.zeros((0, 10), np.float32), np.zeros(0, np.int64))),
    "features that are no numbers": ((np.full((4, 10), np.nan, np.float32), np.array([0, 0, 1, 1])), blobs()[1]),
    "is the only class": ((np.zeros((4, 10), np.float32), np.zeros(4, np.int64)), blobs()[1]),
    "class 2.*has one training picture": ((np.zeros((9, 10), np.float32), np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])), blobs()[1]),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_probed_is_one_line(message):
    with pytest.raises(UserError, match=message) as error:
        run_probe(*BAD[message], QUICK, 0)
    assert "\n" not in str(error.value)
