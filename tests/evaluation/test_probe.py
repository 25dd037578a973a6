import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from raysd.errors import UserError
from raysd.evaluation.probes.neighbors import predict_by_neighbors
from raysd.evaluation.probes.probe import choose_shots, probe_memory, run_probe
from raysd.evaluation.probes.sgd import fit_sgd
from raysd.evaluation.settings import ProbeSettings

QUICK_SGD = ProbeSettings(kind="sgd", trials=6, epochs=10, batch_size=64)


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return (features[::2].astype(np.float32), labels[::2]), (features[1::2].astype(np.float32), labels[1::2])


def separable(count=300, classes=3, gap=4.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (rng.standard_normal((count, 10)) + gap * np.eye(10)[labels]).astype(np.float32), labels


@pytest.mark.parametrize("kind", ["lbfgs", "sgd", "knn"])
def test_what_a_probe_reserves_grows_with_what_it_holds(kind):
    settings = ProbeSettings(kind=kind)
    whole = probe_memory(100_000, 10_000, 1000, 10, settings)
    assert 2 < whole / (4 * 100_000 * 1000) < 6
    assert probe_memory(200_000, 10_000, 1000, 10, settings) - whole >= 2 * 4 * 100_000 * 1000
    assert probe_memory(100_000, 20_000, 1000, 10, settings) - whole >= 4 * 10_000 * 1000
    if kind != "knn":
        more = probe_memory(100_000, 10_000, 1000, 10, ProbeSettings(kind=kind, trials=130))
        assert more - whole == 100 * 4 * 1000 * 10


def test_shots_are_per_class_and_follow_the_seed():
    labels = np.repeat([0, 1, 2], 20)
    chosen = choose_shots(labels, 4, 7)
    assert np.bincount(labels[chosen]).tolist() == [4, 4, 4]
    assert np.array_equal(chosen, choose_shots(labels, 4, 7))
    assert not np.array_equal(chosen, choose_shots(labels, 4, 8))
    assert len(choose_shots(labels, None, 0)) == 60


@pytest.mark.parametrize(
    "settings", [ProbeSettings(), ProbeSettings(search="tpe", trials=8), QUICK_SGD, ProbeSettings(kind="knn")]
)
@pytest.mark.parametrize("seed", [2**63 - 1])
def test_every_probe_takes_every_seed(settings, seed):
    assert run_probe(separable(), separable(seed=1), settings, seed).top1 > 95


@pytest.mark.parametrize(
    "settings", [ProbeSettings(), ProbeSettings(search="tpe", trials=8), QUICK_SGD, ProbeSettings(kind="knn")]
)
def test_every_probe_finds_a_rule_and_only_guesses_at_noise(settings):
    assert run_probe(separable(), separable(seed=1), settings, 0).top1 > 95
    assert run_probe(separable(gap=0), separable(gap=0, seed=1), settings, 0).top1 < 50


def test_the_chosen_strength_and_the_refit_are_those_of_scikit_learn(digits):
    (features, labels), test = digits
    result = run_probe(*digits, ProbeSettings(trials=12), 3)
    fit, held = train_test_split(
        np.arange(len(labels)), test_size=round(0.2 * len(labels)), stratify=labels, random_state=3
    )

    def fitted(strength, rows):
        return LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-8).fit(
            features[rows].astype(np.float64), labels[rows]
        )

    scores = {
        strength: 100 * fitted(strength, fit).score(features[held], labels[held])
        for strength in np.logspace(-5, 6, 12)[:8]
    }
    assert result.chosen["C"] == pytest.approx(
        max(scores, key=lambda strength: (round(scores[strength], 6), -strength))
    )
    assert result.chosen["validation_top1"] == pytest.approx(max(scores.values()))
    assert result.top1 == pytest.approx(
        100 * fitted(result.chosen["C"], np.arange(len(labels))).score(*test), abs=0.12
    )  # one image of 898
    assert not result.chosen["at_edge"] and result.chosen["trials"] == 12


def test_equal_strengths_are_decided_for_the_smallest():
    result = run_probe(separable(gap=40), separable(gap=40, seed=1), ProbeSettings(trials=5), 0)
    assert result.chosen["C"] == pytest.approx(1e-5) and result.chosen["at_edge"]
    assert result.chosen["validation_top1"] == 100


def test_tpe_finds_what_the_path_finds_and_repeats_itself(digits):
    settings = ProbeSettings(search="tpe", trials=6)
    first, again = (run_probe(*digits, settings, 0) for _ in range(2))
    assert first.chosen == again.chosen and first.chosen["trials"] == 6
    assert first.top1 == pytest.approx(run_probe(*digits, ProbeSettings(trials=10), 0).top1, abs=2)


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_few_shots_are_enough_for_an_easy_rule(shots):
    result = run_probe(separable(gap=8), separable(gap=8, seed=1), ProbeSettings(), 0, shots)
    assert result.top1 > 95
    assert (result.chosen["C"] == 1.0 and result.chosen["trials"] == 0) == (shots == 1)


