"""Tables and figures of a search."""

import csv
import io

import pytest
from matplotlib.axes import Axes
from report_rows import failed_result, search_results, search_row, setting_of

from raysd.report.inputs import gather_sweep
from raysd.report.plots.heatmap import heat_map, heat_maps
from raysd.report.plots.search import effects_plot, scaling_plot
from raysd.report.tables.sweep import cost_table, effects_table, proxies_table, ranking_table, search_lines
from raysd.report.tables.tables import Number, to_csv, value_text

SETTINGS = [setting_of(variant, scale) for variant in ("name", "attributes") for scale in (1.0, 2.0, 7.5)]


@pytest.fixture
def inputs(tmp_path):
    return material_of(tmp_path, SETTINGS)


def material_of(folder, settings, budgets=(25, 100), keep=3, **changes):
    results = search_results(settings, keep, budgets)
    return gather_sweep(search_row(folder, results) | changes, [], results)


def shown(table):
    names = [column.name for column in table.columns]
    return {row[0]: dict(zip(names, map(value_text, row), strict=True)) for row in table.rows}


def test_ranking_has_intervals_paired_differences_and_verdicts(inputs):
    table = ranking_table(inputs)
    first, second = table.rows[0][0], table.rows[1][0]
    rows = shown(table)
    assert rows[first]["verdict"] == "best" and rows[first]["difference to the best"] == "-"
    assert rows[second]["verdict"] == "within noise" and rows[second]["difference to the best"] == "+0.0 [-0.8, +0.8]"
    assert [row[-1] for row in table.rows] == list(range(1, 7))


def test_settings_that_share_a_clone_are_named(tmp_path):
    inputs = material_of(tmp_path, [setting_of("name", 2.0, **{"training.rate": rate}) for rate in (0.1, 1.0)])
    assert any(
        "share a clone" in note and "rate 0.1; name, guidance 2, rate 1.0" in note
        for note in ranking_table(inputs).notes
    )


def test_empty_results_leave_their_tables_and_figures_out(tmp_path):
    inputs = material_of(tmp_path, SETTINGS, effects=[], proxies=[])
    assert effects_table(inputs) is None and proxies_table(inputs) is None and effects_plot(inputs) is None


def test_effects_hold_every_value_with_its_interval(inputs):
    table = effects_table(inputs)
    assert [(row[0], row[1]) for row in table.rows[:2]] == [
        ("prompt variant", "name"),
        ("prompt variant", "attributes"),
    ]
    assert table.rows[-1][:2] == ("guidance", 7.5) and str(table.rows[-1][3]) == "+1.0 [+0.2, +1.8]"
    assert "prompt variant: name -1.0, attributes +0.0; guidance: 1 -1.0" in effects_plot(inputs).alt


def test_effect_without_an_interval_is_plotted(inputs):
    for effect in inputs.sweep["effects"]:
        for value in effect["values"]:
            value["low"] = value["high"] = None
    assert effects_plot(inputs).png and effects_table(inputs).rows[0][3] == Number(-1.0, "+z.1f")


def test_quartiles_are_shown_as_they_are_named(inputs):
    inputs.sweep["effects"][1]["values"][0]["value"] = "0.1 to 0.4"
    assert "0.1 to 0.4" in [row[1] for row in effects_table(inputs).rows]


def test_proxies_name_their_pick_and_the_points_lost(inputs):
    row = shown(proxies_table(inputs))["frechet distance"]
    assert (
        row["points lost"] == "1.3"
        and row["rank correlation"] == "0.82"
        and row["would pick"] == inputs.sweep["ranking"][1]["label"]
    )
    assert shown(proxies_table(inputs))["coverage"]["rank correlation"] == "-"


def test_cost_stands_beside_all_settings_at_the_last_rung_with_ratios(inputs):
    rows = shown(cost_table(inputs))
    assert rows["images"]["ratio"] == "2.4 x" and rows["trainings"]["all at the last rung"] == "36"
    assert rows["device time, training"]["all at the last rung"] == "-" and rows["device time, all"]["ratio"] == "-"
    assert rows["device time, all"]["this sweep"] == "31 min 00 s"


