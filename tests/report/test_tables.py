"""Tables and their texts."""

import csv
import io

from report_rows import accuracy_row, experiment_rows
from rich.console import Console

from raysd.report.cells import collect_cells
from raysd.report.summary import find
from raysd.report.tables.tables import (
    Column,
    Number,
    Table,
    gap_table,
    main_table,
    to_csv,
    to_markdown,
    to_rich,
    value_text,
)


def lacking_rows():
    """A whole experiment without one transfer set of one cell."""
    return [
        row
        for row in experiment_rows()
        if not (
            row["dataset"] == "usps-test"
            and row["trained_on"]["variant"] == "multiple"
            and row["trained_on"]["guidance_scale"] == 7.5
        )
    ]


def test_missing_transfer_set_is_a_dash():
    table = main_table(collect_cells(lacking_rows()))
    headings = [column.name for column in table.columns]
    row = next(line for line in to_markdown(table).splitlines() if line.startswith("| multiple | 7.5 |"))
    shown = dict(zip(headings, [part.strip() for part in row.strip("|").split("|")], strict=True))
    assert shown["usps-test, 5 shots"] == "-" and shown["mean transfer"] == "-"
    assert shown["kmnist-test, 5 shots"] != "-"


def test_baselines_are_the_last_rows_and_the_best_is_marked():
    cells = collect_cells(experiment_rows())
    names = [row[0] for row in main_table(cells, find(cells, None, "validation")).rows]
    assert names[-2:] == ["real (fashion_mnist-train)", "random initialization"]
    assert names.count("name (highest)") == 1


def test_csv_has_full_precision_and_empty_fields_for_what_is_missing():
    table = main_table(collect_cells(lacking_rows()))
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    row = next(row for row in rows if row["trained on"] == "multiple" and row["guidance"] == "7.5")
    assert row["usps-test, 5 shots mean"] == "" and row["mean transfer mean"] == ""
    assert abs(float(row["test sd"]) - 0.3) < 1e-9 and row["test seeds"] == "3"


def test_markdown_of_a_hostile_name_stays_one_inert_cell():
    text = to_markdown(Table("t", "t", (Column("a"), Column("b")), (("<script>x</script>|y\nz", 1),)))
    assert "<script" not in text.replace("\\<", "")
    assert len(text.splitlines()) == 5


def test_one_seed_shows_the_interval_over_images():
    assert value_text(main_table(collect_cells([accuracy_row(70.0)])).rows[0][-1]) == "70.0 [68.5, 71.5]"


def test_backbones_that_differ_get_a_column():
    table = main_table(collect_cells([accuracy_row(70.0), accuracy_row(60.0, 1, backbone="vit")]))
    assert "backbone" in [column.name for column in table.columns]


def test_rich_table_prints_markup_as_it_is():
    console = Console(file=io.StringIO(), width=200)
    console.print(to_rich(Table("t", "t", (Column("a"),), (("[red]x",),), ("a note",))))
    assert "[red]x" in console.file.getvalue() and "a note" in console.file.getvalue()


def test_gap_table_gives_percent_of_each_set():
    cells = collect_cells(experiment_rows())
    rows = {row[0]: value_text(row[-1]) for row in gap_table(cells, find(cells, None, "validation")).rows}
    assert rows["test"].startswith("78.5 [") and rows["test"].endswith("]")


def test_texts_that_a_spreadsheet_would_run_are_quoted_and_numbers_are_not():
    hostile = ["=1+1", "+1", "-1", "@a", "\tx", "\rx"]
    text = to_csv(Table("t", "t", (Column("=a"), Column("b")), tuple((value, -1.5) for value in hostile)))
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert head == ["'=a", "b"] and rows == [["'" + value.replace("\r", " "), "-1.5"] for value in hostile]


def test_markdown_has_no_entity_link_mention_mathematics_or_struck_text():
    text = to_markdown(Table("t", "t", (Column("a"),), (("&lt; $x$ ~~y~~ @user www.a.b http://a.b",),)))
    assert "\\&lt; \\$x\\$ \\~\\~y\\~\\~ \\@user www\\.a.b http\\://a.b" in text


def test_an_end_just_below_zero_keeps_its_sign():
    assert str(Number(-0.5, "+z.1f", "", -1.0, -0.04)) == "-0.5 [-1.0, -0.0]"


def test_the_metric_of_the_rows_is_named():
    rows = [accuracy_row(70.0), accuracy_row(60.0, role="transfer", metric="mean_per_class")]
    notes = main_table(collect_cells(rows)).notes
    assert (
        "top-1 accuracy and mean accuracy per class" in notes[0]
        and notes[1] == "On fashion_mnist-test, 5 shots: mean accuracy per class."
    )


def test_the_table_says_where_the_spread_is_that_of_one_clone():
    rows = [accuracy_row(70.0 + seed, seed) for seed in range(2)]
    assert any("for this one clone seed" in note for note in main_table(collect_cells(rows)).notes)
    rows[1]["trained_on"] |= {"fingerprint": "ff", "at_seed_0": rows[0]["trained_on"]["fingerprint"]}
    assert not any("clone seed" in note for note in main_table(collect_cells(rows)).notes)
