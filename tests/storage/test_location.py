import os
import time

import pytest

from raysd.errors import UserError
from raysd.storage.location import STALE_SECONDS, Location


def test_a_written_file_is_read_back_and_listed(tmp_path):
    folder = Location(str(tmp_path)).child("a", "b")
    folder.write("x.bin", b"123")
    folder.write("x.bin", b"4567")
    assert folder.read("x.bin") == b"4567"
    assert folder.list_files() == ["x.bin"]
    assert folder.exists("x.bin") and not folder.exists("y.bin")


def test_a_missing_folder_lists_nothing(tmp_path):
    assert Location(str(tmp_path / "none")).list_files() == []


def test_a_write_that_fails_before_the_rename_leaves_neither_file_nor_partial(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no rename today")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no rename"):
        Location(str(tmp_path)).write("x.bin", b"1")
    assert list(tmp_path.iterdir()) == []


def test_partial_files_are_never_listed_and_only_old_ones_are_removed(tmp_path):
    fresh, stale = tmp_path / ".a.1.tmp", tmp_path / ".a.2.tmp"
    for path in (fresh, stale):
        path.write_bytes(b"torn")
    old = time.time() - STALE_SECONDS - 1
    os.utime(stale, (old, old))
    folder = Location(str(tmp_path))
    folder.remove_stale_partials()
    assert fresh.exists() and not stale.exists()
    assert folder.list_files() == []


def test_an_unwritable_root_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"storage.*cannot be written to.*choose") as caught:
        Location("/proc/raysd").check_writable()
    assert "\n" not in str(caught.value)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(UserError, match="use a path, s3://, gs://, abfss:// or hdfs://"):
        Location("ftp://x/y").list_files()
