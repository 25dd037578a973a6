"""What a report is made of: sweeps, and roots without one."""

import pytest
from report_rows import (
    accuracy_row,
    experiment_rows,
    failed_result,
    search_accuracy,
    search_results,
    search_row,
    setting_of,
    write_search,
)

from raysd.errors import UserError
from raysd.report.inputs import gather, gather_all, gather_sweep
from raysd.storage.location import Location


def searched(tmp_path, settings, **changes):
    results = search_results(settings, **changes)
    rows = search_accuracy(results)
    return search_row(tmp_path, results, rows), rows, results


def test_settings_that_share_a_clone_have_cells_of_their_own(tmp_path):
    settings = [setting_of("name", 2.0, **{"training.rate": rate}) for rate in (0.1, 1.0)]
    inputs = gather_sweep(*searched(tmp_path, settings))
    assert len({entry.folder for entry in inputs.entries}) == 1
    first, second = (cell for cell in inputs.cells.of_kind("clone") if cell.setting.images_per_class == 100)
    assert first.transfer.mean != second.transfer.mean and not inputs.cells.notes and not inputs.lacking


def test_a_dropped_setting_has_no_score_at_later_rungs(tmp_path):
    inputs = gather_sweep(*searched(tmp_path, [setting_of("name", scale) for scale in (1.0, 2.0, 7.5)], keep=1))
    assert inputs.budgets == inputs.shown_budgets == [25, 100]
    assert [entry.score_at(100) is None for entry in inputs.entries] == [True, False, True]


def test_results_of_other_sweeps_stay_out(tmp_path):
    sweep, rows, results = searched(tmp_path, [setting_of("name", scale) for scale in (1.0, 2.0)])
    stranger = {**results[0], "fingerprint": "ff", "sweep": "other", "classifiers": ["ff"], "rows": ["ff"]}
    inputs = gather_sweep(sweep, [*rows, accuracy_row(99.0, classifier="ff", fingerprint="ff")], [*results, stranger])
    assert "ff" not in {row["fingerprint"] for row in inputs.rows}


def test_without_a_sweep_every_row_is_shown(tmp_path):
    rows = experiment_rows()
    inputs = gather_all(Location(str(tmp_path)), rows, [])
    assert not inputs.is_sweep and len(inputs.rows) == len(rows)
    assert len(inputs.entries) == 6 and inputs.entries[0].folder.startswith(str(tmp_path / "clones"))
    assert inputs.objective == "test"


def test_without_a_sweep_labels_say_what_differs(tmp_path):
    slow, fast, other = accuracy_row(70.0), accuracy_row(60.0, 1), accuracy_row(50.0, 2)
    fast["trained_on"] |= {"num_inference_steps": 50, "fingerprint": "aa"}
    other["trained_on"] |= {"fingerprint": "bbbbbbbb"}
    labels = [entry.label for entry in gather_all(Location(str(tmp_path)), [slow, fast, other], []).entries]
    assert (
        len(set(labels)) == 3
        and any("steps 50" in label for label in labels)
        and any("(bbbbbb)" in label for label in labels)
    )


def test_without_a_sweep_sizes_of_one_clone_are_its_rungs(tmp_path):
    large, small = accuracy_row(70.0), accuracy_row(60.0, classifier="ab", fingerprint="ab")
    small["trained_on"]["images_per_class"] = 10
    (entry,) = gather_all(Location(str(tmp_path)), [large, small], []).entries
    assert [(rung.images_per_class, rung.score) for rung in entry.rungs] == [(10, 60.0), (100, 70.0)]


def test_a_sweep_that_is_asked_for_and_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no sweep"):
        gather(Location(str(tmp_path)), "abc")


def test_rows_of_all_rungs_are_found_through_the_trials(tmp_path):
    root = Location(str(tmp_path / "root"))
    _, _, rows = write_search(root, tmp_path / "clones", rows=[])
    assert {row["fingerprint"] for row in gather(root).rows} == {row["fingerprint"] for row in rows}


def test_results_of_a_sweep_that_did_not_end_name_the_settings(tmp_path):
    _, rows, results = searched(tmp_path, [setting_of("name", 2.0, **{"training.rate": rate}) for rate in (0.1, 1.0)])
    entries = gather_all(Location(str(tmp_path)), rows, results).entries
    assert [entry.label for entry in entries] == ["name, guidance 2, rate 0.1", "name, guidance 2, rate 1.0"]
    assert [rung.images_per_class for rung in entries[0].rungs] == [25, 100]


def test_missing_accuracy_rows_are_counted_for_each_setting(tmp_path):
    sweep, rows, results = searched(tmp_path, [setting_of("name", scale) for scale in (1.0, 2.0)])
    lost = {results[2]["rows"][0], *results[1]["rows"], rows[-1]["fingerprint"]}
    inputs = gather_sweep(sweep, [row for row in rows if row["fingerprint"] not in lost], results)
    assert sorted(inputs.lacking) == [
        "Baselines and further sets: missing 1 of 18 accuracy rows.",
        "name, guidance 1: missing 1 of 11 accuracy rows.",
        "name, guidance 2: missing 2 of 11 accuracy rows and all rows of 2 classifiers.",
    ]


def test_lower_rungs_lack_no_row_where_they_have_those_of_the_objective(tmp_path):
    assert not gather_sweep(*searched(tmp_path, [setting_of("name", scale) for scale in (1.0, 2.0)])).lacking


def test_baselines_of_other_runs_are_borrowed_and_told(tmp_path):
    results = search_results([setting_of("name", 2.0)])
    rows = search_accuracy(results)
    own = [row for row in rows if row["trained_on"]["kind"] != "real"]
    inputs = gather_sweep(search_row(tmp_path, results, own), rows, results)
    assert inputs.borrowed == ("real",) and len(inputs.rows) == len(rows)


def test_a_step_that_failed_is_a_setting_without_cells(tmp_path):
    results = [*search_results([setting_of("name", 2.0)]), failed_result(setting_of("name", 1.0), 1)]
    rows = search_accuracy(results)
    inputs = gather_sweep(search_row(tmp_path, results, rows), rows, results)
    assert [entry.score_at(25) is None for entry in inputs.entries] == [False, True] and not inputs.lacking


def test_a_mixture_without_a_sweep_has_no_clone_of_its_own(tmp_path):
    row = accuracy_row(70.0)
    row["trained_on"] |= {"parts": [{}, {}], "name": "name-2.0 + digits"}
    (entry,) = gather_all(Location(str(tmp_path)), [row], []).entries
    assert (entry.label, entry.folder) == ("name-2.0 + digits, mixture", "")
