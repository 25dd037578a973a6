"""Findings: the best setting, the gap closed, and the effect of guidance."""

import numpy as np
import pytest
from report_rows import accuracy_row, experiment_rows, label_of, setting_of

from raysd.report.cells import collect_cells
from raysd.report.summary import find
from raysd.statistics.gap import gap_closed
from raysd.statistics.seeds import Score


def cells_of(rows):
    """The cells of a sweep over variants and guidance."""
    results = []
    for row in rows:
        data = row["trained_on"]
        if data["kind"] == "clone":
            results.append(
                {
                    **best_of(data["variant"], data["guidance_scale"], data["images_per_class"]),
                    "classifiers": [row["classifier"]],
                }
            )
    return collect_cells(rows, (), results)


def best_of(variant="name", guidance=2.0, images_per_class=100):
    setting = setting_of(variant, guidance)
    return {"setting": setting, "label": label_of(setting), "images_per_class": images_per_class}


def findings_of(rows, best=None, objective="validation", **options):
    return find(cells_of(rows), best or best_of(), objective, **options)


def line_of(found, words):
    return next(line for line in found.lines if words in line)


def guidance_rows(ours, theirs):
    return [accuracy_row(v, s) for s, v in enumerate(ours)] + [
        accuracy_row(v, s, guidance=7.5) for s, v in enumerate(theirs)
    ]


def comparison(**changes):
    row = {
        "with": "ab",
        "label": "name, guidance 7.5",
        "role": "test",
        "dataset": "fashion_mnist-test",
        "shots": None,
        "probe_label": "",
    }
    return {**row, "difference": 1.0, "low": 0.4, "high": 1.6, "verdict": "better", **changes}


def score(mean, below=0.0, above=0.0):
    return Score(mean, 1.0, 3, mean - below, mean + above)


def test_gap_closed_is_the_share_between_random_and_real():
    assert gap_closed(score(70.0), score(90.0), score(10.0)).value == pytest.approx(0.75)
    assert gap_closed(score(95.0), score(90.0), score(10.0)).value == pytest.approx(1.0625)


def test_gap_is_undefined_when_real_is_no_better_than_random():
    assert gap_closed(score(70.0), score(10.0), score(10.0)) is None


def test_the_interval_of_a_gap_is_that_of_its_three_accuracies():
    rng, truth = np.random.default_rng(0), (70.0, 90.0, 10.0)
    held = 0
    for _ in range(1000):
        clone, real, random = (score(mean + rng.normal(0, 1), 1.96, 1.96) for mean in truth)
        found = gap_closed(clone, real, random)
        held += found.low <= 0.75 <= found.high
    assert 0.93 <= held / 1000 <= 0.97
    one_sided = gap_closed(score(70.0, above=8.0), score(90.0), score(10.0))
    assert (one_sided.low, one_sided.high) == (pytest.approx(0.75), pytest.approx(0.85))


def test_gaps_are_given_for_test_and_each_transfer_set():
    found = findings_of(experiment_rows())
    assert {s.dataset for s in found.gaps} == {"fashion_mnist-test", "kmnist-test", "usps-test"}
    assert found.gaps[found.test].value == pytest.approx((70 - 19) / (84 - 19))


def test_gap_is_none_without_a_baseline():
    found = findings_of([row for row in experiment_rows() if row["trained_on"]["kind"] != "real"])
    assert set(found.gaps.values()) == {None}


def test_gaps_on_the_sets_that_chose_are_called_optimistic():
    assert "optimistic" in line_of(findings_of(experiment_rows(), objective={"transfer": 1.0}), "transfer sets (")
    assert "optimistic" not in line_of(findings_of(experiment_rows()), "transfer sets (")


def test_shots_of_one_transfer_set_are_told_apart():
    rows = [
        accuracy_row(v, kind=k, role=r, dataset="a", shots=s, fingerprint=f"{k}{s}")
        for k, v in (("clone", 60.0), ("real", 80.0), ("random", 40.0))
        for r, s in (("test", None), ("transfer", 5), ("transfer", 10))
    ]
    assert "a, 5 shots 50 % [" in line_of(findings_of(rows), "transfer sets") and "; a, 10 shots 50 % [" in line_of(
        findings_of(rows), "transfer sets"
    )


def test_the_sweeps_own_comparison_decides_what_is_noise():
    found = findings_of(guidance_rows([70.0, 74.0], [69.0, 73.0]), comparisons=[comparison()])
    assert "+1.0 points: better, image by image (95 % interval +0.4 to +1.6)" in line_of(found, "differs")


@pytest.mark.parametrize("changes", [{"label": "name, guidance 7.5, rate 2"}, {"dataset": "digits-test"}, {"low": 1.4}])
def test_a_comparison_of_another_setting_set_or_difference_is_not_used(changes):
    found = findings_of(guidance_rows([70.0, 74.0], [69.0, 73.5]), comparisons=[comparison(**changes)])
    assert "image by image" not in line_of(found, "differs")


def compared(rows, turned=False, without=0):
    """The row of `raysd compare` for the rows of guidance 2 and 7.5."""
    sides = [
        [row["fingerprint"] for row in rows if row["trained_on"]["guidance_scale"] == scale][without:]
        for scale in ((7.5, 2.0) if turned else (2.0, 7.5))
    ]
    a, b = ({"top1": 0.0, "rows": names} for names in sides)
    low, high, verdict = (-1.6, -0.4, "worse") if turned else (0.4, 1.6, "better")
    return {"a": a, "b": b, "low": low, "high": high, "verdict": verdict}


