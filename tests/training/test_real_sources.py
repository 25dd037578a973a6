import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.library_sources import HubSet, hub_source, parse_hub_name, torchvision_source
from raysd.training.pictures import class_names, decode_all
from raysd.training.real_sets import encode_png, real_set
from raysd.training.real_sources import annotation_source, array_source, folder_source, join_sources, parquet_source


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
    with pytest.raises(UserError, match="row 0 has no picture"):
        source.encoded(0)
    (folder / "a" / "30.png").unlink()
    with pytest.raises(UserError, match=r"picture 0, .*30\.png, cannot be read"):
        source.encoded(0)


def parquet(path, images, labels, names=None):
    table = pa.table({"image": images, "label": labels})
    if names is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})})
    pq.write_table(table, path)
    return path


def test_a_parquet_file_holds_bytes_or_structs_and_numbers_or_texts(tmp_path):
    plain = parquet_source(parquet(tmp_path / "a.parquet", [b"x", b"y", b"z"], ["dog", "cat", "dog"]))
    assert plain.class_names == ["cat", "dog"] and plain.labels.tolist() == [1, 0, 1] and plain.encoded(2) == b"z"
    (tmp_path / "lone.png").write_bytes(b"lone")
    cells = [{"bytes": b"x", "path": None}, {"bytes": None, "path": str(tmp_path / "lone.png")}, {"bytes": None, "path": None}]
    struct = parquet_source(parquet(tmp_path / "b.parquet", cells, pa.array([0, 1, 0], pa.int16()), ["u", "v"]))
    assert struct.class_names == ["u", "v"] and struct.labels.dtype == np.int64 and struct.encoded(1) == b"lone"
    with pytest.raises(UserError, match=r"'b\.parquet': row 2 has no picture"):
        struct.encoded(2)
    many = parquet_source(parquet(tmp_path / "c.parquet", [str(i).encode() for i in range(700)], pa.array(["k"] * 700).dictionary_encode()))
    assert many.encoded(699) == b"699" and many.class_names == ["k"]


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, -1], None, "row 1 has the label -1; labels are whole numbers"),
        ([0, 2], ["a", "b"], "row 1 has the label 2; labels are 0 to 1"),
        ([0, None], None, "row 1 has the label None"),
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


def test_pictures_of_another_type_are_refused(tmp_path):
    source = parquet_source(parquet(tmp_path / "own.parquet", ["a.png"], [0]))
    with pytest.raises(UserError, match="row 0 has a picture of type str, not its encoded bytes"):
        source.encoded(0)
    (tmp_path / "text.parquet").write_text("no Parquet\nat all")
    with pytest.raises(UserError, match="is no readable Parquet file") as error:
        parquet_source(tmp_path / "text.parquet")
    assert one_line(error)


def test_annotations_name_pictures_and_categories(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "x/7.jpg"}, {"id": 5, "file_name": "x/5.jpg"}],
        "annotations": [{"image_id": 5, "category_id": 0}, {"image_id": 7, "category_id": 1}],
        "categories": [{"id": 1, "name": "Quercus"}, {"id": 0, "name": "Acer"}],
    }
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "7.jpg").write_bytes(b"seven")
    (tmp_path / "val2019.json").write_text(json.dumps(content))
    source = annotation_source(tmp_path / "val2019.json")
    assert source.labels.tolist() == [1, 0] and source.class_names == ["Acer", "Quercus"] and source.encoded(0) == b"seven"
    (tmp_path / "val2019.json").write_text(json.dumps({"images": []}))
    with pytest.raises(UserError, match="is no list of annotated pictures"):
        annotation_source(tmp_path / "val2019.json")
    with pytest.raises(UserError, match="cannot be read"):
        real_set("inat2019", "train", Location(str(tmp_path / "root")), path=str(tmp_path))


def test_joined_splits_are_one_after_the_other():
    images = np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8)
    first, second = array_source("s", images[:2], np.array([0, 1]), ["a", "b"]), array_source("s", images[2:], np.array([1, 1, 0]), ["a", "b"])
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
    cells = {part: {"img": [{"bytes": png(v), "path": None} for v in values], "kind": [v // 10 % 2 for v in values]} for part, values in parts.items()}
    data = datasets.DatasetDict({part: datasets.Dataset.from_dict(content, features=features) for part, content in cells.items()})
    (tmp_path / "data").mkdir()
    for part in parts:
        data[part].to_parquet(tmp_path / "data" / f"{part}-00000-of-00001.parquet")
    data.save_to_disk(tmp_path / "saved")
    return tmp_path


@pytest.mark.parametrize("form", ["data", "saved"])
def test_a_hugging_face_data_set_on_disk_is_read_with_its_own_columns(data_set, form):
    hub = HubSet(id=str(data_set / form), image="img", label="kind")
    source, key = hub_source(hub, "test")
    assert source.class_names == ["x", "y"] and source.labels.tolist() == [0, 1] and source.encoded(1) == png(50) and key
    if form == "data":
        assert hub_source(hub, "train+test")[0].labels.tolist() == [1, 0, 1, 0, 1]
    with pytest.raises(UserError, match="has no column image; name the columns") as error:
        hub_source(HubSet(id=str(data_set / form)), "train")
    assert one_line(error)
    with pytest.raises(UserError, match="split valid cannot be opened") as error:
        hub_source(hub, "valid")
    assert one_line(error)


def test_a_data_set_folder_is_a_set_of_ones_own_with_its_splits(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "mine" / "data").mkdir(parents=True)
    for part, values in {"train": [10, 20, 30], "test": [40, 50]}.items():
        cells = [{"bytes": png(value), "path": None} for value in values]
        parquet(tmp_path / "mine" / "data" / f"{part}-0.parquet", cells, ["a" if value % 20 else "b" for value in values])
    sets = {part: real_set(str(tmp_path / "mine"), part, Location(str(tmp_path / "root")), halve=True) for part in ("train", "test")}
    assert {part: pictures.name for part, pictures in sets.items()} == {"train": "mine-train", "test": "mine-test"}
    assert class_names(sets["train"]) == ["a", "b"]
    assert sorted(decode_all(sets["test"], 8).images[:, 0, 0, 0].tolist()) == [40, 50]


def test_hub_names_are_read():
    hub, splits = parse_hub_name("hf://datasets/me/birds?config=small&test=validation+test&image=img")
    assert hub == HubSet(id="me/birds", config="small", image="img") and splits == {"train": "train", "test": "validation+test"}
    for name in ("hf://datasets/me", "hf://models/me/birds", "hf://datasets/me/birds/data"):
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
    assert source.labels.tolist() == [1, 0] and source.class_names == ["Abyssinian", "Boxer"] and source.encoded(0) == b"boxer"
    with pytest.raises(UserError, match="has 2 test pictures, 3,669 were published"):
        real_set("pets", "test", Location(str(tmp_path / "root")), path=str(tmp_path))


def test_a_torchvision_set_that_is_not_there_is_not_fetched_into_a_given_path(tmp_path):
    with pytest.raises(UserError, match="torchvision's DTD does not find its files there") as error:
        torchvision_source("DTD", {"split": "train"}, tmp_path)
    assert one_line(error) and not list(tmp_path.iterdir())
