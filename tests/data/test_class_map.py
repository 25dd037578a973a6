import io
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysd.data.catalog import built_in_sets, class_keys, open_built_in
from raysd.data.class_map import _plain
from raysd.data.images import decode_all
from raysd.data.real_datasets import encode_png, image_table, real_dataset
from raysd.errors import UserError
from raysd.prompts.table import ClassTable, load_class_table
from raysd.storage.location import Location

CATS = ClassTable(
    [
        {"label": str(label), "key": key, "name": name}
        for label, (key, name) in enumerate([("n1", "cat"), ("n2", "tabby"), ("n3", "dog")])
    ]
)


@pytest.fixture
def own(tmp_path):
    names = ["kitten", "dog", "emu"]
    encoded = [encode_png(np.full((8, 8), 10 * i, dtype=np.uint8)) for i in range(6)]
    pq.write_table(image_table(encoded, np.array([0, 1, 2, 0, 1, 2]), names), tmp_path / "own.parquet")

    def read(content=None, table=CATS, **options):
        if content is not None:
            (tmp_path / "map.json").write_text(content if isinstance(content, str) else json.dumps(content))
            options["class_map"] = str(tmp_path / "map.json")
        return real_dataset(
            str(tmp_path / "own.parquet"), "test", Location(str(tmp_path / "root")), table=table, **options
        )

    return read


def test_classes_that_the_table_lacks_are_left_out_and_counted(own):
    table = load_class_table(["dog", "wolf"])
    with pytest.raises(UserError, match="class 'kitten' is in no row of the class table"):
        own(table=table)
    images = own(table=table, shared_classes=True)
    assert images.label_map == (-1, 0, -1) and images.groups == ()
    assert images.about == {"kind": "real", "num_classes_left_out": 2, "num_left_out": 4}
    arrays = decode_all(images, 8)
    assert arrays.labels.tolist() == [0, 0] and arrays.images[:, 0, 0, 0].tolist() == [10, 40]
    with pytest.raises(UserError, match="shares no class with the class table"):
        own(table=load_class_table(["wolf"]), shared_classes=True)


def test_left_out_classes_do_not_count_as_too_small(own):
    assert own(table=load_class_table(["dog"]), shared_classes=True, images_per_class=2).images_per_class == 2
    with pytest.raises(UserError, match="has a class of only 2 images, 3 are wanted"):
        own(table=load_class_table(["dog"]), shared_classes=True, images_per_class=3)


def test_a_class_map_names_one_several_or_no_class(own):
    images = own({"kitten": ["tabby", "n1"], "dog": "n3", "emu": None})
    assert images.label_map == (1, 2, -1) and images.groups == ((1, 0),)
    assert sorted(decode_all(images, 8).labels.tolist()) == [1, 1, 2, 2]
    merged = own({"kitten": ["tabby", "cat"], "dog": "dog", "emu": "cat"})
    assert merged.label_map == (1, 2, 1)  # a cat is right where a tabby is


def test_groups_change_a_sets_identity_and_nothing_else_does(own):
    plain = own(table=None)
    assert set(plain.identity()) == {"fingerprint", "images_per_class", "from_end", "label_map"}
    mapped = own({"kitten": ["tabby", "n1"], "dog": "n3", "emu": None})
    assert mapped.identity()["groups"] == ((1, 0),)
    assert replace(mapped, groups=()).identity() != mapped.identity()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is no JSON object"),
        ({"kitten": 3}, "maps the class 'kitten' to 3; give"),
        ({"kitten": []}, "maps the class 'kitten' to \\[\\]; give"),
        ({"kitten": "cat", "dog": "dog"}, "lacks the class 'emu' of the set"),
        ({"kitten": "cat", "dog": "hound", "emu": None}, "maps the class 'dog' to 'hound', which is in no row"),
        ({"kitten": ["cat", "tabby"], "dog": ["dog", "cat"], "emu": None}, "names 'n1' in two lists"),
        ({"kitten": None, "dog": None, "emu": None}, "leaves out every class"),
    ],
)
def test_a_wrong_class_map_is_one_line(own, content, message):
    with pytest.raises(UserError, match=message) as caught:
        own(content)
    assert "\n" not in str(caught.value) and "map.json" in str(caught.value)


def test_a_class_map_that_is_not_there_is_one_line(own):
    with pytest.raises(UserError, match=r"class_map = 'none\.json': cannot be read as JSON"):
        own(class_map="none.json")


def patch_entry(monkeypatch, name, **values):
    monkeypatch.setitem(built_in_sets(), name, built_in_sets()[name].model_copy(update=values))


def test_a_folder_that_is_not_what_was_published_is_refused(tmp_path, monkeypatch):
    root, path = (
        Location(str(tmp_path / "root")),
        wordnet_folder(tmp_path / "imagenet_r", class_keys("imagenet_r")[:199]),
    )
    patch_entry(monkeypatch, "imagenet_r", images={"test": 200})
    with pytest.raises(UserError, match="has 199 test images, 200 were published; unpack it again"):
        real_dataset("imagenet_r", "test", root, path=path)
    patch_entry(monkeypatch, "imagenet_r", images={"test": 199})
    (tmp_path / "imagenet_r" / class_keys("imagenet_r")[199]).mkdir()
    with pytest.raises(UserError, match="has test images of 199 classes, 200 were published; unpack it again"):
        real_dataset("imagenet_r", "test", root, path=path)
    assert not (tmp_path / "root").exists()


def wordnet_folder(folder, keys):
    for key in keys:
        (folder / key).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(folder / key / "1.jpg")
    return str(folder)


