import pytest
import yaml

from raysd.errors import UserError
from raysd.prompts.table import built_in_tables, load_class_table


@pytest.mark.parametrize("name", built_in_tables())
def test_built_in_tables_load(name):
    table = load_class_table(name)
    assert len(set(table.keys)) == len(table)
    assert [int(row["label"]) for row in table.rows] == list(range(len(table)))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("cifar10", 10),
        ("cifar100", 100),
        ("pets", 37),
        ("flowers102", 102),
        ("dtd", 47),
        ("eurosat", 10),
        ("food101", 101),
    ],
)
def test_the_tables_of_transfer_sets_have_all_their_classes(name, count):
    assert len(load_class_table(name)) == count == len({row["name"] for row in load_class_table(name).rows})


@pytest.mark.parametrize("name", ["cifar100", "pets", "dtd", "eurosat"])
def test_sets_with_alphabetical_labels_have_them(name):
    keys = [row["key"].lower() for row in load_class_table(name).rows]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("name", "label", "key"),
    [
        ("cifar10", 3, "cat"),
        ("cifar10", 9, "truck"),
        ("food101", 16, "cheesecake"),
        ("food101", 100, "waffles"),
        ("pets", 5, "bengal"),
    ],
)
def test_labels_mean_what_they_mean_in_the_sets(name, label, key):
    assert load_class_table(name).keys[label] == key


def test_cifars_names_have_the_meaning_of_their_images():
    rows = {row["name"]: row for name in ("cifar10", "cifar100") for row in load_class_table(name).rows}
    assert (
        rows["ray"]["hypernym"] == "elasmobranch"
        and rows["seal"]["hypernym"] == "pinniped mammal"
        and rows["keyboard"]["wnid"] == "n03085013"
    )
    assert all(row["definition"] and row["hypernym"] for row in rows.values())


def test_the_order_of_flowers_is_torchvisions():
    from torchvision.datasets import Flowers102

    assert load_class_table("flowers102").names == [name.rstrip("?") for name in Flowers102.classes]


def test_a_list_of_names_numbers_itself():
    table = load_class_table(["cat", "dog"])
    assert [(row["label"], row["key"], row["name"]) for row in table.rows] == [("0", "cat", "cat"), ("1", "dog", "dog")]


def test_csv_parquet_yaml_and_text_give_the_same_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"name": "cat", "key": "n1"}, {"name": "dog", "key": "n2"}]
    (tmp_path / "t.csv").write_text("name,key\ncat,n1\ndog,n2\n")
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    loaded = [load_class_table(str(tmp_path / f"t.{kind}")).rows for kind in ("csv", "yaml", "parquet")]
    assert loaded[0] == loaded[1] == loaded[2]
    (tmp_path / "t.txt").write_text("cat\n\ndog\n")
    assert load_class_table(str(tmp_path / "t.txt")).names == ["cat", "dog"]
    (tmp_path / "t.txt").write_text("\ufeffcat\ndog\n")
    assert load_class_table(str(tmp_path / "t.txt")).names == ["cat", "dog"]


def test_lists_in_cells_are_several_values_and_other_kinds_are_refused(tmp_path):
    (tmp_path / "t.yaml").write_text("- {name: cat, synonyms: [kitty, puss]}\n")
    assert load_class_table(str(tmp_path / "t.yaml")).rows[0]["synonyms"] == "kitty|puss"
    (tmp_path / "t.jsonl").write_text('"cat"\nfalse\n')
    with pytest.raises(UserError, match=r"classes\.name = False: in row 2 of .* is no text; write it as text"):
        load_class_table(str(tmp_path / "t.jsonl"))


def test_a_yaml_table_keeps_the_characters_of_the_file(tmp_path):
    names = ["007", "010", "0x1F", "12:30", "1_000", "2021-01-01", "1e3", "yes", "no", "on", "true"]
    (tmp_path / "t.yaml").write_text("".join(f"- {name}\n" for name in names))
    assert load_class_table(str(tmp_path / "t.yaml")).names == names
    (tmp_path / "t.yaml").write_text("- {name: 7, key: 007, definition: ~}\n")
    assert load_class_table(str(tmp_path / "t.yaml")).rows == [
        {"label": "0", "name": "7", "key": "007", "definition": ""}
    ]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.CSV", b"key,name\na,cat\nb,dog\n"),
        ("t.csv", b"Key, Name\na, cat\nb, dog\n"),
        ("t.csv", b"key;name\r\na;cat\r\nb;dog\r\n"),
        ("t.csv", b"key\tname\na\tcat\nb\tdog\n"),
        ("t.tsv", b"key\tname\na\tcat\nb\tdog\n"),
        ("t.csv", "key,name\na,cat\nb,dog\n".encode("utf-16")),
        ("t.jsonl", b'{"key": "a", "name": "cat"}\n{"key": "b", "name": "dog"}\n'),
    ],
    ids=["capitals in the suffix", "in the header", "semicolons", "tabs", "tsv", "utf-16", "jsonl"],
)
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    rows = load_class_table(str(tmp_path / name)).rows
    assert [(row["label"], row["key"], row["name"]) for row in rows] == [("0", "a", "cat"), ("1", "b", "dog")]


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("key,name\na,caf\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text; save it as UTF-8"):
        load_class_table(str(tmp_path / "t.csv"))


def test_rows_are_put_in_label_order(tmp_path):
    (tmp_path / "t.csv").write_text("label,name\n1,dog\n0,cat\n")
    assert load_class_table(str(tmp_path / "t.csv")).names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\n", "empty"),
        ("name,definition\ncrane,a tall, wading bird\n", "row 1 has more cells than the header"),
        ("title\ncat\n", "has no column name, only title; rename one"),
        ("key,name\na,\n", "row 1 has no name"),
        ('key,name\na,"cat\nb,dog\nc,fox\n', "a quote that it opens is never closed"),
        ('key,name\na,"cat\nb,dog\nc,""fox"\n', "row 1 of .* goes over several lines; close the quote"),
        ("Name,name\ncat,dog\n", "two columns 'name'"),
        ("label,name\n1,cat\n2,dog\n", "labels must be 0 to 1, each once; they begin at 1; subtract 1"),
        ("name,key\ncat,a\ndog,a\n", "stands twice"),
        ("name\ncrane\ncrane\n", "stands twice"),
        ("label,name\n0,cat\n2,dog\n", "labels must be 0 to 1"),
        ("label,name\n0,cat\n0,dog\n", "labels must be 0 to 1"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_class_table(str(tmp_path / "t.csv"))
    assert "\n" not in str(caught.value)


def test_a_missing_table_names_the_built_in_ones():
    with pytest.raises(UserError, match="fashion_mnist"):
        load_class_table("no_such_table")
