import json
import os
import tempfile
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysd.data.folders import folder_source
from raysd.data.hub_readers import HubSet, hub_source, parse_hub_name, torchvision_source
from raysd.data.images import class_names, decode_all
from raysd.data.parquet import parquet_source
from raysd.data.readers import annotation_source, array_source, files_key, join_sources
from raysd.data.real_datasets import encode_png, real_dataset
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.storage.row_index import NAME


def png(value):
    return encode_png(np.full((8, 8), value, dtype=np.uint8))


def one_line(error):
    return "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    for name, values in {"b": (10, 20), "a": (30,)}.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for value in values:
            (tmp_path / "set" / name / f"{value}.png").write_bytes(png(value))
    (tmp_path / "set" / "notes.txt").write_text("stray")
    (tmp_path / "set" / "b" / "thumbs.db").write_bytes(b"stray")
    (tmp_path / "set" / ".hidden").mkdir()
    return tmp_path / "set"


def test_a_folder_is_sorted_and_stray_files_are_ignored(folder):
    source = folder_source(folder)
    assert source.class_names == ["a", "b"] and source.labels.tolist() == [0, 1, 1]
    assert [source.encoded(i) for i in range(3)] == [png(30), png(10), png(20)]
    (folder / "a" / "30.png").write_bytes(b"")
    with pytest.raises(UserError, match="row 0 has no image"):
        source.encoded(0)
    (folder / "a" / "30.png").unlink()
    with pytest.raises(UserError, match=r"image 0, .*30\.png, cannot be read"):
        source.encoded(0)


def parquet(path, images, labels, names=None):
    table = pa.table({"image": images, "label": labels})
    if names is not None:
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})}
        )
    pq.write_table(table, path)
    return path


def test_a_parquet_file_holds_bytes_or_structs_and_numbers_or_texts(tmp_path):
    plain = parquet_source(parquet(tmp_path / "a.parquet", [b"x", b"y", b"z"], ["dog", "cat", "dog"]))
    assert plain.class_names == ["cat", "dog"] and plain.labels.tolist() == [1, 0, 1] and plain.encoded(2) == b"z"
    (tmp_path / "lone.png").write_bytes(b"lone")
    cells = [
        {"bytes": b"x", "path": "none.png"},
        {"bytes": None, "path": str(tmp_path / "lone.png")},
        {"bytes": None, "path": None},
    ]
    struct = parquet_source(parquet(tmp_path / "b.parquet", cells, pa.array([0, 1, 0], pa.int16()), ["u", "v"]))
    assert struct.class_names == ["u", "v"] and struct.labels.dtype == np.int64 and struct.encoded(0) == b"x"
    with pytest.raises(UserError, match=r"'b\.parquet': row 1 has the path of an image, not its bytes"):
        struct.encoded(1)  # a file never says which other files are read
    with pytest.raises(UserError, match=r"'b\.parquet': row 2 has no image"):
        struct.encoded(2)
    many = parquet_source(
        parquet(
            tmp_path / "c.parquet", [str(i).encode() for i in range(700)], pa.array(["k"] * 700).dictionary_encode()
        )
    )
    assert many.encoded(699) == b"699" and many.class_names == ["k"]


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, -1], None, "row 1 has the label -1; labels are whole numbers"),
        ([0, 2], ["a", "b"], "row 1 has the label 2; labels are 0 to 1"),
        ([0, None], None, "row 1 has the label None"),
        ([0, 1_000_001], None, "row 1 has the label 1000001; labels are whole numbers from 0 to 1,000,000"),
        ([0.0, float("nan")], None, "row 1 has the label None"),
        ([0.0, 0.5], None, "row 1 has the label 0.5"),
        (["a", "c"], ["a", "b"], "row 1 has the label 'c'; its classes are a, b"),
        (["a", None], None, "row 1 has the label None"),
        ([[0], [1]], None, "its labels are of type list"),
    ],
)
def test_a_wrong_label_names_the_set_and_the_row(tmp_path, labels, names, message):
    with pytest.raises(UserError, match=message) as error:
        parquet_source(parquet(tmp_path / "own.parquet", [b"x", b"y"], labels, names))
    assert one_line(error) and "own.parquet" in str(error.value)


def test_images_of_another_type_are_refused(tmp_path):
    source = parquet_source(parquet(tmp_path / "own.parquet", ["a.png"], [0]))
    with pytest.raises(UserError, match="row 0 has an image of type str, not its encoded bytes"):
        source.encoded(0)
    (tmp_path / "text.parquet").write_text("no Parquet\nat all")
    with pytest.raises(UserError, match="is no readable Parquet file") as error:
        parquet_source(tmp_path / "text.parquet")
    assert one_line(error)


