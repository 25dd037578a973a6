"""Findings: the best setting, the gap closed, and the effect of guidance."""

import pytest
from report_rows import accuracy_row, experiment_rows

from raysd.report.cells import collect_cells
from raysd.report.findings import find, gap_closed

BEST = {"variant": "name", "guidance_scale": 2.0, "clone": "ab"}


def findings_of(rows, best=BEST, objective="validation"):
    return find(collect_cells(rows), best, objective)


def test_gap_closed_is_the_share_between_random_and_real():
    assert gap_closed(70.0, 90.0, 10.0) == pytest.approx(0.75)
    assert gap_closed(95.0, 90.0, 10.0) == pytest.approx(1.0625)


def test_gap_is_undefined_when_real_is_no_better_than_random():
    assert gap_closed(70.0, 10.0, 10.0) is None


def test_gaps_are_given_for_test_and_each_transfer_set():
    found = findings_of(experiment_rows())
    assert {s.dataset for s in found.gaps} == {"fashion_mnist-test", "kmnist-test", "usps-test"}
    assert found.gaps[found.test] == pytest.approx((70 - 19) / (84 - 19))


def test_gap_is_none_without_a_baseline():
    found = findings_of([row for row in experiment_rows() if row["trained_on"]["kind"] != "real"])
    assert set(found.gaps.values()) == {None}


def test_the_sweeps_own_paired_comparison_decides_what_is_noise():
    rows = [accuracy_row(v, s) for s, v in enumerate([70.0, 74.0])] + [accuracy_row(v, s, guidance=7.5) for s, v in enumerate([69.0, 73.0])]
    other = next(row["trained_on"]["fingerprint"] for row in rows if row["trained_on"]["guidance_scale"] == 7.5)
    paired = {"with": other, "role": "test", "dataset": "fashion_mnist-test", "low": 0.4, "high": 1.6, "verdict": "better"}
    effect = find(collect_cells(rows), BEST, "validation", [paired]).guidance
    assert not effect.within_noise and "better, picture by picture (95 % interval +0.4 to +1.6)" in effect.sentence
    elsewhere = find(collect_cells(rows), BEST, "validation", [{**paired, "dataset": "digits-test"}]).guidance
    assert elsewhere.within_noise


def test_overlapping_intervals_are_called_within_noise():
    rows = [accuracy_row(v, s) for s, v in enumerate([70.0, 74.0])] + [accuracy_row(v, s, guidance=7.5) for s, v in enumerate([69.0, 73.0])]
    effect = findings_of(rows).guidance
    assert effect.within_noise and "within noise" in effect.sentence
    assert effect.points == pytest.approx(1.0)
    assert effect.sd == pytest.approx(8**0.5)


def test_intervals_apart_are_not_called_noise():
    rows = [accuracy_row(70 + s / 10, s) for s in range(3)] + [accuracy_row(60 + s / 10, s, guidance=7.5) for s in range(3)]
    effect = findings_of(rows).guidance
    assert not effect.within_noise and "within noise" not in effect.sentence
    assert "+10.0 points" in effect.sentence


def test_guidance_is_compared_with_the_highest_when_7_5_was_not_drawn():
    rows = [accuracy_row(70.0), accuracy_row(60.0, guidance=4.0), accuracy_row(65.0, guidance=3.0), accuracy_row(99.0, variant="other", guidance=7.5)]
    assert findings_of(rows).guidance.reference == 4.0


def test_the_sweeps_choice_is_best_even_where_another_is_higher_on_test():
    found = findings_of([accuracy_row(70.0), accuracy_row(75.0, guidance=7.5)])
    assert found.best.setting.guidance_scale == 2.0


def test_a_choice_without_rows_falls_back_to_the_objective_with_a_note():
    rows = [accuracy_row(70.0, role="validation"), accuracy_row(75.0, role="validation", guidance=7.5)]
    found = findings_of(rows, {**BEST, "guidance_scale": 3.0})
    assert found.best.setting.guidance_scale == 7.5
    assert any("no accuracy rows" in note for note in found.notes)


def test_real_with_another_number_of_pictures_is_noted():
    real = accuracy_row(90.0, kind="real")
    real["trained_on"]["images_per_class"] = 6000
    assert any("6000" in note for note in findings_of([accuracy_row(70.0), real]).notes)


def test_choice_on_the_test_set_is_called_optimistic():
    assert any("optimistic" in line for line in findings_of([accuracy_row(70.0)], objective="test").lines)


def test_a_dropped_reference_is_compared_at_the_images_per_class_that_both_got():
    rows = [accuracy_row(80.0 + s / 10, s) for s in range(2)] + [accuracy_row(60.0 + s / 10, s + 5) for s in range(2)]
    rows += [accuracy_row(55.0 + s / 10, s, guidance=7.5) for s in range(2)]
    for row in rows[2:]:
        row["trained_on"]["images_per_class"] = 25
    found = findings_of(rows, {**BEST, "images_per_class": 100})
    assert found.best.setting.images_per_class == 100
    assert "with 25 images per class" in found.guidance.sentence and "+5.0 points" in found.guidance.sentence


def test_a_mix_is_said_in_words_and_a_part_in_test_is_called_optimistic():
    rows = [accuracy_row(70.0), accuracy_row(60.0, role="transfer")]
    lines = find(collect_cells(rows), BEST, {"transfer": 0.7, "test": 0.3}).lines
    assert "0.7 x mean transfer accuracy + 0.3 x accuracy on the test pictures" in lines[1] and "optimistic" in lines[1]
    assert "no part" in find(collect_cells(rows), BEST, {"transfer": 1.0}).lines[1]


def test_without_a_sweep_nothing_is_called_best():
    found = find(collect_cells([accuracy_row(70.0), accuracy_row(75.0, guidance=7.5)]), None, "test", is_sweep=False)
    assert "no sweep chose" in found.lines[0] and not any("best" in line for line in found.lines)
    assert any("guidance 7.5" in line and "Highest" in line for line in found.lines) and any("optimistic" in line for line in found.lines)


def test_without_clones_the_highest_of_the_rest_is_named():
    found = find(collect_cells([accuracy_row(90.0, kind="real"), accuracy_row(10.0, kind="random")]), None, "test", is_sweep=False)
    assert found.best.setting.kind == "real" and found.guidance is None
    assert any("real (fashion_mnist-train): the classifier gets" in line for line in found.lines)