@pytest.mark.parametrize(("name", "count"), [("imagenet_r", 19), ("imagenet_a", 15)])
def test_sets_derived_from_imagenet_are_measured_on_the_shared_classes(tmp_path, monkeypatch, name, count):
    table, root = load_class_table("imagenet100"), Location(str(tmp_path / "root"))
    patch_entry(monkeypatch, name, images={"test": 200})
    path = wordnet_folder(tmp_path / name, class_keys(name))
    images = real_dataset(name, "test", root, table=table, path=path)
    assert images.about["num_classes_left_out"] == 200 - count
    labels = decode_all(images, 8).labels
    assert len(labels) == len(set(labels.tolist())) == count
    assert {table.keys[label] for label in labels} == set(table.keys) & set(class_keys(name))


def test_the_red_border_of_objectnet_is_cut_off(tmp_path, monkeypatch):
    patch_entry(monkeypatch, "objectnet", classes=1)
    pixels = np.zeros((9, 12, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    pixels[2:-2, 2:-2] = (1, 2, 3)
    (tmp_path / "objectnet" / "backpack").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "objectnet" / "backpack" / "a.png")
    source = open_built_in("objectnet", "test", tmp_path / "objectnet")
    shown = np.asarray(Image.open(io.BytesIO(source.encoded(0))))
    assert shown.shape == (5, 8, 3) and (shown == (1, 2, 3)).all()
    (tmp_path / "objectnet" / "backpack" / "a.png").write_bytes(b"torn")
    assert open_built_in("objectnet", "test", tmp_path / "objectnet").encoded(0) == b"torn", (
        "named where all are checked"
    )


def test_objectnet_needs_a_class_map(tmp_path, monkeypatch):
    patch_entry(monkeypatch, "objectnet", classes=2)
    path = wordnet_folder(tmp_path / "objectnet", ["backpack", "banana"])
    table = load_class_table("imagenet1k")
    with pytest.raises(UserError, match="objectnet needs one"):
        real_dataset("objectnet", "test", Location(str(tmp_path / "root")), table=table, path=path)
    with pytest.raises(UserError, match=r"class_map = 'none\.json': cannot be read as JSON"):
        real_dataset(
            "objectnet", "test", Location(str(tmp_path / "root")), table=table, path=path, class_map="none.json"
        )
    assert not (tmp_path / "root").exists()  # both are found before images are copied
    (tmp_path / "map.json").write_text('{"backpack": "n02769748", "banana": "n07753592"}')
    images = real_dataset(
        "objectnet",
        "test",
        Location(str(tmp_path / "root")),
        table=table,
        path=path,
        class_map=str(tmp_path / "map.json"),
    )
    assert [table.keys[label] for label in decode_all(images, 8).labels] == ["n02769748", "n07753592"]
    monkeypatch.undo()
    patch_entry(monkeypatch, "objectnet", classes=2)
    hundred = load_class_table(["n02769748", "n01440764"])
    fewer = real_dataset(
        "objectnet",
        "test",
        Location(str(tmp_path / "root")),
        table=hundred,
        path=path,
        class_map=str(tmp_path / "map.json"),
    )
    assert fewer.label_map == (0, -1) and fewer.about["num_classes_left_out"] == 1


def test_a_class_map_for_a_larger_table_leaves_out_what_this_one_lacks(own):
    content = {"kitten": ["tabby", "lynx"], "dog": "hound", "emu": None}
    with pytest.raises(UserError, match="maps the class 'kitten' to 'lynx', which is in no row"):
        own(content)
    images = own(content, shared_classes=True)
    assert images.label_map == (1, -1, -1) and images.groups == ()


@pytest.mark.parametrize("names", [["Crane", "crane", "dog"], ["n1", "dog", "CRANE"]])
def test_two_classes_of_a_set_are_never_merged(tmp_path, names):
    table = ClassTable(
        [
            {"label": str(label), "key": f"n{label}", "name": name}
            for label, name in enumerate(["tench", "crane", "dog"])
        ]
    )
    encoded = [encode_png(np.zeros((8, 8), dtype=np.uint8))] * 3
    pq.write_table(image_table(encoded, np.arange(3), names), tmp_path / "own.parquet")
    first, second = (name for name in names if name != "dog")
    with pytest.raises(
        UserError, match=f"its classes '{first}' and '{second}' are both 'n1' of the class table; give a class map"
    ):
        real_dataset(
            str(tmp_path / "own.parquet"), "test", Location(str(tmp_path / "root")), table=table, shared_classes=True
        )


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("C++", "c + +"),
        ("Jack-o'-lantern", "jack o lantern"),
        ("\uff21larm_clock", "alarm clock"),  # a wide letter
        ("cafe\u0301", "caf\u00e9"),
        ("Stra\u00dfe", "strasse"),
        ("\u0915\u093f\u0924\u093e\u092c", "\u0915\u093f\u0924\u093e\u092c"),  # vowel signs are marks
        ("\u0915\u0924\u092c", "\u0915\u0924\u092c"),  # the same letters without them
        ("!?", ""),
        ("\u2764\ufe0f", ""),
    ],
)
def test_names_are_compared_without_case_and_punctuation(name, plain):
    assert _plain(name) == plain


def test_a_name_of_punctuation_alone_matches_nothing(tmp_path):
    pq.write_table(
        image_table([encode_png(np.zeros((8, 8), dtype=np.uint8))], np.arange(1), ["!!"]), tmp_path / "own.parquet"
    )
    with pytest.raises(UserError, match="its class '!!' is in no row of the class table"):
        real_dataset(
            str(tmp_path / "own.parquet"),
            "test",
            Location(str(tmp_path / "root")),
            table=load_class_table(["??", "dog"]),
        )