def test_a_full_disk_is_no_broken_parquet_file(tmp_path, monkeypatch):
    path = parquet(tmp_path / "own.parquet", [b"x"], [0])
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda **options: nullcontext(SimpleNamespace(name="/dev/full")))
    with pytest.raises(
        UserError, match=f"does not fit the disk of {tempfile.gettempdir()}.*set TMPDIR to another folder"
    ) as error:
        parquet_source(path)
    assert one_line(error)


@pytest.mark.parametrize("file", ["/etc/hostname", "../secret.jpg", "x/../../secret.jpg"])
def test_annotations_may_not_leave_their_folder(tmp_path, file):
    content = {
        "images": [{"id": 1, "file_name": file}],
        "annotations": [{"image_id": 1, "category_id": 0}],
        "categories": [{"id": 0, "name": "a"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"lists the image '{file}', which is not below its own folder"):
        annotation_source(tmp_path / "val.json")


def test_annotations_name_images_and_categories(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "x/7.jpg"}, {"id": 5, "file_name": "x/5.jpg"}],
        "annotations": [{"image_id": 5, "category_id": 0}, {"image_id": 7, "category_id": 1}],
        "categories": [{"id": 1, "name": "Quercus"}, {"id": 0, "name": "Acer"}],
    }
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "7.jpg").write_bytes(b"seven")
    (tmp_path / "val2019.json").write_text(json.dumps(content))
    source = annotation_source(tmp_path / "val2019.json")
    assert (
        source.labels.tolist() == [1, 0] and source.class_names == ["Acer", "Quercus"] and source.encoded(0) == b"seven"
    )
    (tmp_path / "val2019.json").write_text(json.dumps({"images": []}))
    with pytest.raises(UserError, match="is no list of annotated images"):
        annotation_source(tmp_path / "val2019.json")
    with pytest.raises(UserError, match="cannot be read"):
        real_dataset("inat2019", "train", Location(str(tmp_path / "root")), path=str(tmp_path))


