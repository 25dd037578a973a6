"""Classes that lag, and mix-ups."""

import io

from PIL import Image
from report_rows import accuracy_row

from raysd.report.cells import collect_cells
from raysd.report.classes import class_scores, confusion_table, lag_sentence, lag_table, per_class_plot
from raysd.report.summary import find


def found(*rows):
    return find(collect_cells(rows), None, "test")


def pairs(*counts):
    return [{"label": label, "prediction": prediction, "count": count} for label, prediction, count in counts]


def test_seeds_are_averaged_and_the_lowest_class_is_named():
    rows = [accuracy_row(70.0, 0, per_class=[90.0, 40.0, 80.0]), accuracy_row(70.0, 1, per_class=[90.0, 20.0, 80.0])]
    assert "bag, 30.0 %" in per_class_plot(class_scores(found(*rows))).alt


def test_of_many_classes_those_furthest_behind_are_shown():
    row = accuracy_row(
        50.0, per_class=[float(i) for i in range(1, 101)], class_names=[f"class {i}" for i in range(100)]
    )
    plot = per_class_plot(class_scores(found(row)))
    assert "30 classes of lowest accuracy" in plot.title and Image.open(io.BytesIO(plot.png)).height < 4000


def test_class_without_images_is_left_out():
    scores = class_scores(found(accuracy_row(70.0, per_class=[90.0, None, 80.0])))
    assert scores.order == [2, 0] and lag_sentence(scores) is None and lag_table(scores) is None


def test_classes_that_lag_are_named_and_those_ahead_are_not():
    scores = class_scores(
        found(
            accuracy_row(70.0, per_class=[60.0, 20.0, 99.0]),
            accuracy_row(80.0, kind="real", per_class=[70.0, 80.0, 90.0]),
        )
    )
    said = (
        "Furthest behind real images, of 3 classes: bag (-60.0 points), boot (-10.0 points). The extremes of "
        "many classes are partly chance."
    )
    assert lag_sentence(scores) == said
    assert [row[0] for row in lag_table(scores).rows] == ["bag", "boot"]


def test_no_class_behind_is_said():
    scores = class_scores(
        found(accuracy_row(70.0, per_class=[60.0] * 3), accuracy_row(50.0, kind="real", per_class=[50.0] * 3))
    )
    assert "No class lags" in lag_sentence(scores) and lag_table(scores) is None


def test_mix_ups_are_means_over_the_seeds_that_list_them():
    clone = [
        accuracy_row(70.0, 0, confusions=pairs(("coat", "bag", 90), ("bag", "boot", 20))),
        accuracy_row(70.0, 1, confusions=pairs(("coat", "bag", 100))),
    ]
    real = accuracy_row(80.0, kind="real", confusions=pairs(("boot", "bag", 12), ("bag", "boot", 7)))
    rows = confusion_table(found(*clone, real)).rows
    assert rows[0] == ("coat", "bag", "95", "2 of 2", "at most 7")
    assert rows[1] == ("bag", "boot", "20", "1 of 2", "7")


def test_rows_without_mix_ups_have_no_table():
    row = accuracy_row(70.0)
    del row["confusions"]
    assert confusion_table(found(row)) is None
    assert confusion_table(found(accuracy_row(70.0, confusions=[]))) is None


def test_mix_ups_without_real_images_have_no_column_for_them():
    assert [column.name for column in confusion_table(found(accuracy_row(70.0))).columns][-1] == "seeds that list it"


def test_real_images_are_not_compared_with_themselves():
    cells = collect_cells([accuracy_row(80.0, kind="real")])
    findings = find(cells, None, "test")
    scores = class_scores(findings)
    assert scores.real is None and lag_table(scores) is None
    assert [column.name for column in confusion_table(findings).columns][2:] == [
        "highest setting",
        "seeds that list it",
    ]


def test_classes_that_share_a_name_are_added_up():
    row = accuracy_row(70.0, confusions=pairs(("crane", "bag", 9), ("crane", "bag", 4), ("coat", "bag", 10)))
    assert [(line[0], line[2]) for line in confusion_table(found(row)).rows] == [("crane", "13"), ("coat", "10")]


def test_class_names_are_those_of_the_row():
    assert class_scores(found(accuracy_row(70.0, class_names=["a", "b", "c"]))).names == ("a", "b", "c")
