import gzip
import hashlib
import importlib.util
import inspect
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision
from pydantic import ValidationError

from raysd.data.catalog import (
    KEY_FILES,
    OFFLINE_SETS,
    BuiltInSet,
    built_in_sets,
    class_keys,
    open_built_in,
    translate_names,
)
from raysd.data.folders import folder_source
from raysd.data.readers import Source
from raysd.data.splits import ALL, FOLDER, frozen_mask, half_mask, hashed_mask, read_split, split_text
from raysd.errors import UserError
from raysd.prompts.table import load_class_table

PAPER = [*(f"cog_l{level}" for level in range(1, 6)), "inat2018", "inat2019"]
PAPER += ["aircraft", "cars196", "dtd", "eurosat", "flowers102", "pets", "food101", "sun397"]
TEST_SETS = ["imagenet_val", "imagenet_v2_matched_frequency", "imagenet_v2_threshold_0.7", "imagenet_v2_top_images"]
TEST_SETS += ["imagenet_sketch", "imagenet_r", "imagenet_a", "objectnet"]


def test_the_papers_transfer_sets_and_the_test_sets_are_built_in():
    assert set(PAPER + TEST_SETS) <= set(built_in_sets())
    by_sgd = {name for name, entry in built_in_sets().items() if entry.probe == "sgd"}
    assert by_sgd == set(PAPER[:7])


@pytest.mark.parametrize("name", built_in_sets())
def test_each_entry_is_whole(name):
    entry = built_in_sets()[name]
    assert entry.about and entry.license and entry.has("test")
    if entry.by_hand or entry.download:
        assert entry.download and entry.url.startswith("https://")
    if entry.source.offline is not None:
        assert entry.source.offline in OFFLINE_SETS and len(OFFLINE_SETS[name].class_names) == entry.classes
    if entry.source.torchvision is not None:
        chosen = entry.source.torchvision
        parts = [part for parts in entry.splits.values() for part in parts] or [{}]
        known = inspect.signature(getattr(torchvision.datasets, chosen.class_name)).parameters
        assert {"root", "download", *chosen.options, *(option for part in parts for option in part)} <= set(known)
    if entry.frozen is not None:
        masks = read_split(entry.frozen)
        assert sum(mask.sum() for mask in masks.values()) == entry.images["test"]
        assert sum((~mask).sum() for mask in masks.values()) == entry.images["train"]


def test_the_docs_list_each_set_as_it_is():
    text = (Path(__file__).parents[2] / "docs" / "real_data_sets.md").read_text()
    for name, entry in built_in_sets().items():
        line = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        images = " / ".join(f"{entry.images[split]:,}" if split in entry.images else "" for split in ("train", "test"))
        assert cells[1:3] == [f"{entry.classes:,}", images.strip(" /") if "train" not in entry.images else images], name
        assert cells[4:] == [entry.probe if entry.has("train") else "", entry.download or "none", entry.license], name


def test_an_entry_has_one_source_and_a_split():
    with pytest.raises(ValidationError, match="one source"):
        BuiltInSet(about="a", license="b", classes=2, source={"folder": True, "offline": "digits"})
    with pytest.raises(ValidationError, match="official splits or a frozen one"):
        BuiltInSet(about="a", license="b", classes=2, source={"folder": True})


@pytest.mark.parametrize(
    ("name", "digest"),
    [("digits", "fa594ff836aecb4f"), ("mnist_5k", "6fae3c505bd2fb63"), ("opencv_digits", "6fae3c505bd2fb63")],
)
def test_frozen_halves_are_those_that_raysd_has_always_used(name, digest):
    mask = read_split(name)[ALL]
    assert hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=8).hexdigest() == digest


