"""Cells: means over seeds, intervals, and what is missing."""

import pytest
from report_rows import accuracy_row

from raysd.report.cells import collect_cells
from raysd.statistics.seeds import score_over_seeds


def test_seeds_of_one_setting_are_averaged():
    cells = collect_cells(
        [accuracy_row(70.0, 0), accuracy_row(72.0, 1), accuracy_row(74.0, 2), accuracy_row(50.0, 0, guidance=7.5)]
    )
    first, second = cells.cells
    (score,) = first.scores.values()
    assert (score.mean, score.sd, score.num_seeds) == (72.0, 2.0, 3)
    assert next(iter(second.scores.values())).mean == 50.0


def test_interval_over_seeds_is_students_t():
    score = score_over_seeds([70.0, 72.0, 74.0], [(1.0, 1.0)] * 3)
    assert score.low == pytest.approx(72 - 4.302653 * 2 / 3**0.5, abs=1e-4)
    assert score.high == pytest.approx(72 + 4.302653 * 2 / 3**0.5, abs=1e-4)


def test_interval_of_one_seed_is_that_of_its_row():
    (cell,) = collect_cells([accuracy_row(70.0, low=68.2, high=71.7)]).cells
    (score,) = cell.scores.values()
    assert (score.low, score.high, score.sd) == (68.2, 71.7, None)


def test_interval_stays_between_0_and_100_percent():
    score = score_over_seeds([99.0, 90.0], [(1.0, 1.0)] * 2)
    assert score.high == 100.0


def test_interval_of_equal_seeds_is_no_narrower_than_that_over_images():
    score = score_over_seeds([70.0, 70.0], [(1.0, 1.5), (2.0, 2.5)])
    assert (score.low, score.high, score.sd) == (68.5, 72.0, 0.0)
    near = score_over_seeds([70.0, 70.01], [(1.0, 1.5), (2.0, 2.5)])
    assert (near.low, near.high) == (pytest.approx(68.505), pytest.approx(72.005))


def test_interval_of_mean_transfer_adds_those_of_its_sets_by_squares():
    rows = [
        accuracy_row(value, role="transfer", dataset=name, low=value - 3, high=value + 4)
        for name, value in (("a", 60.0), ("b", 40.0))
    ]
    transfer = collect_cells(rows).cells[0].transfer
    assert transfer.low == pytest.approx(50 - 18**0.5 / 2) and transfer.high == pytest.approx(50 + 32**0.5 / 2)


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
    rows = [
        accuracy_row(60.0, role="transfer", dataset="kmnist-test"),
        accuracy_row(40.0, role="transfer", dataset="usps-test"),
    ]
    rows.append(accuracy_row(90.0, guidance=7.5, role="transfer", dataset="kmnist-test"))
    cells = collect_cells(rows)
    whole, lacking = cells.cells
    assert whole.transfer.mean == 50.0
    assert lacking.transfer is None


def test_seed_that_lacks_a_transfer_set_is_left_out_of_the_mean_with_a_note():
    rows = [
        accuracy_row(value, seed, role="transfer", dataset=name)
        for seed, name, value in [(0, "a", 60.0), (0, "b", 40.0), (1, "a", 90.0)]
    ]
    cells = collect_cells(rows)
    assert cells.cells[0].transfer.mean == 50.0
    assert any("1 of 2 seeds" in note for note in cells.notes)


def test_two_classifiers_with_one_seed_are_noted():
    cells = collect_cells([accuracy_row(70.0, 0), accuracy_row(71.0, 0, classifier="ab", fingerprint="ab")])
    assert any("share 1 seeds" in note for note in cells.notes)


def test_clones_come_in_the_sweeps_order_and_baselines_last():
    rows = [
        accuracy_row(1.0, kind="random"),
        accuracy_row(2.0, kind="real"),
        accuracy_row(3.0, variant="b"),
        accuracy_row(4.0, variant="a"),
    ]
    rows.append(accuracy_row(5.0, variant="b", guidance=1.0))
    order = [
        (cell.setting.kind, cell.setting.variant, cell.setting.guidance_scale)
        for cell in collect_cells(rows, ["b", "a"]).cells
    ]
    assert order == [
        ("clone", "b", 1.0),
        ("clone", "b", 2.0),
        ("clone", "a", 2.0),
        ("real", None, None),
        ("random", None, None),
    ]


def test_probes_of_one_set_that_differ_are_columns_of_their_own():
    rows = [accuracy_row(50.0, role="transfer", probe_label=""), accuracy_row(70.0, role="transfer", probe_label="knn")]
    cells = collect_cells(rows)
    assert [cells.names[measured] for measured in cells.sets] == [
        "fashion_mnist-test, 5 shots",
        "fashion_mnist-test, knn, 5 shots",
    ]
    assert [score.mean for score in cells.cells[0].scores.values()] == [50.0, 70.0]


def test_clones_that_differ_are_not_averaged_even_where_all_else_agrees():
    other = accuracy_row(60.0, 1)
    other["trained_on"]["fingerprint"] = "ff"
    assert len(collect_cells([accuracy_row(70.0), other]).cells) == 2


