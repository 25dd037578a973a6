import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.storage.fingerprint import fingerprint, folder_digest
from raysd.storage.location import Location
from raysd.storage.results import find_result, read_results, write_result

texts = st.text(max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_the_order_of_keys_does_not_matter(value):
    assert fingerprint(value) == fingerprint(dict(reversed(list(value.items()))))
    assert fingerprint(value) == fingerprint(json.loads(json.dumps(value)))


def test_different_values_have_different_fingerprints():
    assert len({fingerprint(value) for value in (1, 1.5, "1", [1], {"a": 1}, {"a": 2}, None)}) == 7


def test_nan_has_no_fingerprint():
    with pytest.raises(ValueError):
        fingerprint(float("nan"))


def test_a_folder_digest_sees_names_and_contents(tmp_path):
    (tmp_path / "a.json").write_text("1")
    first = folder_digest(tmp_path, ("*.json",))
    (tmp_path / "ignored.bin").write_text("x")
    assert folder_digest(tmp_path, ("*.json",)) == first
    (tmp_path / "a.json").write_text("2")
    second = folder_digest(tmp_path, ("*.json",))
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert len({first, second, folder_digest(tmp_path, ("*.json",))}) == 3


def test_a_repeated_row_replaces_itself(tmp_path):
    root = Location(str(tmp_path))
    write_result(root, "accuracy", {"fingerprint": "ab", "value": 1})
    write_result(root, "accuracy", {"fingerprint": "ab", "value": 2})
    write_result(root, "accuracy", {"fingerprint": "cd", "value": 3})
    assert [row["value"] for row in read_results(root, "accuracy")] == [2, 3]
    assert find_result(root, "accuracy", "cd")["value"] == 3
    assert find_result(root, "accuracy", "ef") is None


def test_a_row_cannot_name_a_path(tmp_path):
    with pytest.raises(ValueError, match="not a fingerprint"):
        write_result(Location(str(tmp_path)), "accuracy", {"fingerprint": "../x"})