@pytest.mark.parametrize("turned", [False, True])
def test_what_compare_found_decides_where_no_sweep_compared(turned):
    rows = guidance_rows([70.0, 74.0], [69.0, 73.0])
    line = line_of(findings_of(rows, compared=[compared(rows, turned)]), "differs")
    assert "+1.0 points: better, image by image (95 % interval +0.4 to +1.6)" in line


def test_without_a_comparison_of_these_very_classifiers_no_verdict_is_given():
    rows = guidance_rows([70.0, 74.0], [60.0, 64.0])
    for found in (findings_of(rows), findings_of(rows, compared=[compared(rows, without=1)])):
        line = line_of(found, "differs")
        assert line.endswith("+10.0 points: raysd compare tells whether that is more than noise.")


def test_guidance_is_compared_with_the_highest_when_7_5_was_not_generated():
    rows = [
        accuracy_row(70.0),
        accuracy_row(60.0, guidance=4.0),
        accuracy_row(65.0, guidance=3.0),
        accuracy_row(99.0, variant="other", guidance=7.5),
    ]
    assert "from guidance 4 " in line_of(findings_of(rows), "differs")


def test_the_usual_guidance_is_not_compared_with_itself():
    rows = guidance_rows([70.0], [75.0])
    assert "7.5, is the usual one." in findings_of(rows, best_of(guidance=7.5)).lines[2]


def test_the_sweeps_choice_is_best_even_where_another_is_higher_on_test():
    assert findings_of(guidance_rows([70.0], [75.0])).best.setting.guidance_scale == 2.0


def test_no_other_setting_takes_the_place_of_a_choice_without_rows():
    rows = [accuracy_row(70.0, role="validation"), accuracy_row(75.0, role="validation", guidance=7.5)]
    assert findings_of(rows, best_of(guidance=3.0)) is None
    assert findings_of(rows, best_of(images_per_class=400)) is None


def test_real_with_another_number_of_images_is_said():
    real = accuracy_row(90.0, kind="real")
    real["trained_on"]["images_per_class"] = 6000
    found = findings_of([accuracy_row(70.0), real])
    assert (
        any("6000" in note for note in found.notes)
        and "trained on real images, 6,000 per class: 90.0" in found.lines[0]
    )


def test_real_of_another_run_is_said_and_other_data_are_not_averaged():
    rows = [accuracy_row(90.0, kind="real"), accuracy_row(50.0, 1, kind="real"), accuracy_row(70.0)]
    rows[1]["trained_on"] = {**rows[1]["trained_on"], "fingerprint": "ff", "images_per_class": 10}
    found = findings_of(rows, borrowed=("real",))
    assert "trained on real images, 100 per class, a baseline from another run: 90.0" in found.lines[0]


def test_choice_on_the_test_set_is_called_optimistic():
    assert any("optimistic" in line for line in findings_of([accuracy_row(70.0)], objective="test").lines)


def test_guidance_is_compared_at_one_number_of_images_alone():
    rows = guidance_rows([80.0, 81.0], [55.0, 56.5])
    for row in rows[2:]:
        row["trained_on"]["images_per_class"] = 25
    assert not any("differs" in line for line in findings_of(rows).lines)


def test_a_mix_is_said_in_words_and_a_part_in_test_is_called_optimistic():
    rows = [accuracy_row(70.0), accuracy_row(60.0, role="transfer")]
    lines = findings_of(rows, objective={"transfer": 0.7, "test": 0.3}).lines
    assert "0.7 x mean transfer accuracy + 0.3 x accuracy on the test images" in lines[1] and "optimistic" in lines[1]
    assert "no part" in findings_of(rows, objective={"transfer": 1.0}).lines[1]


def test_a_mixture_is_named_and_not_called_a_clone():
    rows = [accuracy_row(70.0)]
    rows[0]["trained_on"] |= {"parts": [{}, {}], "name": "name-2.0 + digits"}
    found = findings_of(rows)
    assert (
        "trained on a mixture (name-2.0 + digits), " in found.lines[0]
        and "alone" not in found.lines[0]
        and found.heading == "best setting"
    )


def test_a_variant_that_was_not_searched_is_not_named():
    row = accuracy_row(70.0)
    best = {"setting": {"generation.guidance_scale": 2.0}, "label": "guidance 2", "images_per_class": 100}
    found = find(collect_cells([row], (), [{**best, "classifiers": [row["classifier"]]}]), best, "test")
    assert found.lines[0].startswith("The best setting is guidance 2: ")


def test_without_a_sweep_nothing_is_called_best():
    found = find(collect_cells(guidance_rows([70.0], [75.0])), None, "test")
    assert "no sweep chose" in found.lines[0] and not any("best" in line for line in found.lines)
    assert any("guidance 7.5" in line and "Highest" in line for line in found.lines) and any(
        "optimistic" in line for line in found.lines
    )


def test_without_clones_the_highest_of_the_rest_is_named():
    found = find(collect_cells([accuracy_row(90.0, kind="real"), accuracy_row(10.0, kind="random")]), None, "test")
    assert found.best.setting.kind == "real"
    assert any("real (fashion_mnist-train): a classifier gets" in line for line in found.lines)