def test_the_scale_is_used(digits):
    scores = {
        scale: run_probe(*digits, ProbeSettings(scale=scale, trials=3), 0).chosen["validation_top1"]
        for scale in ("raw", "l2", "standard")
    }
    assert len(set(scores.values())) == 3


def test_standard_scale_makes_units_irrelevant():
    (features, labels), (test, test_labels) = separable(gap=1), separable(gap=1, seed=1)
    units = np.array([1, 1e-4, 1e4, 1, 1, 1, 1, 1, 1, 1], np.float32)
    settings = ProbeSettings(scale="standard", trials=4)
    plain = run_probe((features, labels), (test, test_labels), settings, 0)
    scaled = run_probe((features * units + 3, labels), (test * units + 3, test_labels), settings, 0)
    assert np.mean(plain.predictions == scaled.predictions) > 0.99


@hypothesis_settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(-(10**6), 10**6), min_size=3, max_size=3, unique=True).map(sorted))
def test_labels_may_be_any_numbers(names):
    (features, labels), (test, test_labels) = separable(60, gap=1), separable(60, gap=1, seed=1)
    names, settings = np.array(names), ProbeSettings(trials=3)
    plain = run_probe((features, labels), (test, test_labels), settings, 0)
    named = run_probe((features, names[labels]), (test, names[test_labels]), settings, 0)
    assert np.array_equal(named.predictions, names[plain.predictions]) and named.predictions.dtype == np.int64
    assert named.top1 == plain.top1


def test_the_mean_per_class_weighs_classes_alike():
    train = separable()
    features, labels = separable(seed=1)
    labels = labels.copy()
    labels[0] = 1  # an image of class 0 under another name
    kept = np.concatenate([np.flatnonzero(labels == 0), [0]])
    result = run_probe(train, (features[kept], labels[kept]), ProbeSettings(trials=5), 0)
    assert result.top1 > 95 and result.mean_per_class == pytest.approx(50, abs=2)


def test_rare_classes_have_a_validation_image_too():
    features, labels = separable(200)
    labels = np.where(np.arange(200) < 196, labels % 2, 2)
    result = run_probe((features, labels), (features, labels), ProbeSettings(trials=3), 0)
    assert result.chosen["validation_top1"] > 0


def test_neighbors_vote_as_in_scikit_learn(digits):
    (features, labels), (test, _) = digits

    def weights(distances):
        return np.exp((1 - distances) / 0.07)

    theirs = KNeighborsClassifier(20, metric="cosine", weights=weights, algorithm="brute").fit(
        features.astype(np.float64), labels
    )
    ours = predict_by_neighbors(features, labels, test, 10, 20)
    assert np.mean(ours == theirs.predict(test.astype(np.float64))) > 0.998


def test_more_neighbors_than_images_are_all_images():
    result = run_probe(separable(6), separable(seed=1), ProbeSettings(kind="knn"), 0)
    assert result.chosen == {"neighbors": 6}


def test_sgd_repeats_itself_and_a_diverging_setting_does_not_disturb_the_others():
    features, labels = separable()
    features = features * np.float32(1e18)
    alone = fit_sgd(features, labels, 3, [1e-36], [0.0], 64, 5, 0)
    both = fit_sgd(features, labels, 3, [1e-36, 1e30], [0.0, 1e10], 64, 5, 0)
    assert both.diverged == [False, True]
    assert np.allclose(alone.models[0].weights, both.models[0].weights)
    assert not both.models[1].weights.any() and not both.models[1].bias.any()


def test_sgd_that_always_diverges_says_so():
    features, labels = separable()
    features = features * np.float32(3e38 / np.abs(features).max())
    with pytest.raises(UserError, match=r"scale = 'raw': SGD diverges"):
        run_probe((features, labels), (features, labels), ProbeSettings(kind="sgd", scale="raw", trials=2, epochs=2), 0)


def test_bad_input_is_said_in_one_line():
    features, labels = separable(30)
    good, settings = (features, labels), ProbeSettings(trials=2)
    broken = features.copy()
    broken[0, 0] = np.nan
    lone = np.where(np.arange(30) == 0, 7, labels)
    cases = [
        (good, (features, labels + 1), settings, None, r"test classes \[3\]"),
        (good, (features[:0], labels[:0]), settings, None, "0 test images"),
        ((features[:0], labels[:0]), good, settings, None, "0 training images"),
        ((broken, labels), good, settings, None, "training features that are not finite"),
        (good, (broken, labels), settings, None, "test features that are not finite"),
        ((features, labels * 0), (features, labels * 0), settings, None, "class 0 alone"),
        ((features, lone), good, settings, 2, r"classes \[7\] have fewer training images; ask for at most 1"),
        ((features, lone), good, settings, None, r"classes \[7\] with one training image"),
        (good, good, QUICK_SGD, 1, "shots = 1: sgd"),
    ]
    for train, test, probe, shots, message in cases:
        with pytest.raises(UserError, match=message) as error:
            run_probe(train, test, probe, 0, shots)
        assert "\n" not in str(error.value)
