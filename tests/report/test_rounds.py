import numpy as np

from raysd.report.plots.rounds import Adapted, comparable, growths_of, plot_rounds


def round_row(way, loop, number, images, accuracy, counts, **changes):
    return {
        "fingerprint": f"{way}{loop}{number}",
        "loop": f"{way}{loop}",
        "way": way,
        "number": number,
        "is_last": number == 1,
        "num_images": images,
        "class_names": ["cat", "dog $x$", "<owl>"],
        "decided_on": "pets",
        "accuracy": accuracy,
        "counts": counts,
        "device_seconds": images / 10,
        "clones": ["aa"],
        "training": "bb",
        **changes,
    }


def adaptive_row(way, rounds, date="2026-01-01", images_per_class=30, **settings):
    return {
        "fingerprint": f"{way}{date}",
        "way": way,
        "settings": {"way": way, "num_rounds": 2, "weight": 0.03, **settings},
        "images_per_class": images_per_class,
        "rounds": [row["fingerprint"] for row in rounds],
        "date": date,
    }


def rounds_of(way, last=(30, 30, 30), **changes):
    return [
        round_row(way, loop, number, images, 50 + 10 * number + loop, counts, **changes)
        for loop in (0, 1)
        for number, (images, counts) in enumerate([(45, [15, 15, 15]), (90, list(last))])
    ]


def test_ways_are_shown_beside_each_other_with_what_they_asked_for():
    even, budgets = rounds_of("uniform"), rounds_of("budgets", (20, 25, 45))
    found = comparable([adaptive_row("budgets", budgets), adaptive_row("uniform", even)], [*even, *budgets])
    assert [each.row["way"] for each in found] == ["uniform", "budgets"]
    assert np.allclose(found[0].course("accuracy"), [[50, 60], [51, 61]])
    plots = plot_rounds(found)
    assert [plot.name for plot in plots] == ["rounds", "rounds_seconds", "rounds_counts"]
    assert "50.5 to 60.5 %" in plots[0].alt and "<owl> with 45" in plots[2].alt and "cat with 20" in plots[2].alt


def test_rounds_without_new_images_are_one_point():
    early, late = ([(45, 50), (45, 52), (90, 60), (90, 61)], [(45, 51), (90, 63)])
    rows = [
        round_row("uniform", loop, number, images - loop, accuracy, [15, 15, 15], is_last=end, step=int(end), grew=grew)
        for loop, (course, growths) in enumerate(((early, (True, False, True, False)), (late, (True, True))))
        for number, ((images, accuracy), grew) in enumerate(zip(course, growths, strict=True))
        for end in [images == 90]
    ]
    settings = {"training": "continued", "patience": 1}
    (found,) = comparable([adaptive_row("uniform", rows, **settings)], rows)
    assert np.allclose(found.course("accuracy"), [[52, 61], [51, 63]])
    assert "training continued, patience 1" in found.label
    fewer = [*rows[:2], *rows[4:]]
    assert np.allclose(Adapted("", {}, tuple(fewer)).course("accuracy"), [[52], [51]])


def test_clones_of_other_sizes_or_classes_are_not_beside_the_newest_one():
    one = rounds_of("uniform")
    other = [{**row, "fingerprint": "b" + row["fingerprint"]} for row in rounds_of("budgets")]
    small = adaptive_row("budgets", other, "2026-01-02", images_per_class=10)
    found = comparable([adaptive_row("uniform", one, "2026-01-03"), small], [*one, *other])
    assert [each.row["way"] for each in found] == ["uniform"]
    unknown = [{**row, "device_seconds": None} for row in one]
    plots = plot_rounds(comparable([adaptive_row("uniform", unknown)], unknown))
    assert [plot.name for plot in plots] == ["rounds"] and plot_rounds([]) == []


def test_a_clone_without_its_rounds_is_left_out():
    assert comparable([adaptive_row("uniform", rounds_of("uniform"))], []) == []


def test_what_was_asked_for_is_shown_by_growth(monkeypatch):
    rows = [
        round_row("budgets", 0, number, 30, 50, counts, is_last=number == 4)
        for number in range(5)
        for counts in [[10 * (number + 1), 10 + number, 10 + 19 * number]]
    ]
    (found,) = comparable([adaptive_row("budgets", rows, num_rounds=5)], rows)
    growths = dict(growths_of(found))
    assert list(growths) == ["first round", "growth 1", "growth 2", "growth 3", "growth 4"]
    assert growths["first round"].tolist() == [10, 10, 10] and growths["growth 4"].tolist() == [10, 1, 19]
    monkeypatch.setattr("raysd.report.plots.rounds.MOST_GROWTHS", 3)
    few = dict(growths_of(found))
    assert list(few) == ["first round", "growths 1 to 2", "growths 3 to 4"]
    assert sum(few.values()).tolist() == sum(growths.values()).tolist()


def test_clone_seeds_that_grew_in_other_steps_share_the_first_and_the_last():
    sizes = {0: [(0, True), (1, True), (2, True), (3, True)], 1: [(0, True), (0, False), (3, True)]}
    rows = [
        round_row("uniform", loop, number, 30, 50 + step, [10 * (step + 1)] * 3, is_last=step == 3, grew=grew)
        for loop, steps in sizes.items()
        for number, (step, grew) in enumerate(steps)
    ]
    settings = {"num_rounds": 4, "training": "continued", "patience": 1}
    for own in (rows, [{**row, "step": (row["accuracy"] - 50)} for row in rows]):  # older versions wrote no step
        (found,) = comparable([adaptive_row("uniform", own, **settings)], own)
        assert np.allclose(found.course("accuracy"), [[50, 53], [50, 53]])
        assert [name for name, _ in growths_of(found)] == ["first round", "growths 1 to 3"]
