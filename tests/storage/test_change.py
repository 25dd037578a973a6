"""Changes of a file by several writers: on a disk, on a real S3 server, and on stand-ins for Google's and Azure's."""

import itertools
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from object_store import FlakyProxy, s3_uri

from raysd.errors import UserError
from raysd.storage.change import change, is_guarded
from raysd.storage.conditional import conditional_store
from raysd.storage.location import Location


class GoogleServer:
    """Objects with generations, as far as raysd asks Google Cloud Storage for them."""

    def __init__(self):
        objects, lock = {}, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
                about, data = (
                    part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in body.split(b"--" + boundary)[1:3]
                )
                name, wanted = (
                    json.loads(about)["name"],
                    int(parse_qs(urlsplit(self.path).query)["ifGenerationMatch"][0]),
                )
                with lock:
                    generation = objects.get(name, (b"", 0))[1]
                    if generation != wanted:
                        self.answer(412, b"{}")
                        return
                    objects[name] = data, generation + 1
                self.answer(200, json.dumps({"name": name, "generation": str(generation + 1)}).encode())

            def do_GET(self):
                name = urlsplit(self.path).path.rpartition("/o/")[2].replace("%2F", "/")
                if name not in objects:
                    self.answer(404, b"{}")
                    return
                data, generation = objects[name]
                self.answer(200, data, {"X-Goog-Generation": str(generation)})

            def answer(self, status, data, headers=()):
                self.send_response(status)
                for key, value in {
                    "Content-Length": str(len(data)),
                    "Content-Type": "application/json",
                    **dict(headers),
                }.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.uri = f"gs://bucket/runs?scheme=http&endpoint_override=127.0.0.1:{self.server.server_address[1]}"


class AzureServer:
    """Blobs with ETags, as far as raysd asks Azure for them."""

    def __init__(self):
        blobs, lock, versions = {}, threading.Lock(), itertools.count()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                data = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    there = blobs.get(self.path)
                    if there is not None and self.headers.get("If-None-Match") == "*":
                        self.answer(409, error="BlobAlreadyExists")
                    elif (wanted := self.headers.get("If-Match")) and (there is None or there[1] != wanted):
                        self.answer(412, error="ConditionNotMet")
                    else:
                        blobs[self.path] = data, f'"{next(versions)}"'
                        self.answer(201, blobs[self.path])

            def do_GET(self):
                found = blobs.get(self.path)
                self.answer(404, error="BlobNotFound") if found is None else self.answer(206, found, found[0])

            def answer(self, status, blob=(b"", ""), body=b"", error=None):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{len(body)}")
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.send_header("x-ms-error-code" if error else "ETag", error or blob[1])
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{self.server.server_address[1]}"
        self.uri = f"abfss://box@account.dfs.core.windows.net/runs?scheme=http&endpoint_override={place}"


@pytest.fixture(params=["disk", "s3", "google", "azure"])
def folder(request, tmp_path):
    if request.param == "disk":
        return Location(str(tmp_path / "runs"))
    if request.param == "s3":
        return Location(s3_uri(request.getfixturevalue("s3_server"), "raysd")).child(tmp_path.name)
    if request.param == "azure":
        pytest.importorskip("azure.storage.blob", reason="needs the extra raysd[azure]")
        request.getfixturevalue("monkeypatch").setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
        return Location(AzureServer().uri)
    pytest.importorskip("google.cloud.storage")
    return Location(GoogleServer().uri)


def read(folder, name):
    found = []
    change(folder, name, lambda data: found.append(data))
    return found[0]


def test_no_change_is_lost_however_many_make_them_at_a_time(folder):
    def add(number):
        change(
            folder,
            "list.json",
            lambda data: json.dumps([*json.loads(data or b"[]"), number]).encode(),
            is_new=number % 2 == 0,
        )

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(add, range(40)))
    assert sorted(json.loads(read(folder, "list.json"))) == list(range(40))


def test_nothing_is_written_where_nothing_changes(folder):
    assert change(folder, "x", lambda data: None) is None and read(folder, "x") is None
    assert change(folder, "x", lambda data: b"1") == b"1" and read(folder, "x") == b"1"


def test_what_another_writes_between_reading_and_writing_is_seen(folder):
    seen = []

    def slow(data):
        seen.append(data)
        if len(seen) == 1 and not folder.is_local:  # on a disk the other one would wait
            change(folder, "y", lambda _: b"theirs")
        return (data or b"") + b" ours"

    change(folder, "y", slow)
    assert read(folder, "y") == (b" ours" if folder.is_local else b"theirs ours")


def test_storage_says_whether_it_guards_changes(s3_server, tmp_path):
    assert is_guarded(Location(str(tmp_path / "new"))) and not list((tmp_path / "new").iterdir())
    bucket = Location(s3_uri(s3_server, "raysd")).child("guarded")
    assert is_guarded(bucket) and bucket.list_files() == []


def test_a_server_that_knows_no_conditions_is_written_to_and_said_to_be_unguarded(s3_server):
    proxy = FlakyProxy(s3_server, 0, refuses=("if-match", "if-none-match"))
    folder = Location(s3_uri(proxy.port, "raysd")).child("old")
    assert change(folder, "x", lambda data: b"1") == b"1" and read(folder, "x") == b"1"
    assert not is_guarded(folder)
    proxy.stop()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(UserError, match=r"needs the package boto3 on all nodes; pip install 'raysd\[s3\]'"):
        conditional_store("s3://bucket/other?region=eu-west-9")


def test_what_the_store_refuses_is_an_os_error(s3_server):
    with pytest.raises(OSError, match="NoSuchBucket"):
        change(Location(s3_uri(s3_server, "no-such-bucket")), "x", lambda data: b"1")
