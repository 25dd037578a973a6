import pytest
from pyarrow import fs

from raysd.config import load_experiment
from raysd.data.real_datasets import check_real_dataset
from raysd.diffusion.checkpoint import find_checkpoint, find_lora
from raysd.errors import UserError
from raysd.prompts.table import load_class_table
from raysd.storage import location as location_module
from raysd.storage.address import local_path
from raysd.storage.change import change, is_guarded
from raysd.storage.location import Location

REFUSED = {
    "abfss://account/x": "names no container and account of Azure; write it as abfss://container@account.dfs",
    "wasbs://box@account.blob.core.windows.net/x": "is a store of Azure, which is written abfss://",
    "s3a://bucket/x": "is written s3:// here",
    "ftp://host/x": "begins with ftp:",
    "dbfs:/x": "is written /dbfs/",
    "file://host/x": "names the machine 'host'",
    "s3:/bucket/x": "write it as s3://",
    "~no-such-user/x": "home directory",
}


def find_storage(name):
    load_experiment(storage=name)


USES = {
    "storage": find_storage,
    "configuration": load_experiment,
    "classes": load_class_table,
    "training.real": lambda name: check_real_dataset("training.real", name),
    "generation.model": find_checkpoint,
    "generation.lora.path": lambda name: find_lora(name, 1.0),
}


@pytest.mark.parametrize("field", USES)
@pytest.mark.parametrize("name", REFUSED)
def test_addresses_that_raysd_does_not_open_are_refused_by_their_field(field, name):
    with pytest.raises(UserError, match=REFUSED[name]) as found:
        USES[field](name)
    assert found.value.field == field and found.value.value == name and "credentials" not in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("field", USES)
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("s3://key:secret@bucket/x", "AWS_ACCESS_KEY_ID"),
        ("gs://secret@bucket/x", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("hdfs://me:secret@node/x", ""),
        ("abfss://box:secret@account/x", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("abfss://box@account.dfs.core.windows.net/x?sv=1&sig=secret", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("abfss://box@account.dfs.core.windows.net/x?account_key=secret", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("https://account.blob.core.windows.net/x?sig=secret", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_shown(field, name, key):
    with pytest.raises(UserError, match=f"leave the credentials out.*{key}") as found:
        USES[field](name)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("field", ["training.real", "generation.model", "generation.lora.path"])
def test_what_is_read_from_a_disk_is_no_address_of_a_store(field):
    with pytest.raises(UserError, match="is read from a disk; copy it"):
        USES[field]("s3://bucket/x")


def test_file_addresses_are_paths(tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "classes.txt").write_text("cat\ndog\n")
    assert local_path("x", f"file://{tmp_path}/a%20b") == folder
    assert load_class_table(f"file://{tmp_path}/a%20b/classes.txt").names == ["cat", "dog"]


def test_a_class_table_in_a_store_is_read(s3_server):
    place = f"s3://raysd/tables?endpoint_override=127.0.0.1:{s3_server}&scheme=http&region=us-east-1"
    Location(place).write("classes.txt", b"cat\ndog\n")
    name = place.replace("tables?", "tables/classes.txt?")
    assert load_class_table(name).names == ["cat", "dog"]
    with pytest.raises(UserError, match="cannot be read") as found:
        load_class_table(name.replace("classes", "others"))
    assert found.value.field == "classes"


def test_without_hadoop_its_addresses_are_refused_with_what_is_needed(monkeypatch):
    def refuse(uri):
        raise OSError("Unable to load libjvm\ndlopen(x) failed")

    with pytest.raises(UserError, match="no name node answers"):
        Location("hdfs://127.0.0.1:9/x").check_writable()
    monkeypatch.setattr(location_module, "_open", refuse)
    with pytest.raises(UserError, match=r"needs Hadoop's libhdfs and Java.*\(Unable to load libjvm\)") as found:
        Location("hdfs://me@node/x").check_writable()
    assert "\n" not in str(found.value)


def test_hadoop_is_written_through_a_hidden_file_and_without_conditions(tmp_path, monkeypatch):
    seen = []

    class Hadoop(fs.FSSpecHandler):
        def move(self, source, target):  # which refuses to overwrite
            seen.append(source)
            if (tmp_path / target).exists():
                raise FileExistsError(target)
            super().move(source, target)

    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem

    disk = DirFileSystem(str(tmp_path), LocalFileSystem(auto_mkdir=True))
    monkeypatch.setattr(location_module, "_open", lambda uri: (fs.PyFileSystem(Hadoop(disk)), ""))
    folder = Location("hdfs://node/runs")
    folder.check_writable()
    assert not is_guarded(folder)
    assert change(folder, "x", lambda old: b"one") == b"one"
    assert change(folder, "x", lambda old: old + b" two") == b"one two"
    assert folder.read("x") == b"one two" and [path.name for path in (tmp_path / "runs").iterdir()] == ["x"]
    assert all("/.x." in path or "/..probe" in path for path in seen)
