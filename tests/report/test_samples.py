"""Sample grids and galleries."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from report_rows import setting_of, write_clone

from raysd.clone.shard import DATA
from raysd.report.cells import Setting, factors_of
from raysd.report.inputs import Entry
from raysd.report.plots.grid import FLAGGED, GridColumn, sample_grid
from raysd.report.samples.gallery import MAX_COLUMNS, MAX_TABS, column_labels, first_grid, sample_galleries
from raysd.report.samples.samples import read_places, read_samples
from raysd.storage.location import Location


def entry(folder, variant="name", guidance=2.0, steps=20, **further):
    setting = setting_of(variant, guidance, **further)
    label = f"{variant}, {guidance}"
    return Entry(
        Setting("clone", variant, guidance, None, "", "m", steps, "", factors=factors_of(setting), words=label),
        str(folder),
    )


def grid_of(*folders):
    return sample_grid(
        "samples",
        "name",
        [GridColumn(f"guidance {i}", read_samples(Location(str(folder)))) for i, folder in enumerate(folders, 1)],
    )


def pixels(grid):
    return np.asarray(Image.open(io.BytesIO(grid.png)).convert("RGB"))


def test_samples_are_the_first_images_of_the_first_classes(tmp_path):
    write_clone(tmp_path, ["boot", "bag", "coat"], 2.0)
    samples = read_samples(Location(str(tmp_path)), num_images=3, num_classes=2)
    assert sorted(samples.images) == [(label, index) for label in range(2) for index in range(3)]
    assert samples.class_names == ("boot", "bag", "coat")


def test_places_are_looked_for_in_the_last_shards_alone(tmp_path, monkeypatch):
    folder, opened = Location(str(tmp_path)), []
    for number in range(5):  # two images each; that with index 7 was dropped
        rows = [
            {"image": {"bytes": b"", "path": ""}, "label": 0, "index": index, "flag": "", "prompt": "", "seed": index}
            for index in (2 * number, 2 * number + 1)
            if index != 7
        ]
        path = tmp_path / DATA / f"train-{number:06d}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    read = pq.read_table
    monkeypatch.setattr(pq, "read_table", lambda path, **options: opened.append(path) or read(path, **options))
    found = read_places(folder, {(0, index): (0, index - 6) for index in (6, 7)})
    assert {key: sample.seed for key, sample in found.images.items()} == {(0, 0): 6}
    assert [Path(path).stem[-1] for path in opened] == ["4", "3", "2"]


@pytest.mark.parametrize(("side", "shown"), [(28, 56), (8, 64), (512, 88)])
def test_images_are_scaled_to_a_size_that_can_be_compared(tmp_path, side, shown):
    write_clone(tmp_path, ["boot"], 2.0, num_images=1, side=side)
    image = pixels(grid_of(tmp_path))
    column = np.flatnonzero(
        (image[:, 30].max(axis=1) < 250) | (image[:, 31].max(axis=1) < 250) | (image[:, 32].max(axis=1) < 250)
    )
    assert shown * 0.9 <= column.max() - column.min() and image.shape[0] < 3 * (shown + 6) + 100


def test_same_image_stands_beside_itself_in_one_row(tmp_path):
    write_clone(tmp_path / "a", ["boot"], 1.0)
    write_clone(tmp_path / "b", ["boot"], 1.0)
    image = pixels(grid_of(tmp_path / "a", tmp_path / "b"))
    left, right = image[60:100, 12:68], image[60:100, 74:130]
    assert (left == right).all() and left.std() > 0


def test_shared_noise_is_claimed_only_where_the_seeds_agree(tmp_path):
    write_clone(tmp_path / "a", ["boot", "bag"], 2.0)
    write_clone(tmp_path / "b", ["boot", "bag"], 7.5)
    write_clone(tmp_path / "c", ["boot", "bag"], 7.5, first_seed=100)
    assert "share their noise" in grid_of(tmp_path / "a", tmp_path / "b").caption
    assert "share their noise" not in grid_of(tmp_path / "a", tmp_path / "c").caption


def test_flagged_images_are_framed_and_said(tmp_path):
    write_clone(tmp_path, ["boot", "bag"], 2.0)
    grid = grid_of(tmp_path)
    frame = tuple(int(FLAGGED[i : i + 2], 16) for i in (1, 3, 5))
    assert "flagged" in grid.caption and "a photo of boot" in grid.caption
    assert (pixels(grid) == frame).all(axis=2).any()


def test_missing_clone_is_an_empty_column_that_the_caption_names(tmp_path):
    write_clone(tmp_path / "a", ["boot", "bag"], 2.0)
    grid = grid_of(tmp_path / "a", tmp_path / "gone")
    assert "cannot be read, of guidance 2" in grid.caption


def test_unreadable_shard_does_not_stop_the_grid(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-000000.parquet").write_bytes(b"torn")
    assert grid_of(tmp_path).png


def test_galleries_show_guidance_by_variant_and_variants_by_guidance(tmp_path):
    entries = [entry(tmp_path / f"{v}{g}", v, g) for v in ("name", "attributes") for g in (1.0, 7.5)]
    for each in entries:
        write_clone(
            Path(each.folder), ["boot", "bag"], each.setting.guidance_scale, prompt=f"{each.setting.variant} {{name}}"
        )
    by_variant, by_guidance = sample_galleries(entries)
    assert by_variant.tabs == ("name", "attributes") and by_guidance.tabs == ("1", "7.5")
    assert "Columns, left to right: guidance 1, guidance 7.5." in by_variant.grids[0].caption
    assert "name: “name boot”; attributes: “attributes boot”" in by_guidance.grids[0].caption


def labels_of(*entries):
    return column_labels([entry.setting for entry in entries])


def test_columns_say_what_differs_and_fields_of_training_do_not(tmp_path):
    assert labels_of(entry(tmp_path, guidance=1.0), entry(tmp_path, guidance=2.0)) == ["guidance 1", "guidance 2"]
    both = [entry(tmp_path, guidance=1.0, **{"generation.num_inference_steps": n}) for n in (20, 50)]
    assert labels_of(*both) == ["steps 20", "steps 50"]
    assert labels_of(entry(tmp_path, steps=20), entry(tmp_path, steps=50)) == ["steps 20", "steps 50"]
    assert labels_of(*(entry(tmp_path, **{"training.rate": rate}) for rate in (1, 2))) == ["guidance 2", "guidance 2"]


def test_a_clone_that_settings_share_is_one_column(tmp_path):
    write_clone(tmp_path, ["boot"], 2.0)
    (gallery,) = sample_galleries([entry(tmp_path, **{"training.rate": rate}) for rate in (1, 2)])
    assert gallery.grids[0].caption.count("guidance 2") == 1


def test_many_settings_are_thinned_out_and_the_page_says_so(tmp_path):
    write_clone(tmp_path / "v0", ["boot"], 2.0, num_images=1)
    entries = [entry(tmp_path / f"v{i}", f"v{i}", 2.0) for i in range(MAX_TABS + 3)]
    entries += [entry(tmp_path / f"g{i}", "v0", 3.0 + i) for i in range(MAX_COLUMNS)]
    gallery, _ = sample_galleries(entries)
    assert (
        len(gallery.grids) == MAX_TABS and "Shown: 12 of 15." in gallery.note and "v0: 8 of 9 settings" in gallery.note
    )


def test_no_readable_clone_gives_no_gallery(tmp_path):
    assert sample_galleries([entry(tmp_path / "gone")]) == []


def test_a_clone_of_few_images_is_not_called_unreadable(tmp_path):
    write_clone(tmp_path, ["boot", "bag"], 2.0, num_images=1)
    grid = grid_of(tmp_path)
    assert "Gray" not in grid.caption and "Image 0 of" in grid.caption


def test_noise_of_two_generators_or_sizes_is_not_called_shared(tmp_path):
    write_clone(tmp_path / "a", ["boot"], 2.0)
    write_clone(tmp_path / "b", ["boot"], 7.5)
    write_clone(tmp_path / "c", ["boot"], 7.5, side=32)
    one, two, three = (read_samples(Location(str(tmp_path / name))) for name in "abc")

    def caption(*columns):
        return sample_grid("samples", "name", [GridColumn(str(i), *column) for i, column in enumerate(columns)]).caption

    assert "share their noise" in caption((one, "m"), (two, "m"))
    assert "share their noise" not in caption((one, "m"), (two, "n")) + caption((one, "m"), (three, "m"))


@pytest.mark.parametrize("error", [Image.DecompressionBombError, SyntaxError])
def test_an_image_that_pillow_refuses_is_a_grey_square(tmp_path, monkeypatch, error):
    write_clone(tmp_path, ["boot"], 2.0)

    def refuse(*_):
        raise error("no")

    samples = read_samples(Location(str(tmp_path)))
    monkeypatch.setattr(Image, "open", refuse)
    sample_grid("samples", "name", [GridColumn("a", samples), GridColumn("b", samples)])


def test_clones_that_are_not_shown_are_not_read(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "raysd.report.samples.gallery.read_samples", lambda folder: read.append(folder.uri) or read_samples(folder)
    )
    sample_galleries([entry(tmp_path / f"{i}", "v0", 1.0 + i / 10) for i in range(40)])
    assert len(read) == MAX_COLUMNS


def test_the_first_grid_shows_the_best_setting_beside_the_usual_guidance(tmp_path):
    for scale in (1.0, 2.0, 7.5):
        write_clone(tmp_path / f"{scale}", ["boot", "bag"], scale)
    entries = [entry(tmp_path / f"{scale}", guidance=scale) for scale in (1.0, 2.0, 7.5)]
    assert "Columns, left to right: guidance 2, guidance 7.5." in first_grid(entries, entries[1].setting).caption
    assert "Columns, left to right: guidance 2." in first_grid(entries[:2], entries[1].setting).caption
    assert first_grid([], entries[0].setting) is None


def test_large_images_are_kept_at_twice_the_pixels_that_the_page_shows(tmp_path):
    write_clone(tmp_path / "large", ["boot"], 2.0, side=512)
    write_clone(tmp_path / "small", ["boot"], 2.0, side=32)
    large, small = grid_of(tmp_path / "large"), grid_of(tmp_path / "small")
    assert Image.open(io.BytesIO(large.png)).width == 2 * large.width and large.is_shrunk
    assert Image.open(io.BytesIO(small.png)).width == small.width and not small.is_shrunk


def test_many_columns_show_fewer_classes(tmp_path):
    names = [f"class {i}" for i in range(14)]
    write_clone(tmp_path / "0", names, 2.0, num_images=3, side=4)
    entries = [entry(tmp_path / f"{8 * i + j}", f"v{i}", 1.0 + j) for i in range(12) for j in range(8)]
    assert "the first 4 of 14 classes" in sample_galleries(entries)[0].grids[0].caption
    assert "the first 12 of 14 classes" in sample_galleries(entries[:8])[0].grids[0].caption