def test_joined_splits_are_one_after_the_other():
    images = np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8)
    first, second = (
        array_source("s", images[:2], np.array([0, 1]), ["a", "b"]),
        array_source("s", images[2:], np.array([1, 1, 0]), ["a", "b"]),
    )
    joined = join_sources([first, second])
    assert joined.labels.tolist() == [0, 1, 1, 1, 0]
    assert [joined.encoded(i) for i in range(5)] == [encode_png(image) for image in images]
    with pytest.raises(UserError, match="do not have the same classes"):
        join_sources([first, array_source("s", images[:1], np.array([0]), ["c"])])


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["x", "y"])})
    parts = {"train": [10, 20, 30], "test": [40, 50]}
    cells = {
        part: {"img": [{"bytes": png(v), "path": None} for v in values], "kind": [v // 10 % 2 for v in values]}
        for part, values in parts.items()
    }
    data = datasets.DatasetDict(
        {part: datasets.Dataset.from_dict(content, features=features) for part, content in cells.items()}
    )
    (tmp_path / "data").mkdir()
    for part in parts:
        data[part].to_parquet(tmp_path / "data" / f"{part}-00000-of-00001.parquet")
    data.save_to_disk(tmp_path / "saved")
    return tmp_path


@pytest.mark.parametrize("form", ["data", "saved"])
def test_a_hugging_face_data_set_on_disk_is_read_with_its_own_columns(data_set, form):
    hub = HubSet(id=str(data_set / form), image="img", label="kind")
    source, key = hub_source(hub, "test")
    assert (
        source.class_names == ["x", "y"] and source.labels.tolist() == [0, 1] and source.encoded(1) == png(50) and key
    )
    if form == "data":
        assert hub_source(hub, "train+test")[0].labels.tolist() == [1, 0, 1, 0, 1]
    with pytest.raises(
        UserError, match=r"has no column image, only img, kind; name its columns, as /.*\?image=img&label=\.\."
    ) as error:
        hub_source(HubSet(id=str(data_set / form)), "train")
    assert one_line(error)
    with pytest.raises(UserError, match="split valid cannot be opened") as error:
        hub_source(hub, "valid")
    assert one_line(error)


def test_a_data_set_folder_is_a_set_of_your_own_with_its_splits(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "mine" / "data").mkdir(parents=True)
    for part, values in {"train": [10, 20, 30], "test": [40, 50]}.items():
        cells = [{"bytes": png(value), "path": None} for value in values]
        parquet(
            tmp_path / "mine" / "data" / f"{part}-0.parquet", cells, ["a" if value % 20 else "b" for value in values]
        )
    sets = {
        part: real_dataset(str(tmp_path / "mine"), part, Location(str(tmp_path / "root")), halve=True)
        for part in ("train", "test")
    }
    assert {part: images.name for part, images in sets.items()} == {"train": "mine-train", "test": "mine-test"}
    assert class_names(sets["train"]) == ["a", "b"]
    assert sorted(decode_all(sets["test"], 8).images[:, 0, 0, 0].tolist()) == [40, 50]


@pytest.mark.parametrize(
    ("splits", "names", "taken"),
    [
        (["other"], ("mine-whole", "mine-whole"), ([0], [0])),
        (["train", "validation"], ("mine-train", "mine-test"), ([0], [1])),
        (["train", "validation", "test"], ("mine-train", "mine-test"), ([0], [2])),
    ],
)
def test_a_data_set_folder_is_whole_or_tells_its_test_split(tmp_path, splits, names, taken):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    cells = [{"image": [{"bytes": png(10 * i), "path": None}], "label": [0]} for i in range(len(splits))]
    data = {
        split: datasets.Dataset.from_dict(content, features=features)
        for split, content in zip(splits, cells, strict=True)
    }
    datasets.DatasetDict(data).save_to_disk(tmp_path / "mine")
    sets = [real_dataset(str(tmp_path / "mine"), part, Location(str(tmp_path / "root"))) for part in ("train", "test")]
    assert tuple(images.name for images in sets) == names
    assert tuple((decode_all(images, 8).images[:, 0, 0, 0] // 10).tolist() for images in sets) == taken


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"splits": ["train", "extra"]}', "has the splits train, extra; give it the splits train and test"),
        ('{"splits": ["validation", "test"]}', "has the splits validation, test; give it"),
        ('{"splits": []}', "has the splits none; give it"),
        ("{", "cannot be opened as a data set"),
        ("[]", "cannot be opened as a data set"),
    ],
)
def test_splits_that_do_not_tell_are_one_line(tmp_path, content, message):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dataset_dict.json").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        real_dataset(str(tmp_path / "mine"), "test", Location(str(tmp_path / "root")))
    assert one_line(error)


class FakeHub:
    """Stands in for `datasets`: one data set on the hub, of 4 images per split."""

    def __init__(self, splits):
        import datasets

        self.Image, self.splits, self.opened, self.dataset = datasets.Image, splits, [], datasets.Dataset

    def get_dataset_split_names(self, path, config, revision):
        self.opened.append(path)
        return self.splits

    def load_dataset(self, path, config, split, revision):
        self.opened.append(path)
        split = split.partition("[")[0]
        if split not in self.splits:
            raise ValueError(f"Unknown split {split}")
        number = 100 * self.splits.index(split)
        cells = [{"bytes": png(number + 10 * i), "path": None} for i in range(4)]
        data = self.dataset.from_dict({"image": cells, "label": [0, 1, 0, 1], "family": [0, 0, 0, 0]})
        data._fingerprint = split
        return data


def of_hub(monkeypatch, folder, splits, name="hf://datasets/me/birds", halve=True):
    hub = FakeHub(splits)
    monkeypatch.setattr("raysd.data.hub_readers._datasets", lambda name: hub)
    return hub, [real_dataset(name, part, Location(str(folder / "root")), halve=halve) for part in ("train", "test")]


def test_a_hub_set_of_one_split_is_whole_or_halved(tmp_path, monkeypatch):
    for splits in (["train"], ["all"]):
        _, (train, test) = of_hub(monkeypatch, tmp_path, splits)
        assert train.name == "me_birds-train" and test.name == "me_birds-test"
        shades = [sorted(decode_all(part, 8).images[:, 0, 0, 0].tolist()) for part in (train, test)]
        assert sorted(shades[0] + shades[1]) == [0, 10, 20, 30] and len(shades[0]) == 2
        _, (train, test) = of_hub(monkeypatch, tmp_path, splits, halve=False)
        assert train == test and train.name == "me_birds-whole"
    _, (train, test) = of_hub(monkeypatch, tmp_path, ["train", "test"])
    assert [sorted(decode_all(part, 8).images[:, 0, 0, 0].tolist())[0] for part in (train, test)] == [0, 100]
    with pytest.raises(UserError, match="split test cannot be opened"):
        of_hub(monkeypatch, tmp_path, ["train", "validation"])
    with pytest.raises(UserError, match="split test cannot be opened"):
        of_hub(monkeypatch, tmp_path, ["train"], "hf://datasets/me/birds?train=train[:50%25]")
    with pytest.raises(UserError, match="split dev cannot be opened"):
        of_hub(monkeypatch, tmp_path, ["train"], "hf://datasets/me/birds?test=dev")


def test_a_hub_set_is_kept_apart_by_its_columns(tmp_path, monkeypatch):
    names = ("hf://datasets/me/birds", "hf://datasets/me/birds?label=family")
    species, family = (of_hub(monkeypatch, tmp_path, ["train", "test"], name)[1][0] for name in names)
    assert (
        sorted(decode_all(species, 8).labels.tolist()) == [0, 0, 1, 1]
        and decode_all(family, 8).labels.tolist() == [0] * 4
    )
    with pytest.raises(
        UserError, match=r"has no column img, only image, label, family; name .*birds\?image=image&label=label"
    ):
        of_hub(monkeypatch, tmp_path, ["train", "test"], "hf://datasets/me/birds?image=img")


@pytest.mark.parametrize("form", ["data", "saved"])
def test_a_hub_name_never_opens_a_folder_of_that_name(data_set, monkeypatch, form):
    monkeypatch.chdir(data_set)
    (data_set / "me").mkdir()
    (data_set / form).rename(data_set / "me" / "birds")
    hub, _ = of_hub(monkeypatch, data_set, ["train", "test"])
    assert set(hub.opened) == {"hf://datasets/me/birds"}


def test_a_folder_is_read_again_when_what_a_link_leads_to_changes(tmp_path, folder):
    (tmp_path / "elsewhere").mkdir()
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "broken").symlink_to(folder / "none")
    keys = [files_key(folder), files_key(folder)]
    (tmp_path / "elsewhere" / "1.png").write_bytes(png(1))
    keys.append(files_key(folder))
    with open(os.fsencode(tmp_path / "elsewhere") + b"/\xff.png", "wb") as file:
        file.write(png(2))
    keys.append(files_key(folder))
    os.utime(tmp_path / "elsewhere" / "1.png", ns=(0, 0))
    keys.append(files_key(folder))
    assert keys[0] == keys[1] and len(set(keys)) == 4