def test_wall_time_is_the_total_alone(inputs):
    assert [(name, row["this sweep"]) for name, row in shown(cost_table(inputs)).items() if "wall" in name] == [
        ("wall time", "12 min 01 s")
    ]


def test_tpe_is_not_compared_with_a_grid_that_nobody_knows(tmp_path):
    inputs = material_of(tmp_path, SETTINGS, search="tpe", scheduler="asha")
    assert [column.name for column in cost_table(inputs).columns] == ["what", "this sweep"]
    lines = " ".join(search_lines(inputs))
    assert (
        "at the last rung" not in lines
        and "Search: tpe, 6 settings tried; scheduler: asha; images per class: 25 (2 seeds), 100 (3 seeds)." in lines
    )


def test_flagged_images_of_a_shared_clone_count_once(tmp_path):
    inputs = material_of(tmp_path, [setting_of("name", 2.0, **{"training.rate": rate}) for rate in (0.1, 1.0)])
    assert shown(cost_table(inputs))["images flagged"]["this sweep"] == "1"


def test_heat_maps_show_the_shared_rung_and_the_last(inputs):
    first, last = heat_maps(inputs)
    assert (first.name, last.name) == ("heat-map-25", "heat-map-100")
    assert first.alt.count("at guidance 7.5") == 2 and "at guidance 7.5" not in last.alt


def test_one_rung_gives_one_heat_map_and_no_scaling(tmp_path):
    inputs = material_of(tmp_path, SETTINGS, budgets=(25,))
    assert [plot.name for plot in heat_maps(inputs)] == ["heat-map-25"]
    assert scaling_plot(inputs) is None


def test_heat_map_says_when_a_cell_holds_several_settings(tmp_path):
    settings = [{**setting, "training.rate": rate} for setting in SETTINGS for rate in (0.1, 1.0)]
    assert "best of the other fields" in heat_map(material_of(tmp_path, settings), 25).title


def test_a_range_of_guidance_scales_has_no_heat_map(tmp_path):
    settings = [setting_of(variant, 1 + i / 10) for i in range(20) for variant in ("name", "attributes")]
    assert heat_maps(material_of(tmp_path, settings)) == []


def test_scaling_plot_tells_survivors_from_dropped_settings(inputs):
    alt = scaling_plot(inputs).alt
    assert "3 of 6 settings have 100. 3 dropped before, or failed." in alt


NEAR = "By score, within noise of the best, for this one clone seed, of 5 others: "


def test_summary_names_what_is_within_noise_what_matters_and_what_was_saved(inputs):
    near, effects, clones, cost, how = search_lines(inputs)
    assert near == f"{NEAR}{inputs.sweep['ranking'][1]['label']}."
    assert effects.endswith("at 25 images per class, which noise makes larger: prompt variant 4.0, guidance 4.0.")
    assert clones.startswith("All scores, intervals and verdicts are for this one clone seed")
    assert cost == "All 12 settings at the last rung would take 2.4 x the images and 1.1 x the trainings."
    assert how.startswith("Search: grid, 6 settings tried; scheduler: halving;")


def test_nothing_is_claimed_of_noise_that_is_not_known(inputs):
    for row in inputs.sweep["ranking"]:
        row.update({"low": None, "high": None, "difference_low": None, "difference_high": None})
    table = ranking_table(inputs)
    assert [row[3] for row in table.rows] == ["best"] + ["unknown (one seed)"] * 5
    assert not any("[" in value_text(value) for row in table.rows for value in row)
    assert (
        search_lines(inputs)[0] == "Whether 5 other settings differ by more than noise is unknown: they have one seed."
    )


def test_the_luck_of_the_best_is_said_where_it_is_known(inputs):
    assert not any("luck" in line for line in search_lines(inputs))
    inputs.sweep["best"] |= {"score": 70.0, "low": 67.5, "high": 71.0, "expected": 69.2}
    assert search_lines(inputs)[0] == (
        "The best score, 70.0 %, is the highest of 6, so a part of it is luck: measured again, about 69.2 % are to be "
        "expected, and the true score is in [67.5, 71.0] (95 % interval, which allows for the choice)."
    )


