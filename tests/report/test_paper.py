"""The published numbers beside ours."""

from report_rows import accuracy_row

from raysd.prompts.table import load_class_table
from raysd.report.cells import collect_cells
from raysd.report.summary import find
from raysd.report.tables.paper import OTHER_DATA, paper_table


def table_of(*rows):
    cells = collect_cells(rows)
    return paper_table(cells, find(cells, None, "test"))


def test_other_data_sets_are_called_incomparable_and_keep_a_column_of_their_own():
    table = table_of(accuracy_row(70.0), accuracy_row(60.0, guidance=7.5))
    best, usual = table.rows[-2:]
    assert OTHER_DATA in table.notes
    assert best[0] == "ours: highest" and best[4:9] == (None,) * 5 and best[-1].startswith("70.0")
    assert usual[0] == "ours: highest at guidance 7.5" and usual[-1].startswith("60.0")


def test_published_numbers_are_those_of_the_paper():
    rows = {(row[0], row[2], row[3]): row[4] for row in table_of(accuracy_row(70.0)).rows}
    assert (
        rows["paper: IN-1K-SD", 7.5, "name, definition"] == "26.2"
        and rows["paper: IN-1K-SD", 2.0, "name, definition"] == "42.9"
    )


def test_imagenet_100_stands_in_the_papers_columns():
    names = load_class_table("imagenet100").names
    rows = [
        accuracy_row(60.0, dataset="imagenet_val-test", class_names=names, per_class=[60.0] * 100),
        accuracy_row(40.0, role="shift", dataset="imagenet_sketch-test", class_names=names, per_class=[40.0] * 100),
    ]
    table = table_of(*rows)
    assert OTHER_DATA not in table.notes and "our test set" not in [column.name for column in table.columns]
    assert table.rows[-1][4].startswith("60.0") and table.rows[-1][6].startswith("40.0") and table.rows[-1][5] is None


def test_a_hundred_other_classes_are_not_taken_for_imagenet():
    row = accuracy_row(
        60.0, dataset="imagenet_val-test", class_names=[f"c{i}" for i in range(100)], per_class=[60.0] * 100
    )
    assert OTHER_DATA in table_of(row).notes


def test_without_clones_the_paper_stands_alone():
    cells = collect_cells([accuracy_row(90.0, kind="real")])
    table = paper_table(cells, find(cells, None, "test"))
    assert not any(row[0].startswith("ours") for row in table.rows) and OTHER_DATA not in table.notes
