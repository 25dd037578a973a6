"""Plots and sample grids."""

import io

import numpy as np
import pytest
from PIL import Image
from report_rows import accuracy_row, experiment_rows, write_clone

from raysd.report.cells import collect_cells
from raysd.report.findings import find
from raysd.report.plots import guidance_plot, per_class_plot
from raysd.report.samples import FLAGGED, read_samples, sample_grid
from raysd.storage.location import Location

BEST = {"variant": "name", "guidance_scale": 2.0, "clone": "ab"}


def picture(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_guidance_plot_has_a_white_card_and_says_its_numbers_in_words():
    cells = collect_cells(experiment_rows())
    found = find(cells, BEST, "validation")
    plot = guidance_plot(cells, found, found.test, "accuracy", "test")
    assert picture(plot.png).getpixel((0, 0)) == (255, 255, 255)
    assert plot.svg.startswith("<?xml")
    assert "70.0" not in plot.alt or "guidance 2" in plot.alt
    assert "real pictures: 83.3" in plot.alt and "random weights: 18.3" in plot.alt


def test_same_rows_give_the_same_svg():
    cells = collect_cells(experiment_rows())
    found = find(cells, BEST, "validation")
    one, two = (guidance_plot(cells, found, found.test, "accuracy", "test").svg for _ in range(2))
    assert one == two


def test_names_with_dollar_signs_are_not_read_as_tex():
    cells = collect_cells([accuracy_row(70.0, variant=r"$\nope$"), accuracy_row(60.0, variant=r"$\nope$", guidance=7.5)])
    found = find(cells, None, "test")
    assert guidance_plot(cells, found, found.test, "accuracy", "$x$ $").png


def test_per_class_plot_averages_seeds_and_names_the_lowest_class():
    rows = [accuracy_row(70.0, 0, per_class=[90.0, 40.0, 80.0]), accuracy_row(70.0, 1, per_class=[90.0, 20.0, 80.0])]
    plot = per_class_plot(find(collect_cells(rows), BEST, "test"))
    assert "bag, 30.0 %" in plot.alt


def test_per_class_plot_of_many_classes_shows_those_furthest_behind():
    values = [float(i) for i in range(1, 101)]
    row = accuracy_row(50.0, per_class=values, class_names=[f"class {i}" for i in range(100)])
    plot = per_class_plot(find(collect_cells([row]), BEST, "test"))
    assert "30 classes" in plot.title and picture(plot.png).height < 4000


def test_samples_are_the_first_images_of_the_first_classes(tmp_path):
    write_clone(tmp_path, ["boot", "bag", "coat"], 2.0)
    samples = read_samples(Location(str(tmp_path)), num_images=3, num_classes=2)
    assert sorted(samples.images) == [(label, index) for label in range(2) for index in range(3)]
    assert samples.class_names == ("boot", "bag", "coat")


@pytest.mark.parametrize(("side", "shown"), [(28, 56), (8, 64), (512, 64)])
def test_pictures_are_scaled_to_about_60_pixels(tmp_path, side, shown):
    write_clone(tmp_path, ["boot"], 2.0, num_images=1, side=side)
    grid = sample_grid("name", [(2.0, Location(str(tmp_path)))], num_images=1)
    inked = np.asarray(picture(grid.png)).min(axis=2)[44 : 44 + shown]
    assert inked.shape[0] == shown and picture(grid.png).height == 44 + shown + 3 + 14


def test_grid_says_that_noise_is_shared_and_frames_flagged_pictures(tmp_path):
    write_clone(tmp_path, ["boot", "bag"], 2.0)
    grid = sample_grid("name", [(2.0, Location(str(tmp_path)))])
    assert "shares its noise" in grid.caption and "flagged" in grid.caption and "a photo of boot" in grid.caption
    frame = tuple(int(FLAGGED[i : i + 2], 16) for i in (1, 3, 5))
    assert (np.asarray(picture(grid.png)) == frame).all(axis=2).any()


def test_missing_clone_is_an_empty_column_that_the_caption_names(tmp_path):
    write_clone(tmp_path / "a", ["boot", "bag"], 2.0)
    grid = sample_grid("name", [(2.0, Location(str(tmp_path / "a"))), (7.5, Location(str(tmp_path / "gone")))])
    assert "could not be read, at guidance 7.5" in grid.caption


def test_unreadable_picture_or_shard_does_not_stop_the_grid(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-000000.parquet").write_bytes(b"torn")
    assert sample_grid("name", [(2.0, Location(str(tmp_path)))]).png
