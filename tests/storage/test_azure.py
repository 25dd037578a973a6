"""Azure's abfss:// against Azurite on loopback (`npm install --global azurite`)."""

import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from raysd.errors import UserError
from raysd.prompts.table import load_class_table
from raysd.storage.change import change, is_guarded
from raysd.storage.location import Location

ACCOUNT, KEY = (  # those of the emulator, which are public
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, process):
    while process.poll() is None:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("azurite-blob has ended")


@pytest.fixture(scope="module")
def root():
    blob = pytest.importorskip("azure.storage.blob", reason="needs the extra raysd[azure]")
    if (program := shutil.which("azurite-blob")) is None:
        pytest.skip("needs azurite (npm install --global azurite)")
    port = free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    process = subprocess.Popen([program, *options, "--skipApiVersionCheck", "--disableTelemetry"])
    try:
        wait_for(port, process)
        blob.BlobServiceClient(f"http://127.0.0.1:{port}/{ACCOUNT}", credential=KEY).create_container("raysd")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
            yield f"abfss://raysd@{ACCOUNT}.dfs.core.windows.net/runs?endpoint_override=127.0.0.1:{port}&scheme=http"
    finally:
        process.terminate()
        process.wait()


def test_files_are_written_listed_read_and_deleted(root):
    folder = Location(root).child("one", "two")
    folder.check_writable()
    assert folder.list_files() == [] and not folder.exists("a.bin")
    folder.write("a.bin", b"123")
    folder.write("a.bin", b"4567")
    folder.write("large.bin", bytes(70 * 2**20))
    assert folder.read("a.bin") == b"4567" and folder.list_sizes() == {"a.bin": 4, "large.bin": 70 * 2**20}
    assert Location(root).child("one").list_folders() == ["two"]
    folder.delete("a.bin")
    assert not folder.exists("a.bin")
    folder.delete_folder()
    assert folder.list_files() == []


def test_no_change_is_lost_however_many_make_them_at_a_time(root):
    folder = Location(root).child("changes")
    assert is_guarded(folder) and folder.list_files() == []

    def add(number):
        change(folder, "list", lambda data: (data or b"") + b"x", is_new=number % 2 == 0)

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(add, range(24)))
    assert folder.read("list") == b"x" * 24


def test_a_class_table_in_the_store_is_read(root):
    Location(root).write("classes.txt", b"cat\ndog\n")
    assert load_class_table(root.replace("runs?", "runs/classes.txt?")).names == ["cat", "dog"]


def test_a_container_that_is_not_there_is_refused_in_one_line(root):
    with pytest.raises(UserError, match=r"cannot be written to .*ContainerNotFound") as caught:
        Location(root.replace("raysd@", "no-such-container@")).check_writable()
    assert "\n" not in str(caught.value)
