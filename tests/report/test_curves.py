"""Accuracy against guidance."""

import io

from PIL import Image
from report_rows import accuracy_row, experiment_rows

from raysd.report.cells import Searched, collect_cells
from raysd.report.curves import find_lines, guidance_plot
from raysd.report.figure import legend_text
from raysd.report.findings import find

BEST = {"variant": "name", "guidance_scale": 2.0, "clone": "ab"}


def plot_of(rows, best=BEST, title="test"):
    cells = collect_cells(rows)
    found = find(cells, best, "test" if best is None else "validation")
    return guidance_plot(cells, found, found.test, "accuracy", title)


def test_guidance_plot_has_a_white_card_and_says_its_numbers_in_words():
    plot = plot_of(experiment_rows())
    assert Image.open(io.BytesIO(plot.png)).convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert plot.svg.startswith("<?xml")
    assert "name: 68.1 at guidance 1, 69.3 at guidance 2" in plot.alt
    assert "real pictures: 83.3" in plot.alt and "random weights: 18.3" in plot.alt


def test_same_rows_give_the_same_svg():
    assert plot_of(experiment_rows()).svg == plot_of(experiment_rows()).svg


def test_names_with_dollar_signs_are_not_read_as_tex():
    rows = [accuracy_row(70.0, variant=r"$\nope$"), accuracy_row(60.0, variant=r"$\nope$", guidance=7.5)]
    assert plot_of(rows, None, "$x$ $").png


def test_real_with_another_number_of_pictures_says_so():
    rows = experiment_rows()
    for row in rows:
        if row["trained_on"]["kind"] == "real":
            row["trained_on"]["images_per_class"] = 6000
    assert "real pictures, 6,000 per class: 83.3" in plot_of(rows).alt


def test_lines_say_what_differs_beside_the_variant():
    rows = [accuracy_row(70.0, guidance=scale) for scale in (1.0, 2.0)] + [accuracy_row(60.0, 1, guidance=scale) for scale in (1.0, 2.0)]
    for row in rows[2:]:
        row["trained_on"] |= {"num_inference_steps": 50, "fingerprint": f"f{row['trained_on']['guidance_scale']}"}
    cells = collect_cells(rows)
    assert [line.label for line in find_lines(cells, cells.sets[0], 100)] == ["name, steps 20", "name, steps 50"]


def test_many_settings_become_dots_of_their_variant():
    rows = [accuracy_row(50.0 + i, guidance=1.0 + i / 7, classifier=f"{i}") for i in range(12)]
    searched = {str(i): Searched(f"setting {i}", (("training.rate", str(i)),)) for i in range(12)}
    cells = collect_cells(rows, (), searched)
    (line,) = find_lines(cells, cells.sets[0], 100)
    assert not line.joined and len(line.points) == 12
    found = find(cells, None, "test")
    assert guidance_plot(cells, found, found.test, "accuracy", "test").png


def test_settings_that_stand_alone_are_dots_of_their_variant():
    rows = [accuracy_row(50.0 + i, guidance=1.0 + i, classifier=f"{i}") for i in range(3)]
    searched = {str(i): Searched(f"setting {i}", (("training.rate", str(i)),)) for i in range(3)}
    cells = collect_cells(rows, (), searched)
    assert [(line.label, line.joined) for line in find_lines(cells, cells.sets[0], 100)] == [("name", False)]


def test_long_labels_are_wrapped_and_then_cut():
    lines = legend_text("word " * 60).splitlines()
    assert len(lines) == 3 and all(len(line) <= 46 for line in lines) and lines[-1].endswith("…")


def test_one_guidance_scale_has_a_row_for_each_prompt_variant():
    plot = plot_of(experiment_rows(("a", "b", "c"), (2.0,)), {**BEST, "variant": "a"})
    image = Image.open(io.BytesIO(plot.png))
    assert "b: 66.3 at guidance 2" in plot.alt and image.width > 1.5 * image.height


def test_one_guidance_scale_without_baselines_is_drawn():
    rows = [row for row in experiment_rows(("a", "b"), (2.0,)) if row["trained_on"]["kind"] == "clone"]
    assert plot_of(rows, {**BEST, "variant": "a"}).png
