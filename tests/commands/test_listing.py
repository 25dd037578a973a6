"""What `raysd list` says of a storage."""

import json
import os
from pathlib import Path

import pyarrow.fs
import pytest

import raysd
from raysd.storage.location import Location
from raysd.storage.rows import RUNG_RESULT, read_rows, write_row

EARLIER = Path(__file__).parent.parent / "version_0_1_0" / "storage"


def test_clones_classifiers_and_results_are_listed_with_name_size_fingerprint_and_time():
    listing = raysd.list_storage(storage=EARLIER)
    clones = {clone.fingerprint: clone for clone in listing.clones}
    clone = clones["26437e21c12888ca"]
    folder = EARLIER / "clones" / clone.fingerprint
    assert set(clones) == set(os.listdir(EARLIER / "clones"))
    assert (clone.name, clone.num_images, clone.num_shards) == ("10 classes, embedded, name, g=2, seed 0", 40, 2)
    assert clone.when == json.loads((folder / "clone.json").read_text())["written"]
    files = [path for path in [*folder.iterdir(), *(folder / "data").iterdir()] if path.is_file()]
    assert clone.num_bytes == sum(path.stat().st_size for path in files)
    assert {classifier.fingerprint for classifier in listing.classifiers} == set(os.listdir(EARLIER / "classifiers"))
    (sweep,) = [result for result in listing.results if result.kind == "sweep"]
    assert (sweep.name, sweep.value) == ("tiny", "best guidance 1 20.2 %")
    assert {result.kind for result in listing.results} >= {"accuracy", "comparison", "analysis", "rate", "rung_result"}
    assert [clone.when for clone in listing.clones] == sorted(clone.when for clone in listing.clones)


def test_a_clone_that_is_not_complete_has_no_number_of_images(run_here, tmp_path):
    folder = tmp_path / "runs" / "clones" / "abc"
    folder.mkdir(parents=True)
    (folder / "clone.json").write_text('{"complete": false, "spec": {"model": "embedded", "variant_name": "name"}}')
    (tmp_path / "runs" / "clones" / "empty").mkdir()
    (clone,) = raysd.list_storage(storage=tmp_path / "runs").clones
    assert (clone.fingerprint, clone.num_images, clone.num_shards) == ("abc", None, 0)
    shown = run_here("list", "runs").stdout
    assert "clones: 1" in shown and "unfinished" in shown and "classifiers: none" in shown


def test_a_storage_may_be_named_itself_or_by_an_experiment(run_here, tmp_path):
    (tmp_path / "my.yaml").write_text(f"storage: {EARLIER}\n")
    by_file, by_path, by_key = (
        run_here("list", "--json", words) for words in ("my.yaml", str(EARLIER), f"storage={EARLIER}")
    )
    assert json.loads(by_file.stdout)["storage"] == str(EARLIER)
    assert by_file.stdout == by_path.stdout == by_key.stdout


def test_a_confirmed_result_of_a_finalist_is_told_from_that_of_the_search(tmp_path):
    row = read_rows(Location(str(EARLIER)), RUNG_RESULT)[0]
    write_row(Location(str(tmp_path)), RUNG_RESULT, row)
    write_row(Location(str(tmp_path)), RUNG_RESULT, {**row, "fingerprint": "ab", "confirmed": True})
    plain, confirmed = sorted(result.name for result in raysd.list_storage(storage=tmp_path).results)
    assert confirmed == f"{plain}, confirmed"


@pytest.mark.slow
def test_an_object_store_is_listed_in_the_same_way(s3_server):
    uri = f"s3://raysd/listed?endpoint_override=127.0.0.1:{s3_server}&scheme=http&region=us-east-1"
    root = Location(uri)
    pyarrow.fs.copy_files(str(EARLIER), root.path, destination_filesystem=root.filesystem)
    here, there = raysd.list_storage(storage=EARLIER), raysd.list_storage(storage=uri)
    facts = [
        {
            (type(item), item.fingerprint, item.name, item.num_bytes)
            for item in (*each.clones, *each.classifiers, *each.results)
        }
        for each in (here, there)
    ]
    assert facts[0] == facts[1]
    assert there.clones[0].path.startswith("s3://raysd/listed/clones/")


def test_a_storage_that_cannot_be_read_is_refused_in_one_line(run_here, tmp_path):
    (tmp_path / "runs").write_text("no folder")
    finished = run_here("list", "--json", "runs")
    assert finished.returncode == 2
    assert json.loads(finished.stdout)["error"]["field"] == "storage"
