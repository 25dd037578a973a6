import logging

import numpy as np
import pytest
from PIL import Image

from raysd.data.folders import folder_source, image_suffixes, split_folders
from raysd.data.images import class_names, decode_all
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.prompts.table import load_class_table
from raysd.storage.location import Location

TABLE = load_class_table(["bag", "trouser"])


def save(path, value=50):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(path)
    return path


def opened(folder, tmp_path, split="test", **options):
    return real_dataset(str(folder), split, Location(str(tmp_path / "root")), table=TABLE, **options)


@pytest.mark.parametrize(
    "file", ["1.tif", "1.jfif", "1.gif", "1.ppm", "1.PNG", "1.TIFF", "2020/1.png", "a/b/1.jpe", "1.avif"]
)
def test_every_file_that_pillow_opens_is_an_image_of_its_class(tmp_path, file):
    save(tmp_path / "own" / "trouser" / "1.png")
    save(tmp_path / "own" / "bag" / file)
    assert opened(tmp_path / "own", tmp_path).to_labels(np.arange(2)).tolist() == [0, 1]
    assert folder_source(tmp_path / "own").labels.tolist() == [0, 1]


def test_what_is_left_out_is_said_in_one_line_and_what_systems_leave_is_nothing(tmp_path, caplog):
    own = tmp_path / "own"
    for name in ("bag", "trouser", "__MACOSX/bag", ".cache/bag", "bag/.thumbs", "bag/__MACOSX"):
        save(own / name / "1.png")
    for name in ("bag/Thumbs.db", "bag/desktop.ini", "bag/.DS_Store", "bag/._1.png", ".hidden"):
        (own / name).write_bytes(b"")
    with caplog.at_level(logging.INFO, logger="raysd"):
        source = folder_source(own)
    assert source.class_names == ["bag", "trouser"] and source.labels.tolist() == [0, 1] and not caplog.messages
    (own / "notes.txt").write_text("")
    (own / "bag" / "1.heic").write_text("")
    with caplog.at_level(logging.INFO, logger="raysd"):
        folder_source(own)
    assert caplog.messages == [f"{own}: 2 files that are no images of a class are left out: notes.txt, bag/1.heic"]
    assert ".mpg" not in image_suffixes()


def test_a_class_of_the_table_without_an_image_is_refused_unless_the_set_is_known_to_lack_it(tmp_path):
    save(tmp_path / "own" / "trouser" / "1.png")
    (tmp_path / "own" / "bag").mkdir()
    with pytest.raises(UserError, match=r"has no image of 1 of the 2 classes: bag; add images, or .*shared_classes"):
        opened(tmp_path / "own", tmp_path)
    assert opened(tmp_path / "own", tmp_path, shared_classes=True).name == "own-whole"
    (tmp_path / "map.json").write_text('{"trouser": "trouser"}')
    assert opened(tmp_path / "own", tmp_path, class_map=str(tmp_path / "map.json")).name == "own-whole"


def test_links_that_lead_back_are_read_once(tmp_path):
    save(tmp_path / "own" / "bag" / "1.png")
    (tmp_path / "own" / "bag" / "back").symlink_to(tmp_path / "own" / "bag")
    assert folder_source(tmp_path / "own").labels.tolist() == [0]


def shade(images):
    return sorted(set(decode_all(images, 8).images[:, 0, 0, 0].tolist()))


@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        ({"train": 10, "val": 20}, 10, 20),
        ({"train": 10, "validation": 20, "test": 30}, 10, 30),
        ({"Train": 10, "Test": 30}, 10, 30),
        ({"train": 10}, 10, 10),
    ],
)
def test_split_folders_are_splits_and_no_classes(tmp_path, splits, train, test):
    for name, value in splits.items():
        for key in ("bag", "trouser"):
            save(tmp_path / "own" / name / key / "1.png", value)
    sets = [opened(tmp_path / "own", tmp_path, split) for split in ("train", "test")]
    assert [shade(images) for images in sets] == [[train], [test]]
    assert class_names(sets[0]) == ["bag", "trouser"]


def test_a_class_named_as_a_split_stays_a_class_and_mixed_folders_are_refused(tmp_path):
    own = tmp_path / "own"
    save(own / "train" / "1.png")
    save(own / "bus" / "1.png")
    assert split_folders(own) == {} and folder_source(own).class_names == ["bus", "train"]
    for split in ("train", "val"):
        save(tmp_path / "mixed" / split / "bag" / "1.png")
    save(tmp_path / "mixed" / "extra" / "1.png")
    with pytest.raises(UserError, match="has the splits train, val and also the folder extra"):
        split_folders(tmp_path / "mixed")
    save(tmp_path / "twice" / "val" / "bag" / "1.png")
    save(tmp_path / "twice" / "valid" / "bag" / "1.png")
    with pytest.raises(UserError, match="has two folders of one split, val and valid"):
        split_folders(tmp_path / "twice")
