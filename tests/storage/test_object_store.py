import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from object_store import FlakyProxy, s3_uri

from raysd.errors import UserError
from raysd.storage.conditional import conditional_store
from raysd.storage.location import Location


@pytest.fixture
def client(s3_server):
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3_server}", region_name="us-east-1")


def uploads(client):
    return client.list_multipart_uploads(Bucket="raysd").get("Uploads", [])


def test_files_are_written_listed_read_and_deleted(s3_server, client):
    folder = Location(s3_uri(s3_server, "raysd")).child("one", "two")
    assert folder.list_files() == [] and not folder.exists("a.bin")
    folder.write("a.bin", b"123")
    folder.write("a.bin", b"4567")
    assert folder.read("a.bin") == b"4567" and folder.list_sizes() == {"a.bin": 4}
    folder.delete("a.bin")
    assert not folder.exists("a.bin") and uploads(client) == []


def test_a_small_file_is_one_request_and_a_large_one_leaves_no_parts(s3_server, client):
    proxy = FlakyProxy(s3_server, 0)
    folder = Location(s3_uri(proxy.port, "raysd")).child("sizes")
    before = next(proxy.counter)
    folder.write("small.bin", bytes(2**20))
    assert next(proxy.counter) - before - 1 == 1
    folder.write("large.bin", bytes(25 * 2**20))
    assert folder.list_sizes() == {"small.bin": 2**20, "large.bin": 25 * 2**20} and uploads(client) == []
    proxy.stop()


def test_errors_and_dropped_connections_cost_nothing_but_time(s3_server):
    proxy = FlakyProxy(s3_server, 4)
    folder = Location(s3_uri(proxy.port, "raysd")).child("flaky")
    for number in range(12):
        folder.write(f"{number:02d}.bin", bytes([number]) * 1000)
    assert [folder.read(name) for name in folder.list_files(".bin")] == [bytes([number]) * 1000 for number in range(12)]
    assert proxy.failures > 6
    proxy.stop()


def test_a_bucket_that_is_not_there_is_refused_in_one_line(s3_server):
    with pytest.raises(UserError, match="cannot be written to") as caught:
        Location(s3_uri(s3_server, "no-such-bucket")).check_writable()
    assert "\n" not in str(caught.value)


def test_credentials_in_a_uri_are_refused_and_not_repeated():
    with pytest.raises(UserError, match="leave the credentials out of the URI") as caught:
        Location("s3://me:hunter2@bucket/runs").list_files()
    assert "hunter2" not in str(caught.value)


def test_a_location_travels_to_another_process_without_its_connection(s3_server):
    folder = Location(s3_uri(s3_server, "raysd")).child("there")
    folder.write("x", b"1")
    assert copy.copy(folder).read("x") == b"1" and b"pyarrow" not in pickle.dumps(folder)


def test_all_folders_of_a_bucket_share_one_client(s3_server):
    root = Location(s3_uri(s3_server, "raysd"))
    assert (
        len({id(each.filesystem) for each in (root, root.child("a"), Location(root.uri), root.child("a", "b c"))}) == 1
    )
    assert root.child("a", "b c").path == "raysd/runs/a/b c"
    with ThreadPoolExecutor(8) as threads:
        stores = set(threads.map(lambda _: id(conditional_store(root.uri)), range(64)))
    assert len(stores) == 1
    read, write = os.pipe()
    if not (child := os.fork()):  # a client's threads do not come along
        os.write(write, str(id(root.filesystem)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 100)) != id(root.filesystem)


def test_many_folders_cost_no_connections_of_their_own(s3_server):
    proxy = FlakyProxy(s3_server, 0)
    root = Location(s3_uri(proxy.port, "raysd"))
    root.write("x", b"1")
    before = proxy.connections
    for number in range(50):
        root.child(f"many{number}").write("x", b"1")
    assert proxy.connections - before <= 2
    proxy.stop()
