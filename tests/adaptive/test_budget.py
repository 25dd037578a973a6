from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysd.adaptive.budget import divide, images_after
from raysd.adaptive.select import Answers, choose, preferred
from raysd.adaptive.settings import AdaptiveSettings
from raysd.adaptive.ways import first_parts, next_parts
from raysd.data.images import LeftOut

ERRORS = st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=40)
CLASSIFIER = "0123456789abcdef"


def test_the_worked_example():
    assert [images_after(number, 100, 3, 0.4) for number in range(3)] == [40, 70, 100]
    assert divide(90, [10, 20, 30], 0.5).tolist() == [23, 30, 37]


@given(st.integers(0, 10_000), ERRORS, st.floats(0, 1))
def test_a_round_is_divided_exactly_and_no_class_gets_less_than_the_floor(total, errors, floor):
    counts = divide(total, errors, floor)
    assert counts.sum() == total and (counts >= int(total * floor / len(errors) - 1e-6)).all()


@given(st.integers(0, 10_000), st.lists(st.floats(0, 100), min_size=2, max_size=20), st.floats(0, 1))
def test_more_errors_never_mean_fewer_images(total, errors, floor):
    counts = divide(total, errors, floor)
    order = np.argsort(errors, kind="stable")
    assert (np.diff(counts[order]) >= -1).all()  # one image may go either way by rounding


@given(
    st.sampled_from(["uniform", "budgets", "entropy"]),
    st.integers(10, 500),
    st.integers(2, 6),
    st.floats(0.05, 0.9),
    st.lists(st.floats(0, 100), min_size=1, max_size=12),
)
def test_the_rounds_end_with_the_images_that_were_asked_for(way, images, rounds, share, accuracies):
    settings = AdaptiveSettings(way=way, num_rounds=rounds, first_share=share)
    parts = first_parts(settings, images, len(accuracies))
    seen = [sum(part.counts.array for part in parts)]
    for number in range(rounds - 1):
        parts = next_parts(settings, images, number, parts, accuracies, CLASSIFIER)
        seen.append(sum(part.counts.array for part in parts))
    assert seen[-1].sum() == images * len(accuracies)
    assert all((after >= before).all() for before, after in pairwise(seen))
    if way != "budgets":
        assert len(set(seen[-1].tolist())) == 1
    if way == "entropy":  # each image number once
        firsts = [part.changes.get("first_image", 0) for part in parts]
        counts = [part.counts.default for part in parts]
        assert firsts == [sum(counts[:number]) for number in range(len(counts))]


def test_the_worked_example_of_a_selection():
    assert preferred(10, (0.5, 0.95))[:4].tolist() == [9, 8, 7, 6]
    assert preferred(10, (0.5, 0.8))[:4].tolist() == [7, 6, 5, 4]


@given(st.integers(1, 5), st.integers(0, 6), st.integers(1, 12), st.integers(0, 12), st.randoms())
def test_a_selection_takes_as_many_of_each_class_and_leaves_earlier_images_alone(classes, first, more, count, random):
    labels, index = (part.ravel() for part in np.meshgrid(np.arange(classes), np.arange(first + more)))
    answers = Answers(labels, index, np.array([random.random() for _ in labels]))
    before = LeftOut(
        classes, np.packbits(np.array([random.random() < 0.5 for _ in range(first * classes)], dtype=bool)).tobytes()
    )
    after = choose(answers, before, first + more, first, count, (0.2, 0.9))
    kept = ~after.contains(labels, index)
    assert np.array_equal(kept[index < first], ~before.contains(labels, index)[index < first])
    assert np.bincount(labels[kept & (index >= first)], minlength=classes).tolist() == [min(count, more)] * classes
