from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.adaptive.budget import divide, images_after
from raysd.adaptive.course import Course
from raysd.adaptive.select import Answers, choose, preferred
from raysd.adaptive.settings import AdaptiveSettings
from raysd.adaptive.ways import first_parts, next_parts, pool_slice
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


COURSES = st.builds(
    AdaptiveSettings,
    way=st.sampled_from(["uniform", "budgets", "entropy"]),
    num_rounds=st.integers(2, 6),
    first_share=st.floats(0.05, 0.9),
    training=st.just("continued"),
    patience=st.one_of(st.none(), st.integers(1, 3)),
    max_rounds=st.integers(2, 12),
)
SELECT = AdaptiveSettings(way="select", window=(0.2, 0.9))


@given(COURSES, st.integers(10, 500), st.integers(1, 12), st.randoms())
def test_the_rounds_end_with_the_images_that_were_asked_for(settings, images, classes, random):
    course, parts = Course(), first_parts(settings, images, classes)
    seen, courses = [sum(part.counts.array for part in parts)], [course]
    while not course.is_last:
        accuracies = [random.choice([10.0, 50.0, 90.0]) for _ in range(classes)]
        course = course.after(sum(accuracies) / classes, settings)
        if course.grew:
            parts = next_parts(settings, images, course.step, parts, accuracies, CLASSIFIER)
        seen.append(sum(part.counts.array for part in parts))
        courses.append(course)
    assert seen[-1].sum() == images * classes
    assert all((after >= before).all() for before, after in pairwise(seen))
    assert [each.number for each in courses] == list(range(len(seen)))
    rounds = settings.num_rounds if settings.patience is None else settings.max_rounds
    assert len(seen) == rounds or (settings.patience is not None and len(seen) < rounds)
    if settings.way != "budgets":
        assert len(set(seen[-1].tolist())) == 1
    if settings.way == "entropy":  # each image number once
        firsts = [part.changes.get("first_image", 0) for part in parts]
        counts = [part.counts.default for part in parts]
        assert firsts == [sum(counts[:number]) for number in range(len(counts))]


def test_the_worked_example_of_stalls():
    settings = AdaptiveSettings(num_rounds=3, training="continued", patience=1, max_rounds=20)
    courses = [Course()]
    for accuracy in (60, 65, 64, 70, 70, 69):
        courses.append(courses[-1].after(accuracy, settings))
    assert [course.grew for course in courses] == [True, False, False, True, False, True, False]
    assert [course.is_last for course in courses] == [False] * 6 + [True]
    patient = settings.model_copy(update={"patience": 2})
    assert Course(grew=False, best=60.0).after(60.0, patient) == Course(1, 0, False, False, 1, 60.0)
    assert Course(stalls=1, best=60.0).after(60.0, patient).grew


def test_patience_goes_in_even_steps_to_that_of_all_images():
    settings = AdaptiveSettings(num_rounds=4, training="continued", patience=1, last_patience=7)
    assert [settings.patience_after(step) for step in range(4)] == [1, 3, 5, 7]
    assert not Course(3, 1, False, stalls=1, best=60.0).after(60.0, settings).grew
    assert Course(3, 1, False, stalls=2, best=60.0).after(60.0, settings).grew
    assert settings.identity()["last_patience"] == 7
    with pytest.raises(ValueError, match="set patience, where it begins"):
        AdaptiveSettings(training="continued", last_patience=2)


def test_the_last_round_that_is_allowed_has_all_images():
    settings = AdaptiveSettings(num_rounds=4, training="continued", patience=9, max_rounds=3)
    assert Course(1, 1, best=60.0).after(70.0, settings) == Course(2, 3, True, True, 0, 70.0)


def test_only_a_training_that_goes_on_can_be_waited_for():
    with pytest.raises(ValueError, match="set training to continued"):
        AdaptiveSettings(patience=1)
    assert AdaptiveSettings().identity().keys() == {"way", "num_rounds", "first_share", "round_epochs", "floor"}


def test_the_rate_rises_in_the_first_round_and_falls_in_the_last_one():
    assert [Course(number, is_last=number == 2).rates for number in range(3)] == [
        {"decay_share": 0},
        {"warmup_share": 0, "smallest_size_share": 1, "decay_share": 0},
        {"warmup_share": 0, "smallest_size_share": 1},
    ]


@given(st.integers(6, 500), st.integers(2, 6), st.floats(0.05, 0.9), st.floats(1, 5), st.integers(0, 4))
def test_pools_adjoin_and_the_images_chosen_from_them_are_those_that_were_asked_for(images, rounds, share, factor, at):
    settings = AdaptiveSettings(way="select", num_rounds=rounds, first_share=share, pool_factor=factor)
    at = min(at, rounds - 2)
    steps = [*range(at + 1), rounds - 1]  # the last step may come early
    slices = [pool_slice(settings, images, *pair) for pair in pairwise(steps)]
    first = first_parts(settings, images, 3)[0].counts.default
    assert first + sum(chosen for _, (chosen, _) in slices) == images
    ends = [start + size for start, (_, size) in slices]
    assert [start for start, _ in slices] == [first, *ends[:-1]]
    usual, (_, last) = pool_slice(settings, images, rounds - 2, rounds - 1)
    assert ends[-1] <= usual + last


def test_the_worked_example_of_a_selection():
    assert preferred(10, (0.5, 0.95))[:4].tolist() == [9, 8, 7, 6]
    assert preferred(10, (0.5, 0.8))[:4].tolist() == [7, 6, 5, 4]


@given(st.integers(1, 5), st.integers(0, 6), st.integers(1, 12), st.integers(0, 12), st.randoms())
def test_a_selection_takes_as_many_of_each_class_and_leaves_earlier_images_alone(classes, first, more, count, random):
    labels, index = (part.ravel() for part in np.meshgrid(np.arange(classes), np.arange(first + more)))
    agrees = np.array([random.random() < 0.5 for _ in labels], dtype=bool)
    answers = Answers(labels, index, np.array([random.random() for _ in labels]), agrees)
    before = LeftOut(
        classes, np.packbits(np.array([random.random() < 0.5 for _ in range(first * classes)], dtype=bool)).tobytes()
    )
    settings = SELECT.model_copy(update={"agreement": random.random() < 0.5})
    after = choose(answers, before, first + more, first, count, settings)
    kept = ~after.contains(labels, index)
    assert np.array_equal(kept[index < first], ~before.contains(labels, index)[index < first])
    assert np.bincount(labels[kept & (index >= first)], minlength=classes).tolist() == [min(count, more)] * classes


def test_with_agreement_images_that_are_taken_for_another_class_come_last():
    agrees = np.arange(10) % 2 == 0
    answers = Answers(np.zeros(10, dtype=int), np.arange(10), np.arange(10) / 10, agrees)

    def chosen(count, **changes):
        after = choose(answers, LeftOut(1, b""), 10, 0, count, SELECT.model_copy(update=changes))
        return np.flatnonzero(~after.contains(answers.labels, answers.index)).tolist()

    assert chosen(3) == [6, 7, 8]
    assert chosen(3, agreement=True) == [4, 6, 8]
    assert chosen(6, agreement=True) == [0, 2, 4, 6, 8, 9]
    assert "agreement" not in SELECT.identity()
    assert SELECT.model_copy(update={"agreement": True}).identity()["agreement"]
