"""What a report is made of: sweeps of all ages, and roots without one."""

import pytest
from report_rows import accuracy_row, digest, experiment_rows, search_row, search_trials, setting_of, sweep_row, write_search

from raysd.errors import UserError
from raysd.report.material import gather, gather_all, gather_sweep
from raysd.storage.location import Location


def searched(tmp_path, settings, **changes):
    trials = search_trials(settings, **changes)
    return search_row(tmp_path, trials), trials


def rows_of(trials):
    rows = []
    for trial in trials:
        setting = trial["setting"]
        for seed, value, name in zip(trial["seeds"], trial["seed_scores"], trial["classifiers"], strict=True):
            row = accuracy_row(value, seed, "clone", setting["generation.variant"], setting["generation.guidance_scale"])
            rows.append({**row, "classifier": name, "fingerprint": digest("row", name, "test")})
    return rows


def test_settings_that_share_a_clone_have_cells_of_their_own(tmp_path):
    settings = [setting_of("name", 2.0, **{"training.rate": rate}) for rate in (0.1, 1.0)]
    sweep, trials = searched(tmp_path, settings)
    material = gather_sweep(sweep, rows_of(trials), trials)
    assert len({entry.clone for entry in material.entries}) == 1
    first, second = (entry.cells[100].transfer or next(iter(entry.cells[100].scores.values())) for entry in material.entries)
    assert first.mean != second.mean and not any("share" in note for note in material.cells.notes)


def test_a_dropped_setting_has_no_score_at_later_rungs(tmp_path):
    sweep, trials = searched(tmp_path, [setting_of("name", scale) for scale in (1.0, 2.0, 7.5)], keep=1)
    material = gather_sweep(sweep, rows_of(trials), trials)
    assert material.budgets == [25, 100] and material.common_budget == 25
    assert [entry.score_at(100) is None for entry in material.entries] == [True, False, True]


def test_an_older_row_has_one_rung(tmp_path):
    sweep = sweep_row(tmp_path)
    material = gather_sweep(sweep, experiment_rows(), [])
    assert material.budgets == [100] and material.entries[0].label == "name, guidance 1"
    assert all(len(entry.cells) == 1 for entry in material.entries) or not sweep["classifiers"]


def test_trials_of_other_sweeps_stay_out(tmp_path):
    sweep, trials = searched(tmp_path, [setting_of("name", scale) for scale in (1.0, 2.0)])
    stranger = {**trials[0], "sweep": "other", "classifiers": ["ff"], "rows": ["ff"]}
    rows = [*rows_of(trials), accuracy_row(99.0, classifier="ff", fingerprint="ff")]
    material = gather_sweep(sweep, rows, [*trials, stranger])
    assert "ff" not in {row["fingerprint"] for row in material.rows}


def test_without_a_sweep_every_row_is_shown(tmp_path):
    rows = experiment_rows()
    material = gather_all(Location(str(tmp_path)), rows, [])
    assert not material.is_sweep and len(material.rows) == len(rows)
    assert len(material.entries) == 6 and material.entries[0].folder.startswith(str(tmp_path / "clones"))
    assert material.objective == "test"


def test_without_a_sweep_labels_say_what_differs(tmp_path):
    slow, fast, other = accuracy_row(70.0), accuracy_row(60.0, 1), accuracy_row(50.0, 2)
    fast["trained_on"] |= {"num_inference_steps": 50, "fingerprint": "aa"}
    other["trained_on"] |= {"fingerprint": "bbbbbbbb"}
    labels = [entry.label for entry in gather_all(Location(str(tmp_path)), [slow, fast, other], []).entries]
    assert len(set(labels)) == 3 and any("num inference steps 50" in label for label in labels) and any("(bbbbbb)" in label for label in labels)


def test_without_a_sweep_sizes_of_one_clone_are_its_rungs(tmp_path):
    large, small = accuracy_row(70.0), accuracy_row(60.0, classifier="ab", fingerprint="ab")
    small["trained_on"]["images_per_class"] = 10
    (entry,) = gather_all(Location(str(tmp_path)), [large, small], []).entries
    assert [(rung.images_per_class, rung.score) for rung in entry.rungs] == [(10, 60.0), (100, 70.0)]


def test_rows_without_any_value_give_a_remedy(tmp_path):
    with pytest.raises(UserError, match="raysd evaluate"):
        gather_all(Location(str(tmp_path)), [accuracy_row(None)], [])


def test_a_sweep_that_is_asked_for_and_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no sweep"):
        gather(Location(str(tmp_path)), "abc")


def test_rows_of_all_rungs_are_found_through_the_trials(tmp_path):
    root = Location(str(tmp_path / "root"))
    _, _, rows = write_search(root, tmp_path / "clones", classifiers=[], rows=[])
    assert len(gather(root).rows) == len(rows)


def test_trials_of_a_sweep_that_did_not_end_name_the_settings(tmp_path):
    _, trials = searched(tmp_path, [setting_of("name", 2.0, **{"training.rate": rate}) for rate in (0.1, 1.0)])
    entries = gather_all(Location(str(tmp_path)), rows_of(trials), trials).entries
    assert [entry.label for entry in entries] == ["name, guidance 2, rate 0.1", "name, guidance 2, rate 1.0"]
    assert [rung.images_per_class for rung in entries[0].rungs] == [25, 100]