@pytest.fixture
def animals(tmp_path, monkeypatch):
    """A package laid out as animal-mnist is; what its two files hold can be given."""
    folder = tmp_path / "animal_mnist" / "data" / "Animal_MNIST"
    folder.mkdir(parents=True)
    (tmp_path / "animal_mnist" / "__init__.py").write_text("raise ImportError('needs TensorFlow')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "animal_mnist", raising=False)

    def write(images, labels):
        for name, value in (("data", images), ("label", labels)):
            with gzip.open(folder / f"animal_{name}_version_3.gz", "wb") as file:
                file.write(pickle.dumps(value, protocol=4))

    return write


def test_pickled_arrays_of_a_package_are_read_and_never_run(animals, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    images = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    labels = np.repeat(np.arange(10), 1000)
    load = OFFLINE_SETS["animal_mnist"].load
    animals(images, labels)
    assert all(np.array_equal(*pair) for pair in zip(load("test"), (images, labels), strict=True))
    animals([images, Hostile()], labels)
    assert np.array_equal(load("test")[0], images)
    animals(Hostile(), labels)
    with pytest.raises(UserError, match=r"animal_data_version_3\.gz is not that of animal-mnist"):
        load("test")
    assert not (tmp_path / "ran").exists()


def test_the_silhouettes_are_halved_by_their_content():
    mask = read_split("animal_mnist")[ALL]
    assert mask.reshape(10, 1000).sum(axis=1).tolist() == [500] * 10
    if importlib.util.find_spec("animal_mnist") is None:
        pytest.skip("needs the package animal-mnist")
    images, _ = OFFLINE_SETS["animal_mnist"].load("test")
    assert not {image.tobytes() for image in images[mask]} & {image.tobytes() for image in images[~mask]}


def test_halves_of_your_own_sets_are_stratified_and_frozen():
    labels = np.repeat([4, 0, 9], [7, 1, 10])
    is_test = half_mask(labels, "test")
    assert np.bincount(labels[is_test], minlength=10)[[0, 4, 9]].tolist() == [0, 3, 5]
    assert np.array_equal(half_mask(labels, "train"), ~is_test) and half_mask(labels[:0], "test").tolist() == []
    assert np.flatnonzero(is_test).tolist() == [1, 5, 6, 8, 10, 12, 15, 16]
    order = np.random.default_rng(0).permutation(len(labels))
    assert half_mask(labels[order], "test").sum() == 8


def test_the_split_of_eurosat_is_stratified_and_comes_from_hashes():
    masks = read_split("eurosat")
    assert {name: mask.sum() / len(mask) for name, mask in masks.items()} == dict.fromkeys(masks, 0.3)
    assert sum(map(len, masks.values())) == 27_000
    assert np.array_equal(masks["River"], hashed_mask("River", 2500, 0.3))
    assert (FOLDER / "eurosat.txt").read_text().splitlines()[-1] == "checksum 0a4526ca3f68988d"


def test_torchvisions_eurosat_is_read_where_it_lies_and_split_by_file_number(tmp_path, monkeypatch):
    masks, first = read_split("eurosat"), tmp_path / "first.jpg"
    small = {name: mask[:12] for name, mask in masks.items()}
    first.write_bytes(b"jpeg")
    for name, mask in small.items():
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for number in range(1, len(mask) + 1):
            (folder / f"{name}_{number}.jpg").hardlink_to(first)
    source = open_built_in("eurosat", "train", tmp_path)
    assert len(source.labels) == 120 and source.encoded(7) == b"jpeg" and source.class_names == list(masks)
    with pytest.raises(UserError, match="the set has 12 images of class AnnualCrop and the split was made for 3000"):
        frozen_mask("eurosat", source, "train")
    monkeypatch.setattr("raysd.data.splits.read_split", lambda name: small)
    test = frozen_mask("eurosat", source, "test")
    assert np.array_equal(test, ~frozen_mask("eurosat", source, "train"))
    chosen = {source.files[i].rsplit("/", 1)[-1] for i in np.flatnonzero(test)}
    assert chosen == {f"{name}_{place + 1}.jpg" for name, mask in small.items() for place in np.flatnonzero(mask)}
    (tmp_path / "eurosat" / "2750" / "River" / "River_12.jpg").rename(
        tmp_path / "eurosat" / "2750" / "River" / "River_13.jpg"
    )
    with pytest.raises(UserError, match="the files of class River are not numbered 1 to 12"):
        frozen_mask("eurosat", open_built_in("eurosat", "train", tmp_path), "test")


def test_a_folder_without_official_splits_is_read_whole(tmp_path, monkeypatch):
    entry = built_in_sets()["imagenet_val"].model_copy(update={"splits": {}, "frozen": "plants", "class_keys": None})
    monkeypatch.setattr("raysd.data.catalog.built_in_sets", lambda: {"plants": entry})
    for name in ("fern", "moss"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(name.encode())
    source = open_built_in("plants", "test", tmp_path)
    assert [source.encoded(i) for i in range(2)] == [b"fern", b"moss"]


def test_a_changed_split_or_another_number_of_images_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="the set has 9 images and the split was made for 1797"):
        frozen_mask("digits", Source("digits", np.zeros(9, dtype=np.int64), ["0"], lambda i: b""), "train")
    monkeypatch.setattr("raysd.data.splits.FOLDER", tmp_path)
    text = split_text({"a": np.array([True, False, True])}, "two of three")
    (tmp_path / "mine.txt").write_text(text)
    assert read_split("mine")["a"].tolist() == [True, False, True]
    (tmp_path / "mine.txt").write_text(text.replace("a0", "b0"))
    with pytest.raises(UserError, match="checksum is wrong"):
        read_split("mine")


def test_folders_of_class_numbers_are_sorted_as_numbers(tmp_path):
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.jpeg").write_bytes(bytes([number]))
    source = folder_source(tmp_path, by_number=True)
    assert source.class_names == [str(number) for number in range(12)]
    assert [source.encoded(i)[0] for i in range(12) if i] == list(range(1, 12))
    names = open_built_in("imagenet_v2_top_images", "test", tmp_path).class_names
    assert names == list(class_keys("imagenet1k")[:12]) and names[10] == "n01530575"
    (tmp_path / "n01440764").mkdir()
    with pytest.raises(UserError, match="its folder n01440764 is no class number"):
        folder_source(tmp_path, by_number=True)


def test_labels_of_imagenet_sets_mean_the_same_as_in_timms_tables():
    from importlib import resources

    every = class_keys("imagenet1k")
    for name in ("imagenet_a", "imagenet_r"):
        text = resources.files("timm.data").joinpath("_info", KEY_FILES[name].replace("synsets", "indices")).read_text()
        assert [every[int(i)] for i in text.split()] == list(class_keys(name))
    hundred = set(load_class_table("imagenet100").keys)
    assert {name: len(hundred & set(class_keys(name))) for name in ("imagenet_r", "imagenet_a")} == {
        "imagenet_r": 19,
        "imagenet_a": 15,
    }


def test_names_become_wordnet_ids():
    keys = ("n1", "n2", "n3")
    assert translate_names("s", [], keys) == ["n1", "n2", "n3"]
    assert translate_names("s", ["2", "0"], keys) == ["n3", "n1"]
    assert translate_names("s", ["n3"], keys) == ["n3"]
    with pytest.raises(UserError, match="its class 'data' is none of the set's 3 classes"):
        translate_names("s", ["data"], keys)