def test_all_others_worse_is_said_with_the_rung_of_the_comparison(inputs):
    inputs.sweep["ranking"][1]["verdict"] = "worse"
    assert (
        search_lines(inputs)[0]
        == "All 5 other settings are worse, by more than noise, each at the most images per class that both reached, "
        "for this one clone seed."
    )
    inputs.sweep["ranking"][4]["verdict"] = "within noise"
    assert search_lines(inputs)[0] == f"{NEAR}{inputs.sweep['ranking'][4]['label']} (at 25 images per class)."


def test_a_factor_whose_intervals_all_hold_zero_is_not_given_points(inputs):
    for value in inputs.sweep["effects"][0]["values"]:
        value.update({"low": -3.0, "high": 3.0, "verdict": "within noise"})
    assert search_lines(inputs)[1].endswith(
        "guidance 4.0. No effect beyond noise, for this one clone seed: prompt variant."
    )
    for value in inputs.sweep["effects"][1]["values"]:
        value.update({"low": -3.0, "high": 3.0, "verdict": "within noise"})
    assert search_lines(inputs)[1] == "No factor has an effect beyond noise, for this one clone seed."


def test_a_negative_upper_end_is_not_shown_as_zero(inputs):
    inputs.sweep["ranking"][2].update({"difference": -0.5, "difference_low": -1.0, "difference_high": -0.04})
    assert value_text(ranking_table(inputs).rows[2][2]) == "-0.5 [-1.0, -0.0]"


def test_a_step_that_failed_has_no_score_in_figures(tmp_path):
    results = [*search_results(SETTINGS), failed_result(setting_of("name", 4.0), 6)]
    inputs = gather_sweep(search_row(tmp_path, results), [], results)
    assert "3 of 7 settings have 100. 4 dropped before, or failed." in scaling_plot(inputs).alt
    assert heat_map(inputs, 25).png and len(ranking_table(inputs).rows) == 6


def test_equal_values_are_white_on_dark_and_one_value_has_no_heat_map(tmp_path, inputs, monkeypatch):
    for result in (results := search_results(SETTINGS, budgets=(25,))):
        result["score"] = 50.0
    colors = []
    text = Axes.text
    monkeypatch.setattr(Axes, "text", lambda *args, **kwargs: colors.append(kwargs["color"]) or text(*args, **kwargs))
    assert heat_map(gather_sweep(search_row(tmp_path, results), [], results), 25) is not None and set(colors) == {
        "white"
    }
    assert heat_map(material_of(tmp_path, [setting_of("name", 1.0), setting_of("b", 2.0)], keep=1), 100) is None


def test_effect_of_a_value_that_no_scored_setting_has_is_left_out(inputs):
    inputs.sweep["effects"][0]["values"][0].update(
        {"mean": None, "difference": None, "low": None, "high": None, "num_settings": 0}
    )
    assert "prompt variant: attributes +0.0;" in effects_plot(inputs).alt
    assert effects_table(inputs).rows[0][2:] == (None, None, 0)


def test_files_hold_numbers_in_full(inputs):
    inputs.sweep["ranking"][1].update({"difference": -0.123456, "difference_low": -1.0, "difference_high": 0.5})
    rows = list(csv.DictReader(io.StringIO(to_csv(ranking_table(inputs)))))
    assert (rows[1]["difference to the best"], rows[1]["difference to the best low"]) == ("-0.123456", "-1.0")
    assert rows[0]["difference to the best"] == "" and float(rows[0]["score high"]) > float(rows[0]["score"])
    cost = {row["what"]: row for row in csv.DictReader(io.StringIO(to_csv(cost_table(inputs))))}
    assert cost["device time, generating"]["this sweep"] == "600.0"


def test_a_sweep_says_how_far_its_clones_noise_is_counted(inputs):
    def said():
        return [
            line
            for line in search_lines(inputs)
            if "clone seed" in line and ("generation.seeds" in line or line.startswith("Each"))
        ]

    assert "for this one clone seed" in said()[0]
    own = [clone for clone in inputs.sweep["clones"] if clone["setting"] == inputs.sweep["ranking"][0]["setting"]]
    inputs.sweep["ranking"][0]["num_seeds"] = 3
    own[0]["clones"] = ["a", "b"]
    assert said()[0].startswith("Each setting has 2 clone seeds and more classifier seeds")
    own[0]["clones"] = ["a", "b", "c"]
    assert not said()
