import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysd.clone.export import folder_names, former_folder_name
from raysd.data.images import class_names, decode_all
from raysd.data.parquet import parquet_source
from raysd.data.readers import Columns, encode_png
from raysd.data.real_datasets import check_real_dataset, real_dataset
from raysd.errors import UserError
from raysd.prompts.table import load_class_table
from raysd.storage.location import Location


def png(value):
    return encode_png(np.full((8, 8), value, dtype=np.uint8))


def opened(path, tmp_path, table=None, **options):
    return real_dataset(str(path), "test", Location(str(tmp_path / "root")), table=table, **options)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
@pytest.mark.parametrize(
    "images", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())]
)
def test_columns_of_every_arrow_type_are_read_alike(tmp_path, kind, images):
    labels = pa.array(["dog", "cat", "dog"]).cast(kind)
    pq.write_table(
        pa.table({"image": pa.array([b"x", b"y", b"z"]).cast(images), "label": labels}), tmp_path / "a.parquet"
    )
    source = parquet_source(tmp_path / "a.parquet")
    assert source.class_names == ["cat", "dog"] and source.labels.tolist() == [1, 0, 1]
    assert [source.encoded(i) for i in range(3)] == [b"x", b"y", b"z"]


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([b"x"]), pa.array([0]), pa.array([1])], ["image", "label", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has 2 columns label; remove all but one"):
        parquet_source(tmp_path / "a.parquet")


def test_columns_of_other_names_are_proposed_and_then_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"img": [png(10), png(20)], "fine_label": [0, 1], "coarse": [0, 0]}), path)
    with pytest.raises(UserError, match="has no column image, only img, fine_label, coarse; name its columns") as error:
        opened(path, tmp_path)
    proposed = error.value.remedy.rpartition(" ")[2]
    assert proposed == f"{path}?image=img&label=fine_label"
    check_real_dataset("test_set", proposed)
    fine, coarse = (opened(f"{path}?image=img&label={label}", tmp_path) for label in ("fine_label", "coarse"))
    assert fine.name == "a-whole" and decode_all(fine, 8).labels.tolist() == [0, 1]
    assert decode_all(coarse, 8).labels.tolist() == [0, 0]
    assert parquet_source(path, Columns("img", "coarse")).encoded(1) == png(20)
    for name, message in {
        f"{path}?valid=x": "has no option 'valid'; options are image, label, on_broken",
        f"{path}?": "has no option ''",
        f"{path}?on_broken=no": "has on_broken=no; give error or skip",
        f"{tmp_path}/none.parquet?image=img": "no such set",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            check_real_dataset("test_set", name)
        assert "\n" not in str(error.value)
    (tmp_path / "odd?image=x").mkdir()
    check_real_dataset("test_set", str(tmp_path / "odd?image=x"))


def test_class_names_are_those_of_the_label_column(tmp_path):
    features = {"kind": {"names": ["a", "b"]}, "label": {"names": ["c", "d"]}}
    table = pa.table({"image": [b"x"], "kind": [1], "label": [0]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    assert parquet_source(tmp_path / "a.parquet", Columns(label="kind")).class_names == ["a", "b"]


def test_folders_that_are_named_as_columns_are_read(tmp_path):
    for label, values in {"3": [30, 31], "10": [100]}.items():
        folder = tmp_path / "own" / f"label={label}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"image": [png(value) for value in values]}), folder / "a.parquet")
    source = parquet_source(tmp_path / "own")
    assert source.labels.tolist() == [10, 3, 3] and source.encoded(2) == png(31)
    assert source.place(2) == "label=3/a.parquet, row 1"
    arrays = decode_all(opened(tmp_path / "own", tmp_path), 8)
    assert dict(zip(arrays.images[:, 0, 0, 0].tolist(), arrays.labels.tolist(), strict=True)) == {30: 3, 31: 3, 100: 10}
    (tmp_path / "own" / "label=3").rename(tmp_path / "own" / "label=a%20dog")
    assert parquet_source(tmp_path / "own").class_names == ["10", "a dog"]


TABLE = load_class_table(["bag", "coat", "dress"])


@pytest.mark.parametrize(("labels", "shown"), [([1, 2], "1 to 2"), ([1, 2, 3], "1 to 3"), ([0, 1, 2, 3], "0 to 3")])
def test_numbers_that_cannot_be_the_tables_are_refused_and_can_be_mapped(tmp_path, labels, shown):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [png(10 * label) for label in labels], "label": labels}), path)
    with pytest.raises(UserError, match=f"has the labels {shown} without names, .* are 0 to 2; .* class_map"):
        opened(path, tmp_path, TABLE)
    with pytest.raises(UserError, match="has the labels"):
        opened(path, tmp_path, TABLE, shared_classes=True)
    keys = dict(zip(map(str, labels), ["bag", "coat", "dress", None], strict=False))
    (tmp_path / "map.json").write_text(json.dumps(keys))
    mapped = opened(path, tmp_path, TABLE, class_map=str(tmp_path / "map.json"))
    assert decode_all(mapped, 8).labels.tolist() == [0, 1, 2][: len(labels)]


def test_an_export_is_read_back_by_name(tmp_path):
    table = load_class_table(["a b", "coat", "a/b", "Été"])
    for label, name in enumerate(folder_names(table.names)):
        (tmp_path / "export" / name).mkdir(parents=True)
        (tmp_path / "export" / name / "0000000.png").write_bytes(png(10 * label))
    arrays = decode_all(opened(tmp_path / "export", tmp_path, table), 8)
    assert (arrays.images[:, 0, 0, 0] // 10).tolist() == arrays.labels.tolist()
    assert sorted(arrays.labels.tolist()) == [0, 1, 2, 3]


def test_an_export_of_version_0_1_0_is_read_back_by_key(tmp_path):
    table = load_class_table(["a b", "coat", "a/b"])
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / ".raysd-export.json").write_text("{}")
    for label, key in enumerate(table.keys):
        folder = tmp_path / "export" / former_folder_name(label, key)
        folder.mkdir()
        (folder / "0000000.png").write_bytes(png(10 * label))
    images = opened(tmp_path / "export", tmp_path, table)
    assert decode_all(images, 8).labels.tolist() == [0, 1, 2]
    assert class_names(images) == ["00000_a_b", "00001_coat", "00002_a_b"]
    other = load_class_table(["coat", "b", "a b"])
    (tmp_path / "export" / "00000_a_b").rename(tmp_path / "export" / "00007_b")
    arrays = decode_all(opened(tmp_path / "export", tmp_path, other), 8)
    assert dict(zip((arrays.images[:, 0, 0, 0] // 10).tolist(), arrays.labels.tolist(), strict=True)) == {
        0: 1,
        1: 0,
        2: 2,
    }
