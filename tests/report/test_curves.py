"""Accuracy against guidance."""

import io

from PIL import Image
from report_rows import accuracy_row, experiment_rows

from raysd.report.cells import collect_cells
from raysd.report.plots.curves import find_lines, guidance_plot, plot_curves
from raysd.report.plots.figure import legend_text
from raysd.report.summary import find


def plot_of(rows):
    cells = collect_cells(rows)
    found = find(cells, None, "test")
    return guidance_plot(cells, found, found.test, 100)


def test_guidance_plot_has_a_white_card_and_says_its_numbers_in_words():
    plot = plot_of(experiment_rows())
    assert Image.open(io.BytesIO(plot.png)).convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert plot.svg.startswith("<?xml")
    assert "name: 68.1 at guidance 1, 69.3 at guidance 2" in plot.alt
    assert "real images: 83.3" in plot.alt and "random weights: 18.3" in plot.alt


def test_same_rows_give_the_same_svg():
    assert plot_of(experiment_rows()).svg == plot_of(experiment_rows()).svg


def test_names_with_dollar_signs_are_not_read_as_tex():
    rows = [
        accuracy_row(70.0, variant=r"$\nope$"),
        accuracy_row(60.0, variant=r"$\nope$", guidance=7.5, dataset="$x$ $"),
    ]
    assert plot_of(rows).png


def test_real_with_another_number_of_images_says_so():
    rows = experiment_rows()
    for row in rows:
        if row["trained_on"]["kind"] == "real":
            row["trained_on"]["images_per_class"] = 6000
    assert "real images, 6,000 per class: 83.3" in plot_of(rows).alt


def test_lines_say_what_differs_beside_the_variant():
    rows = [accuracy_row(70.0, guidance=scale) for scale in (1.0, 2.0)] + [
        accuracy_row(60.0, 1, guidance=scale) for scale in (1.0, 2.0)
    ]
    for row in rows[2:]:
        row["trained_on"] |= {"num_inference_steps": 50, "fingerprint": f"f{row['trained_on']['guidance_scale']}"}
    cells = collect_cells(rows)
    assert [line.label for line in find_lines(cells, cells.sets[0], 100)] == ["name, steps 20", "name, steps 50"]


def results_of(count):
    return [
        {"label": f"setting {i}", "setting": {"training.rate": i}, "images_per_class": 100, "classifiers": [str(i)]}
        for i in range(count)
    ]


def test_many_settings_become_dots_of_their_variant():
    rows = [accuracy_row(50.0 + i, guidance=1.0 + i / 7, classifier=f"{i}") for i in range(12)]
    cells = collect_cells(rows, (), results_of(12))
    (line,) = find_lines(cells, cells.sets[0], 100)
    assert not line.joined and len(line.points) == 12
    assert guidance_plot(cells, None, cells.sets[0], 100).png


def test_settings_that_stand_alone_are_dots_of_their_variant():
    rows = [accuracy_row(50.0 + i, guidance=1.0 + i, classifier=f"{i}") for i in range(3)]
    cells = collect_cells(rows, (), results_of(3))
    assert [(line.label, line.joined) for line in find_lines(cells, cells.sets[0], 100)] == [("name", False)]


def test_long_labels_are_wrapped_and_then_cut():
    lines = legend_text("word " * 60).splitlines()
    assert len(lines) == 3 and all(len(line) <= 46 for line in lines) and lines[-1].endswith("…")


def test_one_guidance_scale_has_a_row_for_each_prompt_variant():
    plot = plot_of(experiment_rows(("a", "b", "c"), (2.0,)))
    image = Image.open(io.BytesIO(plot.png))
    assert "b: 66.3 at guidance 2" in plot.alt and image.width > 1.5 * image.height


def test_one_guidance_scale_without_baselines_is_plotted():
    rows = [row for row in experiment_rows(("a", "b"), (2.0,)) if row["trained_on"]["kind"] == "clone"]
    assert plot_of(rows).png


def test_of_many_lines_the_best_are_named_and_the_rest_counted():
    rows = [accuracy_row(70.0 - i, variant=f"v{i}", guidance=scale) for i in range(20) for scale in (1.0, 2.0)]
    plot = plot_of(rows)
    assert "v7: 63.0" in plot.alt and "v8" not in plot.alt and "12 others, all lower" in plot.alt
    assert (
        len(plot_of([row | {"trained_on": {**row["trained_on"], "guidance_scale": 2.0}} for row in rows[::2]]).alt)
        < 900
    )


def test_a_label_that_begins_with_an_underscore_is_in_the_legend():
    rows = [accuracy_row(70.0, variant=name, guidance=scale) for name in ("b", "_a") for scale in (1.0, 2.0)]
    other = [
        {**row, "trained_on": {**row["trained_on"], "variant": row["trained_on"]["variant"].replace("_a", "a")}}
        for row in rows
    ]
    assert (
        plot_of(rows).svg.count("legend") == plot_of(other).svg.count("legend")
        and Image.open(io.BytesIO(plot_of(rows).png)).size == Image.open(io.BytesIO(plot_of(other).png)).size
    )


def rung_rows():
    """Two settings of which one was measured on test and transfer with 100 images per class, and both on validation
    with 25."""
    rows = [
        accuracy_row(60.0, role="validation", guidance=scale, classifier=f"c{scale}", fingerprint=f"f{scale}")
        for scale in (1.0, 2.0)
    ]
    for row in rows:
        row["trained_on"]["images_per_class"] = 25
    return [*rows, *(accuracy_row(70.0, role=role) for role in ("validation", "test", "transfer"))]


def test_each_set_is_plotted_where_the_most_settings_have_it_and_at_the_last():
    cells = collect_cells(rung_rows())
    plotted = {plot.name: plot.alt for plot in plot_curves(cells, None, ("validation", "test", "shift", "transfer"))}
    assert list(plotted) == [
        "accuracy-validation-25",
        "accuracy-validation-100",
        "accuracy-test-100",
        "transfer-fashion_mnist-test-5-shots-100",
    ]
    assert all("at guidance" in alt for alt in plotted.values())


def test_a_set_that_no_clone_was_measured_on_has_no_figure():
    assert plot_curves(collect_cells([accuracy_row(80.0, kind="real")]), None, ("test",)) == []


def test_the_metric_of_the_rows_is_named():
    cells = collect_cells([accuracy_row(70.0, role="transfer", metric="mean_per_class")])
    assert "Mean accuracy per class in percent" in plot_curves(cells, None, ("transfer",))[0].alt


def test_titles_hold_the_images_per_class_however_long_the_name_of_the_set_is():
    cells = collect_cells([accuracy_row(70.0, role="transfer", dataset="x" * 80)])
    (plot,) = plot_curves(cells, None, ("transfer",))
    assert plot.title.endswith("(10,000), 100 per class") and len(plot.title) <= 52 and "x" * 80 in plot.alt