def test_the_index_that_a_training_writes_beside_images_is_no_change_of_them(folder):
    before = files_key(folder)
    (folder / "b" / NAME).write_bytes(b"index")
    assert files_key(folder) == before
    (folder / "b" / f"x{NAME}").write_bytes(b"rows")
    assert files_key(folder) != before


def test_hub_names_are_read():
    hub, splits = parse_hub_name("hf://datasets/me/birds?config=small&test=validation+test&image=img")
    assert hub == HubSet(id="me/birds", config="small", image="img") and splits == {
        "train": "train",
        "test": "validation+test",
    }
    wrong = ("hf://datasets/../birds", "hf://datasets/me/..", "hf://datasets/./birds")
    for name in ("hf://datasets/me", "hf://models/me/birds", "hf://datasets/me/birds/data", *wrong):
        with pytest.raises(UserError, match="write it as hf://datasets/<owner>/<name>"):
            parse_hub_name(name)
    with pytest.raises(UserError, match="has no option valid"):
        parse_hub_name("hf://datasets/me/birds?valid=x")


def test_torchvisions_pets_are_the_files_as_they_lie(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    for part in ("images", "annotations"):
        (base / part).mkdir(parents=True)
    (base / "annotations" / "test.txt").write_text("Boxer_1 2 2 1\nAbyssinian_2 1 1 1\n")
    (base / "images" / "Boxer_1.jpg").write_bytes(b"boxer")
    source = torchvision_source("OxfordIIITPet", {"split": "test", "target_types": "category"}, tmp_path)
    assert (
        source.labels.tolist() == [1, 0]
        and source.class_names == ["Abyssinian", "Boxer"]
        and source.encoded(0) == b"boxer"
    )
    with pytest.raises(UserError, match="has 2 test images, 3,669 were published"):
        real_dataset("pets", "test", Location(str(tmp_path / "root")), path=str(tmp_path))


def test_a_torchvision_set_that_is_not_there_is_not_fetched_into_a_given_path(tmp_path):
    with pytest.raises(UserError, match="torchvision's DTD does not find its files there") as error:
        torchvision_source("DTD", {"split": "train"}, tmp_path)
    assert one_line(error) and not list(tmp_path.iterdir())
