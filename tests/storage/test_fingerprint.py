import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.storage.fingerprint import fingerprint, folder_digest

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
