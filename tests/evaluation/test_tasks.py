import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysd.data.catalog import built_in_sets
from raysd.data.images import class_names, decode_image
from raysd.data.real_datasets import encode_png
from raysd.errors import UserError
from raysd.evaluation.settings import EvaluationSettings
from raysd.evaluation.tasks import resolve_sets
from raysd.prompts.table import load_class_table
from raysd.storage.location import Location

TABLE = load_class_table(["cat", "dog", "owl"])


def folder_of(path, counts):
    """A folder per class, with an image of its own for each file."""
    for number, (name, count) in enumerate(counts.items()):
        (path / name).mkdir(parents=True)
        for i in range(count):
            (path / name / f"{i}.png").write_bytes(encode_png(np.full((8, 8, 3), 20 * number + i, dtype=np.uint8)))
    return str(path)


def resolved(tmp_path, **settings):
    return resolve_sets(Location(str(tmp_path / "root")), EvaluationSettings(**settings), TABLE)[0]


def data_set(path, **splits):
    """A Hugging Face data set as it lies on disk, whose labels are texts."""
    path.mkdir()
    for split, labels in splits.items():
        images = [encode_png(np.full((8, 8, 3), ord(label), dtype=np.uint8)) for label in labels]
        pq.write_table(pa.table({"image": images, "label": list(labels)}), path / f"{split}.parquet")
    return str(path)


def test_a_transfer_sets_test_part_that_lacks_a_class_keeps_the_labels_of_its_training_part(tmp_path):
    (measured,) = resolved(tmp_path, transfer_sets=[data_set(tmp_path / "letters", train="aabbcc", test="acc")])
    test, names = measured.images, class_names(measured.train)
    rows = test.read_rows(test.files()[0])
    shown = [chr(decode_image(image["bytes"], 8)[0, 0, 0]) for image in rows["image"].to_pylist()]
    assert (
        sorted(shown) == ["a", "c", "c"]
        and [names[label] for label in test.to_labels(rows["label"].to_numpy())] == shown
    )


def test_a_class_that_only_the_test_part_has_is_one_line(tmp_path):
    with pytest.raises(UserError, match="has test images of 'd' and no training images"):
        resolved(tmp_path, transfer_sets=[data_set(tmp_path / "letters", train="aabbcc", test="acd")])


def test_a_set_keeps_its_usual_probe(tmp_path, monkeypatch):
    monkeypatch.setitem(built_in_sets(), "digits", built_in_sets()["digits"].model_copy(update={"probe": "knn"}))
    sets = resolved(
        tmp_path,
        transfer_sets=[
            "digits",
            {"name": "digits", "probe": {"neighbors": 3}},
            {"name": "digits", "probe": {"kind": "lbfgs"}},
        ],
    )
    assert [measured.probe.kind for measured in sets] == ["knn", "knn", "lbfgs"]


def test_a_probe_option_alone_keeps_the_sets_usual_kind_and_equal_sets_are_measured_once(tmp_path):
    sets = resolved(
        tmp_path,
        transfer_sets=[
            "digits",
            {"name": "digits", "probe": {"trials": 30}},
            {"name": "digits", "probe": {"trials": 3}},
        ],
    )
    assert [(measured.probe.kind, measured.label) for measured in sets] == [("lbfgs", ""), ("lbfgs", "trials 3")]


def test_a_class_map_lets_several_classes_be_right(tmp_path):
    path = folder_of(tmp_path / "pets", {"tabby": 2, "hound": 3, "chair": 1})
    (tmp_path / "map.json").write_text(json.dumps({"tabby": "cat", "hound": ["dog", "owl"], "chair": None}))
    (measured,) = resolved(tmp_path, test_sets=[{"name": path, "class_map": str(tmp_path / "map.json")}])
    assert measured.images.groups == ((1, 2),) and measured.num_left_out == 1 and measured.shared is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_sets": [{"name": "nowhere"}]}, "nowhere"),
        ({"test_sets": [{"name": "digits"}]}, "is in no row of the class table"),
        ({"test_sets": [{"name": "digits", "shared_classes": True}]}, "class"),
        ({"test_sets": [{"name": "digits", "class_map": "absent.json"}]}, "absent.json"),
    ],
)
def test_a_set_that_cannot_be_measured_is_one_line(tmp_path, settings, message):
    with pytest.raises(UserError, match=message) as error:
        resolved(tmp_path, **settings)
    assert "\n" not in str(error.value)
