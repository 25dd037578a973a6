import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from raysd.errors import UserError
from raysd.evaluation import analyze as feature_analyses
from raysd.evaluation import fidelity as overlap
from raysd.evaluation.analyze import (
    analyze,
    class_coding_length,
    coding_length,
    intra_class_distance,
    rate_reduction,
    redundancy,
    sparsity,
)
from raysd.evaluation.fidelity import frechet_distance, precision_recall_density_coverage

SEEDS = st.integers(0, 10_000)


def random_features(seed, count=40, dimensions=6):
    return np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)


def direct_overlap(real, fake, k):
    """The definitions, image by image."""

    def distance(one, other):
        return math.dist(one.astype(float), other.astype(float))

    def radius(values, i):
        return sorted(distance(values[i], values[j]) for j in range(len(values)) if j != i)[k - 1]

    in_real = np.array([[distance(x, y) <= radius(real, i) + 1e-6 for y in fake] for i, x in enumerate(real)])
    in_fake = np.array([[distance(x, y) <= radius(fake, j) + 1e-6 for j, y in enumerate(fake)] for x in real])
    return (
        in_real.any(axis=0).mean(),
        in_fake.any(axis=1).mean(),
        in_real.sum() / (k * len(fake)),
        in_real.any(axis=1).mean(),
    )


def test_sparsity_counts_values_near_zero_at_any_scale():
    features = np.array([[0, 1, 2, 1e-6], [3, 0, -1, 1]], dtype=np.float32)
    assert sparsity(features) == sparsity(1000 * features) == 3 / 8
    assert sparsity(np.zeros((3, 4), dtype=np.float32)) == 1


@given(SEEDS)
def test_intra_class_distance_is_the_mean_over_pairs_then_classes(seed):
    features, labels = random_features(seed, 15), np.random.default_rng(seed).permutation([0] * 8 + [3] * 5 + [4] * 2)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = [np.mean([math.dist(x, y) for x, y in combinations(unit[labels == label], 2)]) for label in (0, 3, 4)]
    assert intra_class_distance(features, labels) == pytest.approx(np.mean(expected), rel=1e-4)


def test_intra_class_distance_knows_collapsed_and_opposite_classes():
    x = random_features(0, 1)
    assert intra_class_distance(np.repeat(x, 6, axis=0), np.zeros(6)) == pytest.approx(0, abs=1e-3)
    assert intra_class_distance(np.concatenate([x, -3 * x]), np.zeros(2)) == pytest.approx(2, rel=1e-5)
    assert intra_class_distance(random_features(0, 3), np.arange(3)) is None


@given(SEEDS)
def test_redundancy_is_the_mean_correlation_of_dimensions_that_vary(seed):
    features = random_features(seed) @ random_features(seed + 1, 6) + 3
    expected = np.mean([abs(np.corrcoef(features[:, i], features[:, j])[0, 1]) for i, j in combinations(range(6), 2)])
    constant = np.full((40, 2), [0.1, 0], dtype=np.float32)
    assert redundancy(np.concatenate([features, constant], axis=1)) == pytest.approx(expected, abs=1e-4)


def test_redundancy_is_one_for_copies_and_missing_without_two_dimensions():
    x = random_features(0, 50, 1)
    assert redundancy(np.concatenate([x, -2 * x, x + 7], axis=1)) == pytest.approx(1, abs=1e-5)
    assert redundancy(x) is None
    assert redundancy(random_features(0, 1)) is None


def test_coding_length_in_closed_form():
    """N unit vectors along all D axes have Z^T Z = N / D I; along one axis, a single eigenvalue N."""
    axes = np.tile(np.eye(4, dtype=np.float32), (5, 1)) * 3
    assert coding_length(axes) == pytest.approx(4 / 2 * math.log(1 + 1 / 0.5), rel=1e-6)
    assert coding_length(np.tile(axes[:1], (20, 1))) == pytest.approx(math.log(1 + 4 / 0.5) / 2, rel=1e-6)


def test_classes_that_are_orthogonal_gain_the_whole_rate_reduction():
    features, labels = np.tile(np.eye(4, dtype=np.float32), (5, 1)), np.tile(np.arange(4), 5)
    assert class_coding_length(features, labels) == pytest.approx(math.log(1 + 4 / 0.5) / 2, rel=1e-6)
    assert rate_reduction(features, labels) == pytest.approx(2 * math.log(3) - math.log(9) / 2, rel=1e-6)
    assert rate_reduction(features, np.zeros(20)) == 0


@given(SEEDS, st.integers(1, 12))
def test_coding_length_is_the_same_over_images_and_dimensions(seed, count):
    """With fewer images than dimensions, the smaller matrix is used; classes are weighted by size."""
    features = random_features(seed, count + 3)
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(float)
    labels = np.array([0] * count + [1] * 3)

    def rate(rows):
        return 0.5 * np.log(np.linalg.det(np.eye(6) + 6 / (len(rows) * 0.5) * rows.T @ rows))

    assert coding_length(features) == pytest.approx(rate(unit), rel=1e-4)
    expected = (count * rate(unit[:count]) + 3 * rate(unit[count:])) / (count + 3)
    assert class_coding_length(features, labels) == pytest.approx(expected, rel=1e-4)


@given(SEEDS)
def test_analyses_do_not_depend_on_the_order_or_on_names_of_classes(seed):
    rng = np.random.default_rng(seed)
    features, labels, order = random_features(seed), rng.integers(0, 4, 40), rng.permutation(40)
    assert analyze(features, labels) == pytest.approx(analyze(features[order], 7 * labels[order] + 1), rel=1e-4)


