"""Cells: means over seeds, intervals, and what is missing."""

import pytest
from report_rows import accuracy_row

from raysd.report.cells import Searched, collect_cells, role_score, score_over_seeds


def test_seeds_of_one_setting_are_averaged():
    cells = collect_cells([accuracy_row(70.0, 0), accuracy_row(72.0, 1), accuracy_row(74.0, 2), accuracy_row(50.0, 0, guidance=7.5)])
    first, second = cells.cells
    (score,) = first.scores.values()
    assert (score.mean, score.sd, score.num_seeds) == (72.0, 2.0, 3)
    assert next(iter(second.scores.values())).mean == 50.0


def test_interval_over_seeds_is_students_t():
    score = score_over_seeds([70.0, 72.0, 74.0])
    assert score.low == pytest.approx(72 - 4.302653 * 2 / 3**0.5, abs=1e-4)
    assert score.high == pytest.approx(72 + 4.302653 * 2 / 3**0.5, abs=1e-4)


def test_interval_of_one_seed_is_that_of_its_row():
    (cell,) = collect_cells([accuracy_row(70.0, low=68.2, high=71.7)]).cells
    (score,) = cell.scores.values()
    assert (score.low, score.high, score.sd) == (68.2, 71.7, None)


def test_interval_stays_between_0_and_100_percent():
    score = score_over_seeds([99.0, 90.0])
    assert score.high == 100.0


def test_settings_that_differ_in_backbone_or_size_are_not_averaged():
    other_size = accuracy_row(60.0, 1)
    other_size["trained_on"]["images_per_class"] = 500
    cells = collect_cells([accuracy_row(70.0), accuracy_row(80.0, 2, backbone="vit"), other_size])
    assert len(cells.cells) == 3


def test_sets_that_share_a_name_but_not_a_fingerprint_are_not_averaged():
    cells = collect_cells([accuracy_row(70.0, 0), accuracy_row(20.0, 1, dataset_fingerprint="ff")])
    assert len(cells.sets) == 2
    assert sorted(score.mean for score in cells.cells[0].scores.values()) == [20.0, 70.0]


def test_mean_transfer_is_missing_when_a_set_is():
    rows = [accuracy_row(60.0, role="transfer", dataset="kmnist-test"), accuracy_row(40.0, role="transfer", dataset="usps-test")]
    rows.append(accuracy_row(90.0, guidance=7.5, role="transfer", dataset="kmnist-test"))
    cells = collect_cells(rows)
    whole, lacking = cells.cells
    assert whole.transfer.mean == 50.0
    assert lacking.transfer is None
    assert any("guidance 7.5" in note and "usps-test" in note for note in cells.notes)


def test_seed_that_lacks_a_transfer_set_is_left_out_of_the_mean_with_a_note():
    rows = [accuracy_row(value, seed, role="transfer", dataset=name) for seed, name, value in [(0, "a", 60.0), (0, "b", 40.0), (1, "a", 90.0)]]
    cells = collect_cells(rows)
    assert cells.cells[0].transfer.mean == 50.0
    assert any("1 of 2 seeds" in note for note in cells.notes)


def test_failed_measurement_is_left_out_with_a_note():
    cells = collect_cells([accuracy_row(70.0, 0), accuracy_row(None, 1)])
    assert next(iter(cells.cells[0].scores.values())).num_seeds == 1
    assert any("no value" in note for note in cells.notes)


def test_two_classifiers_with_one_seed_are_noted():
    cells = collect_cells([accuracy_row(70.0, 0), accuracy_row(71.0, 0, classifier="ab", fingerprint="ab")])
    assert any("share 1 seeds" in note for note in cells.notes)


def test_clones_come_in_the_sweeps_order_and_baselines_last():
    rows = [accuracy_row(1.0, kind="random"), accuracy_row(2.0, kind="real"), accuracy_row(3.0, variant="b"), accuracy_row(4.0, variant="a")]
    rows.append(accuracy_row(5.0, variant="b", guidance=1.0))
    order = [(cell.setting.kind, cell.setting.variant, cell.setting.guidance_scale) for cell in collect_cells(rows, ["b", "a"]).cells]
    assert order == [("clone", "b", 1.0), ("clone", "b", 2.0), ("clone", "a", 2.0), ("real", None, None), ("random", None, None)]


def test_probes_of_one_set_that_differ_are_columns_of_their_own():
    rows = [accuracy_row(50.0, role="transfer", probe_label=""), accuracy_row(70.0, role="transfer", probe_label="knn")]
    cells = collect_cells(rows)
    assert [measured.dataset for measured in cells.sets] == ["fashion_mnist-test", "fashion_mnist-test, knn"]
    assert [score.mean for score in cells.cells[0].scores.values()] == [50.0, 70.0]


def test_clones_that_differ_are_not_averaged_even_where_all_else_agrees():
    other = accuracy_row(60.0, 1)
    other["trained_on"]["fingerprint"] = "ff"
    assert len(collect_cells([accuracy_row(70.0), other]).cells) == 2


def test_searched_fields_set_cells_apart():
    one, two = accuracy_row(70.0, 0), accuracy_row(50.0, 0, classifier="ab", fingerprint="ab")
    searched = {one["classifier"]: Searched("slow", (("training.rate", "0.1"),)), "ab": Searched("fast", (("training.rate", "1.0"),))}
    cells = collect_cells([one, two], (), searched)
    assert [(cell.setting.label, next(iter(cell.scores.values())).mean) for cell in cells.cells] == [("slow", 70.0), ("fast", 50.0)]
    assert not cells.notes


def test_pretrained_classifiers_and_unknown_kinds_are_cells_like_others():
    rows = [accuracy_row(50.0), accuracy_row(90.0, kind="real"), accuracy_row(91.0, kind="real"), accuracy_row(1.0, kind="real")]
    for row, kind in zip(rows[2:], ("pretrained", "mystery"), strict=True):
        row["trained_on"] |= {"kind": kind, "name": f"timm/{kind}"}
        row["classifier"] = kind
    assert [cell.setting.label for cell in collect_cells(rows).cells][2:] == ["pretrained (timm/pretrained)", "mystery ()"]


def test_a_mix_is_the_weighted_mean_of_its_parts():
    rows = [accuracy_row(60.0, role="validation"), accuracy_row(30.0, role="transfer")]
    cells = collect_cells(rows)
    assert role_score(cells, cells.cells[0], {"validation": 1.0, "transfer": 2.0}) == pytest.approx(40.0)
    assert role_score(cells, cells.cells[0], {"validation": 1.0, "test": 2.0}) is None
