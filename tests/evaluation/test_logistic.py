import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from raysd.evaluation.probes.logistic import LinearModel, LogisticProblem, fit_path

STRENGTHS = [10.0**power for power in range(-5, 7)]


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return features[::2].astype(np.float32), labels[::2], features[1::2].astype(np.float32), labels[1::2]


@pytest.fixture(scope="module")
def digits_path(digits):
    return fit_path(digits[0], digits[1], 10, STRENGTHS)


def exact(features, labels, strength):
    """Scikit-learn's Newton solver, run to the end in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-9, max_iter=100).fit(
            features.astype(np.float64), labels
        )


def objective(weights, bias, features, labels, strength):
    logits = features.astype(np.float64) @ weights + bias
    top = logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[np.arange(len(labels)), labels]
    return strength * losses.sum() + 0.5 * (weights.astype(np.float64) ** 2).sum()


def clusters(seed, count=60, dim=5, classes=3):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (rng.standard_normal((count, dim)) + 2 * rng.standard_normal((classes, dim))[labels]).astype(
        np.float32
    ), labels


@pytest.mark.parametrize("place", range(0, 12, 2))
def test_every_strength_reaches_the_minimum_of_scikit_learn(digits, digits_path, place):
    features, labels, test_features, test_labels = digits
    model, theirs = digits_path.models[place], exact(features, labels, STRENGTHS[place])
    ours = objective(model.weights, model.bias, features, labels, STRENGTHS[place])
    assert ours <= objective(theirs.coef_.T, theirs.intercept_, features, labels, STRENGTHS[place]) * (1 + 3e-5)
    accuracy = 100 * (model.predict(test_features) == test_labels).mean()
    assert accuracy == pytest.approx(100 * theirs.score(test_features, test_labels), abs=0.23)  # two images of 898


def test_weights_and_probabilities_are_those_of_scikit_learn(digits):
    features, labels, test_features, _ = digits
    model, theirs = fit_path(features, labels, 10, [0.01], tolerance=1e-8).models[0], exact(features, labels, 0.01)
    assert np.abs(model.weights - theirs.coef_.T).max() < 2e-3 * np.abs(theirs.coef_).max()
    powers = np.exp(model.logits(test_features) - model.logits(test_features).max(1, keepdims=True))
    assert np.abs(powers / powers.sum(1, keepdims=True) - theirs.predict_proba(test_features)).max() < 2e-3


def test_two_classes_follow_scikit_learn_too():
    features, labels = clusters(0, classes=2)
    model, theirs = fit_path(features, labels, 2, [0.05], tolerance=1e-8).models[0], exact(features, labels, 0.05)
    assert np.allclose(model.weights[:, 1] - model.weights[:, 0], theirs.coef_[0], atol=1e-3)
    assert model.bias[1] - model.bias[0] == pytest.approx(float(theirs.intercept_[0]), abs=1e-3)


def test_features_of_very_unlike_scales_reach_the_minimum_in_hundreds_of_iterations():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 600)
    scales = 10 ** rng.uniform(-3, 3, 100)
    features = (np.maximum(rng.standard_normal((600, 100)) + rng.standard_normal((5, 100))[labels], 0) * scales).astype(
        np.float32
    )
    features[:, :3] = 0
    features[:, 3] = 7
    path = fit_path(features, labels, 5, STRENGTHS)
    assert max(path.iterations) < 600  # plain L-BFGS takes many thousands
    model, theirs = path.models[3], exact(features, labels, STRENGTHS[3])
    ours = objective(model.weights, model.bias, features, labels, STRENGTHS[3])
    assert ours <= objective(theirs.coef_.T, theirs.intercept_, features, labels, STRENGTHS[3]) * (1 + 3e-5)
    assert all(np.isfinite(model.weights).all() and np.isfinite(model.bias).all() for model in path.models)
    assert np.abs(path.models[5].weights[:4]).max() < 1e-6


def test_more_features_than_images_lose_nothing():
    features, labels = clusters(1, count=20, dim=50)
    model, theirs = fit_path(features, labels, 3, [1.0], tolerance=1e-8).models[0], exact(features, labels, 1.0)
    assert np.abs(model.weights - theirs.coef_.T).max() < 2e-3 * np.abs(theirs.coef_).max()


def test_models_come_in_the_order_of_the_strengths():
    features, labels = clusters(2)
    path = fit_path(features, labels, 3, [10.0, 0.001, 1.0])
    lengths = [float(np.linalg.norm(model.weights)) for model in path.models]
    assert lengths[1] < lengths[2] < lengths[0]
    assert path.iterations[1] < path.iterations[0]


def test_a_start_at_the_minimum_ends_at_once():
    features, labels = clusters(3)
    problem = LogisticProblem(features, labels, 3)
    first = problem.fit_path([1.0])
    again = problem.fit_path([1.0], start=first.models[0])
    assert again.iterations[0] <= 2 < first.iterations[0]


def test_the_number_of_iterations_is_limited():
    features, labels = clusters(4)
    assert fit_path(features, labels, 3, [1e6], max_iterations=3).iterations == [3]


def test_features_without_any_variance_give_the_most_frequent_class():
    model = fit_path(np.ones((6, 4), np.float32), np.array([0, 1, 1, 1, 2, 2]), 3, [1.0]).models[0]
    assert model.predict(np.ones((2, 4), np.float32)).tolist() == [1, 1]


def test_a_model_predicts_its_largest_logit():
    model = LinearModel(np.eye(2, dtype=np.float32), np.array([0, 1], np.float32))
    assert model.predict(np.array([[3, 0], [0, 0]], np.float32)).tolist() == [0, 1]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(-20, 20), st.permutations([0, 1, 2]))
def test_order_shifts_and_names_of_classes_do_not_matter(seed, shift, names):
    features, labels = clusters(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    plain = fit_path(features, labels, 3, [0.1], tolerance=1e-10).models[0].logits(features)
    other = fit_path(
        features[order] + np.float32(shift), np.array(names)[labels[order]], 3, [0.1], tolerance=1e-10
    ).models[0]
    assert np.allclose(other.logits(features + np.float32(shift))[:, names], plain, atol=5e-3)