@pytest.mark.parametrize(
    "features", [np.zeros((0, 4)), np.zeros((1, 4)), np.zeros((6, 4)), np.full((6, 4), np.nan), np.ones((6, 1))]
)
def test_analyses_are_numbers_or_missing(features):
    values = analyze(features.astype(np.float32), np.arange(len(features)) // 2)
    assert len(values) == 6
    assert all(value is None or math.isfinite(value) for value in values.values())


def test_sums_in_parts_are_those_of_the_whole(monkeypatch):
    features, labels, fake = random_features(0, 300), np.arange(300) % 3, random_features(1, 200)
    whole = analyze(features, labels), frechet_distance(features, fake)
    monkeypatch.setattr(feature_analyses, "ROWS", 7)
    assert analyze(features, labels) == pytest.approx(whole[0], rel=1e-9)
    assert frechet_distance(features, fake) == pytest.approx(whole[1], rel=1e-9)


@settings(max_examples=20)
@given(SEEDS, st.integers(1, 5), st.floats(0, 3))
def test_overlap_is_that_of_its_definition(seed, neighbors, shift):
    real, fake = random_features(seed, 15, 3), random_features(seed + 1, 12, 3) + np.float32(shift)
    found = precision_recall_density_coverage(real, fake, neighbors)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(
        direct_overlap(real, fake, neighbors)
    )


def test_overlap_in_chunks_is_that_of_the_whole(monkeypatch):
    real, fake = random_features(0, 700), random_features(1, 500) + np.float32(0.5)
    whole = precision_recall_density_coverage(real, fake)
    monkeypatch.setattr(overlap, "WORKING_MEMORY", 0.02)
    assert precision_recall_density_coverage(real, fake) == whole


@settings(max_examples=15)
@given(SEEDS, st.integers(0, 20))
def test_identical_sets_cover_each_other_also_with_doubles_and_far_from_zero(seed, doubles):
    real = random_features(seed)
    real[:doubles] = real[0]
    real += 100
    found = precision_recall_density_coverage(real, np.random.default_rng(seed).permutation(real))
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_sets_far_apart_do_not_overlap():
    found = precision_recall_density_coverage(random_features(0), random_features(1) + 1000)
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_a_clone_of_one_kind_of_image_is_precise_but_covers_little():
    real = np.concatenate([random_features(0, 200), random_features(1, 200) + 50])
    found = precision_recall_density_coverage(real, random_features(2, 200))
    assert found.precision > 0.7
    assert max(found.recall, found.coverage) <= 0.5


@settings(max_examples=15)
@given(SEEDS)
def test_turning_and_shuffling_change_neither_overlap_nor_distance(seed):
    real, fake = random_features(seed), random_features(seed + 1, 30) + np.float32(0.5)
    turn = ortho_group.rvs(6, random_state=seed).astype(np.float32)
    order = np.random.default_rng(seed).permutation(30)
    assert precision_recall_density_coverage(real @ turn, fake[order] @ turn) == precision_recall_density_coverage(
        real, fake
    )
    assert frechet_distance(real @ turn, fake[order] @ turn) == pytest.approx(frechet_distance(real, fake), rel=1e-3)


@pytest.mark.parametrize("count", [10, 50, 500], ids=["fewer images than dimensions", "about as many", "more"])
def test_frechet_distance_of_a_set_to_itself_is_zero_and_of_a_shifted_one_the_shift(count):
    features = random_features(0, count, 64)
    assert 0 <= frechet_distance(features, features) < 1e-9
    assert frechet_distance(features, features + np.float32(0.5)) == pytest.approx(64 * 0.25, rel=1e-4)


def test_frechet_distance_of_sampled_normals_is_near_its_closed_form():
    """(m1 - m2)^2 + (s1 - s2)^2 of each independent dimension."""
    real, fake = random_features(0, 50_000, 3), random_features(1, 50_000, 3)
    scales, shift = np.array([2, 1, 0.5], dtype=np.float32), np.array([0, 1, -1], dtype=np.float32)
    assert frechet_distance(real, fake * scales + shift) == pytest.approx(1 + 1 + 1 + 0.25, rel=0.03)


@given(SEEDS, st.integers(10, 60))
def test_frechet_distance_is_that_of_the_matrix_root_and_the_same_both_ways(seed, count):
    real, fake = random_features(seed, count), random_features(seed + 1) @ random_features(seed + 2, 6)
    one, other = np.cov(real.T), np.cov(fake.T)
    expected = np.sum((real.mean(0) - fake.mean(0)) ** 2) + np.trace(one + other - 2 * np.real(sqrtm(one @ other)))
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(fake, real) == pytest.approx(frechet_distance(real, fake), rel=1e-9)


def test_sets_that_are_too_small_or_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"analysis\.neighbors = 5: give 1 to 4"):
        precision_recall_density_coverage(random_features(0, 5), random_features(1))
    with pytest.raises(UserError, match=r"analysis\.neighbors"):
        precision_recall_density_coverage(random_features(0), random_features(1), neighbors=0)
    for compare in (precision_recall_density_coverage, frechet_distance):
        with pytest.raises(UserError, match="same network"):
            compare(random_features(0), random_features(1, dimensions=5))
        with pytest.raises(UserError, match="finite"):
            compare(random_features(0), np.full_like(random_features(1), np.nan))
    with pytest.raises(UserError, match="at least 2"):
        frechet_distance(random_features(0, 1), random_features(1))