def test_searched_fields_set_cells_apart():
    one, two = accuracy_row(70.0, 0), accuracy_row(50.0, 0, classifier="ab", fingerprint="ab")
    tried = ((one, "slow", 0.1), (two, "fast", 1.0))
    results = [
        {
            "label": label,
            "setting": {"training.rate": rate},
            "images_per_class": 100,
            "classifiers": [row["classifier"]],
        }
        for row, label, rate in tried
    ]
    cells = collect_cells([one, two], (), results)
    assert [(cell.setting.label, next(iter(cell.scores.values())).mean) for cell in cells.cells] == [
        ("slow", 70.0),
        ("fast", 50.0),
    ]
    assert not cells.notes


def test_pretrained_classifiers_and_unknown_kinds_are_cells_like_others():
    rows = [
        accuracy_row(50.0),
        accuracy_row(90.0, kind="real"),
        accuracy_row(91.0, kind="real"),
        accuracy_row(1.0, kind="real"),
    ]
    for row, kind in zip(rows[2:], ("pretrained", "mystery"), strict=True):
        row["trained_on"] |= {"kind": kind, "name": f"timm/{kind}"}
        row["classifier"] = kind
    assert [cell.setting.label for cell in collect_cells(rows).cells][2:] == [
        "pretrained (timm/pretrained)",
        "mystery (timm/mystery)",
    ]


def test_of_two_versions_of_a_row_the_newer_counts():
    old = accuracy_row(60.0, version=1, fingerprint="aa")
    cells = collect_cells([accuracy_row(70.0), old])
    assert [(score.mean, score.num_seeds) for score in cells.cells[0].scores.values()] == [(70.0, 1)]


def test_versions_of_two_classifiers_are_not_averaged():
    cells = collect_cells([accuracy_row(70.0), accuracy_row(60.0, 1, version=1)])
    assert sorted(cells.names.values()) == ["fashion_mnist-test (row 1)", "fashion_mnist-test (row 2)"]


def test_metrics_are_not_averaged():
    cells = collect_cells(
        [accuracy_row(70.0, role="transfer"), accuracy_row(60.0, 1, role="transfer", metric="mean_per_class")]
    )
    assert sorted(cells.names.values()) == [
        "fashion_mnist-test, 5 shots (mean_per_class)",
        "fashion_mnist-test, 5 shots (top1)",
    ]


def test_parts_of_a_clone_and_mixtures_are_settings_of_their_own():
    rows = [accuracy_row(value, seed, classifier=str(seed)) for seed, value in enumerate((70.0, 60.0, 50.0, 40.0))]
    rows[1]["trained_on"] |= {"left_out": "ab", "from_end": False}
    rows[2]["trained_on"] |= {"from_end": True}
    rows[3]["trained_on"] |= {"parts": [{}, {}], "name": "name-2.0 + digits"}
    labels = {cell.setting.label for cell in collect_cells(rows).cells}
    assert (
        labels == {"name, guidance 2", "name, guidance 2, filtered", "name-2.0 + digits, mixture"}
        and len(collect_cells(rows).cells) == 4
    )


def cloned(value, seed, name, at_seed_0=None, **changes):
    """The row of a classifier of one of the clones that differ in their seed alone."""
    row = accuracy_row(value, seed, classifier=f"c{name}{seed}", fingerprint=f"f{name}{seed}", **changes)
    row["trained_on"] |= {"fingerprint": name} | ({} if at_seed_0 is None else {"at_seed_0": at_seed_0})
    return row


def test_clones_that_differ_in_their_seed_alone_are_one_setting():
    rows = [
        cloned(60.0, 0, "b5", "aa"),
        cloned(70.0, 1, "aa"),
        cloned(80.0, 2, "c9", "aa"),
        cloned(10.0, 0, "dd", "ee"),
    ]
    cells = collect_cells(rows)
    (score,), (other,) = (cell.scores.values() for cell in cells.cells)
    assert (score.mean, score.num_seeds, other.mean) == (70.0, 3, 10.0) and not cells.notes
    assert cells.cells[0].setting.source == "b5" and not cells.cells[0].shares_a_clone
    assert collect_cells(rows[::-1]) == cells


def test_classifiers_of_one_clone_count_as_one_where_there_are_several():
    pairs = [("aa", None, 60.0), ("bb", "aa", 70.0)]
    rows = [cloned(value + way, seed, *names) for *names, value in pairs for seed, way in ((0, -1.0), (1, 1.0))]
    (cell,) = collect_cells(rows).cells
    (score,) = cell.scores.values()
    assert (score.mean, score.num_seeds, round(score.sd, 6)) == (65.0, 2, round(50**0.5, 6))
    alone = collect_cells(rows[:2]).cells[0]
    assert next(iter(alone.scores.values())).num_seeds == 2 and alone.shares_a_clone


def test_a_row_that_does_not_tell_its_clones_seed_is_with_the_others_of_its_clone():
    (cell,) = collect_cells([cloned(60.0, 0, "bb"), cloned(70.0, 1, "bb", "aa"), cloned(80.0, 2, "aa")]).cells
    assert len(cell.rows) == 3


def test_filtered_clones_of_several_seeds_are_one_setting_by_their_filters():
    def rows(second):
        found = [cloned(60.0, 0, "aa"), cloned(70.0, 1, "bb", "aa")]
        for row, digest, filters in zip(found, ("d1", "d2"), ({"best_share": 0.5}, second), strict=True):
            row["trained_on"] |= {"left_out": digest, "filters": filters}
        return found

    assert len(collect_cells(rows({"best_share": 0.5})).cells) == 1
    assert len(collect_cells(rows({"best_share": 0.9})).cells) == 2
