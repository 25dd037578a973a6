"""Rows are named by their fingerprints, and those of version 0.1.0 read as today's."""

import copy
import shutil
from pathlib import Path

import pytest
from row_types import checked

from raysd.storage.location import Location
from raysd.storage.row_types.sweep import RungResult, SweepRow
from raysd.storage.rows import ACCURACY, RUNG_RESULT, SWEEP, find_row, read_rows, write_row

OLD = Path(__file__).parent / "rows_of_0_1_0"


@pytest.fixture
def old(tmp_path):
    """A storage root with rows that version 0.1.0 wrote."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    return Location(str(tmp_path))


def test_a_repeated_row_replaces_itself(tmp_path):
    root = Location(str(tmp_path))
    write_row(root, ACCURACY, {"fingerprint": "ab", "value": 1})
    write_row(root, ACCURACY, {"fingerprint": "ab", "value": 2})
    write_row(root, ACCURACY, {"fingerprint": "cd", "value": 3})
    assert [row["value"] for row in read_rows(root, ACCURACY)] == [2, 3]
    assert find_row(root, ACCURACY, "cd")["value"] == 3
    assert find_row(root, ACCURACY, "ef") is None


def test_a_row_cannot_name_a_path(tmp_path):
    with pytest.raises(ValueError, match="not a fingerprint"):
        write_row(Location(str(tmp_path)), ACCURACY, {"fingerprint": "../x"})


def test_a_trial_of_0_1_0_is_a_rung_result(old):
    (result,) = read_rows(old, RUNG_RESULT)
    assert find_row(old, RUNG_RESULT, result["fingerprint"]) == result == checked(result, RungResult)
    assert (result["num_planned"], result["num_generated"]) == (20, 20)
    assert set(result["seconds"]) == {"generate", "train", "measure"} and result["seconds"]["generate"] > 1
    assert not {"pictures", "num_drawn"} & set(result)


def test_a_sweep_of_0_1_0_has_todays_keys(old):
    (sweep,) = read_rows(old, SWEEP)
    assert checked(sweep, SweepRow)["rung_results"][-1] == "7acbb83e6a24640d"
    cost, grid = sweep["cost"], sweep["cost"]["grid"]
    assert (cost["num_images"], cost["num_generated"], grid["num_images"]) == (60, 20, 80)
    assert cost["generate_seconds"] == sweep["seconds"]["generate"] > 1 and grid["generate_seconds"] > 4
    assert "draw" not in str(sweep) and "pictures" not in str(sweep)


def test_what_an_old_effects_interval_says_becomes_its_verdict(old):
    (sweep,) = read_rows(old, SWEEP)
    assert [value["verdict"] for value in sweep["effects"][0]["values"]] == [None, None]
    stored = copy.deepcopy(sweep)
    for value, ends in zip(stored["effects"][0]["values"], [(0.1, 2.0), (-2.0, 0.1)], strict=True):
        del value["verdict"]
        value["low"], value["high"] = ends
    write_row(old, SWEEP, stored)
    (sweep,) = read_rows(old, SWEEP)
    assert [value["verdict"] for value in sweep["effects"][0]["values"]] == ["better", "within noise"]


def test_an_untrained_network_has_one_name(old):
    named = {"kind": "random", "name": "random initialisation", "fingerprint": None}
    write_row(old, ACCURACY, {"fingerprint": "ab", "value": 1.0, "trained_on": named})
    assert find_row(old, ACCURACY, "ab")["trained_on"]["name"] == "random initialization"


def test_a_rung_result_that_is_measured_anew_takes_the_place_of_the_old_trial(old):
    (result,) = read_rows(old, RUNG_RESULT)
    write_row(old, RUNG_RESULT, {**result, "num_generated": 25})
    assert [row["num_generated"] for row in read_rows(old, RUNG_RESULT)] == [25]
    assert find_row(old, RUNG_RESULT, result["fingerprint"])["num_generated"] == 25
    assert old.child("results", "rung_result").list_files(".json") == old.child("results", "trial").list_files(".json")
