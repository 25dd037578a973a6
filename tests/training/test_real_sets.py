import numpy as np
import pyarrow.parquet as pq
import pytest

from raysd.errors import UserError
from raysd.prompts.table import ClassTable, load_class_table
from raysd.storage.location import Location
from raysd.training.real_sets import encode_png, picture_table, real_set


def table_of(*rows):
    return ClassTable([{"label": str(label), "key": key, "name": name} for label, (key, name) in enumerate(rows)])


def own_set(folder, names):
    picture = encode_png(np.zeros((8, 8, 3), dtype=np.uint8))
    pq.write_table(picture_table([picture] * len(names), np.arange(len(names)), list(names)), folder / "own.parquet")
    return str(folder / "own.parquet"), Location(str(folder / "root"))


def labels_for(folder, names, table):
    path, root = own_set(folder, names)
    pictures = real_set(path, "test", root, table=table)
    return pictures.to_labels(np.arange(len(names))).tolist()


CRANES = table_of(("n1", "crane"), ("n2", "tench"), ("n3", "crane"))


def test_two_classes_of_one_name_stay_apart(tmp_path):
    assert labels_for(tmp_path, ["crane", "tench", "crane"], CRANES) == [0, 1, 2]
    imagenet = load_class_table("imagenet1k")
    assert labels_for(tmp_path, imagenet.names, imagenet) == list(range(1000))


def test_keys_are_known_in_any_order_and_a_name_of_two_classes_is_refused(tmp_path):
    assert labels_for(tmp_path, ["n3", "n1", "tench"], CRANES) == [2, 0, 1]
    with pytest.raises(UserError, match="'crane' is the name of 2 classes; call it by its key, n1 or n3"):
        labels_for(tmp_path, ["tench", "crane"], CRANES)


def test_case_and_punctuation_of_names_do_not_count(tmp_path):
    from torchvision.datasets import Flowers102

    flowers = load_class_table("flowers102")
    assert labels_for(tmp_path, Flowers102.classes[::-1], flowers) == list(range(101, -1, -1))
    with pytest.raises(UserError, match="'tulip' is in no row of the class table"):
        labels_for(tmp_path, ["tulip"], flowers)
