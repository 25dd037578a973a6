"""Tables and figures of a search."""

import csv
import io

import pytest
from report_rows import search_row, search_trials, setting_of

from raysd.report.heatmap import heat_map, heat_maps
from raysd.report.material import gather_sweep
from raysd.report.search_plots import effects_plot, scaling_plot
from raysd.report.sweep_tables import cost_table, effects_table, proxies_table, ranking_table, rung_table, search_lines
from raysd.report.tables import Number, to_csv, to_markdown, value_text

NEW = ("ranking", "effects", "proxies", "cost", "search", "scheduler", "rungs", "factors")
SETTINGS = [setting_of(variant, scale) for variant in ("name", "attributes") for scale in (1.0, 2.0, 7.5)]


@pytest.fixture
def material(tmp_path):
    return material_of(tmp_path, SETTINGS)


def material_of(folder, settings, budgets=(25, 100), **changes):
    trials = search_trials(settings, budgets=budgets)
    return gather_sweep(search_row(folder, trials, **changes), [], trials)


def shown(table):
    names = [column.name for column in table.columns]
    return {row[0]: dict(zip(names, map(value_text, row), strict=True)) for row in table.rows}


def test_ranking_has_intervals_paired_differences_and_verdicts(material):
    table = ranking_table(material)
    first, second = table.rows[0][0], table.rows[1][0]
    rows = shown(table)
    assert rows[first]["verdict"] == "best" and rows[first]["difference to the best"] == "-"
    assert rows[second]["verdict"] == "within noise" and rows[second]["difference to the best"] == "+0.0 [-0.8, +0.8]"
    assert [row[-1] for row in table.rows] == list(range(1, 7))


def test_ranking_without_intervals_shows_the_score_alone(material):
    for row in material.sweep["ranking"]:
        row.update({"low": None, "high": None, "difference_low": None, "difference_high": None})
    assert "[" not in to_markdown(ranking_table(material)).split("\n- ")[0].replace("\\[", "[").partition("|")[2]


def test_older_sweeps_are_ranked_by_score_without_verdicts(tmp_path):
    material = material_of(tmp_path, SETTINGS, **dict.fromkeys(NEW))
    table = ranking_table(material)
    assert "verdict" not in [column.name for column in table.columns]
    scores = [row[1].value for row in table.rows]
    assert sorted(scores[:3], reverse=True) == scores[:3]


def test_settings_that_share_a_clone_are_named(tmp_path):
    material = material_of(tmp_path, [setting_of("name", 2.0, **{"training.rate": rate}) for rate in (0.1, 1.0)])
    assert any("share a clone" in note and "rate 0.1; name, guidance 2, rate 1.0" in note for note in ranking_table(material).notes)


def test_absent_keys_leave_their_tables_and_figures_out(tmp_path):
    material = material_of(tmp_path, SETTINGS, **dict.fromkeys(NEW))
    assert effects_table(material) is None and proxies_table(material) is None and effects_plot(material) is None
    assert [row[0] for row in cost_table(material).rows][:3] == ["settings", "pictures drawn by this sweep", "pictures flagged"]


def test_effects_hold_every_value_with_its_interval(material):
    table = effects_table(material)
    assert [(row[0], row[1]) for row in table.rows[:2]] == [("prompt variant", "name"), ("prompt variant", "attributes")]
    assert table.rows[-1][:2] == ("guidance", "7.5") and str(table.rows[-1][3]) == "+1.0 [+0.2, +1.8]"
    assert "prompt variant: name -1.0, attributes +0.0; guidance: 1 -1.0" in effects_plot(material).alt


def test_effect_without_an_interval_is_drawn(material):
    for effect in material.sweep["effects"]:
        for value in effect["values"]:
            value["low"] = value["high"] = None
    assert effects_plot(material).png and effects_table(material).rows[0][3] == Number(-1.0, "+z.1f")


def test_quartiles_are_shown_as_they_are_named(material):
    material.sweep["effects"][1]["values"][0]["value"] = "0.1 to 0.4"
    assert "0.1 to 0.4" in [row[1] for row in effects_table(material).rows]


def test_proxies_name_their_pick_and_the_points_lost(material):
    row = shown(proxies_table(material))["frechet distance"]
    assert row["points lost"] == "1.3" and row["rank correlation"] == "0.82" and row["would pick"] == material.sweep["ranking"][1]["label"]
    assert shown(proxies_table(material))["coverage"]["rank correlation"] == "-"


def test_cost_stands_beside_the_full_grid_with_ratios(material):
    rows = shown(cost_table(material))
    assert rows["pictures"]["full grid / sweep"] == "2.4 x" and rows["trainings"]["full grid"] == "36"
    assert rows["device time, training"]["full grid"] == "-" and rows["device time, all"]["full grid / sweep"] == "-"
    assert rows["device time, all"]["this sweep"] == "31 min 00 s"


def test_flagged_pictures_of_a_shared_clone_count_once(tmp_path):
    material = material_of(tmp_path, [setting_of("name", 2.0, **{"training.rate": rate}) for rate in (0.1, 1.0)])
    assert shown(cost_table(material))["pictures flagged"]["this sweep"] == "1"


def test_heat_maps_show_the_shared_rung_and_the_last(material):
    first, last = heat_maps(material)
    assert (first.name, last.name) == ("heat-map-25", "heat-map-100")
    assert first.alt.count("at guidance 7.5") == 2 and "at guidance 7.5" not in last.alt


def test_one_rung_gives_one_heat_map_and_no_scaling(tmp_path):
    material = material_of(tmp_path, SETTINGS, budgets=(25,))
    assert [plot.name for plot in heat_maps(material)] == ["heat-map-25"]
    assert scaling_plot(material) is None and rung_table(material) is None


def test_heat_map_says_when_a_cell_holds_several_settings(tmp_path):
    settings = [{**setting, "training.rate": rate} for setting in SETTINGS for rate in (0.1, 1.0)]
    assert "best of the other fields" in heat_map(material_of(tmp_path, settings), 25).title


def test_a_range_of_guidance_scales_has_no_heat_map(tmp_path):
    settings = [setting_of(variant, 1 + i / 10) for i in range(20) for variant in ("name", "attributes")]
    assert heat_maps(material_of(tmp_path, settings)) == []


def test_scaling_plot_tells_survivors_from_dropped_settings(material):
    alt = scaling_plot(material).alt
    assert "3 of 6 settings have 100. 3 dropped before." in alt


def test_rungs_are_empty_where_a_setting_was_dropped(material):
    rows = rung_table(material).rows
    assert [row[2] is None for row in rows] == [False] * 3 + [True] * 3


def test_failed_score_is_empty_everywhere(tmp_path):
    trials = search_trials(SETTINGS)
    trials[0].update({"score": None, "seed_scores": []})
    for trial in trials:
        trial["score"] = trial["score"] if trial["score"] is not None else None
    row = search_row(tmp_path, [trial for trial in trials if trial["score"] is not None])
    failed = {**row["clones"][0], "setting": SETTINGS[0], "label": "failed", "rungs": [{"images_per_class": 25, "score": None, "seed_scores": []}]}
    material = gather_sweep({**row, "clones": [failed, *row["clones"][1:]]}, [], trials)
    assert shown(rung_table(material))["failed"]["25"] == "-"
    assert scaling_plot(material).png and heat_map(material, 25).png


def test_summary_names_what_is_within_noise_what_matters_and_what_was_saved(material):
    near, effects, cost = search_lines(material)
    assert near == f"Within noise of the best, of 5 others: {material.sweep['ranking'][1]['label']}."
    assert effects.endswith("prompt variant 4.0, guidance 4.0.")
    assert cost == "The full grid would take 2.4 x the pictures and 1.1 x the trainings."


def test_summary_says_when_all_others_are_worse_and_nothing_of_absent_keys(tmp_path, material):
    material.sweep["ranking"][1]["verdict"] = "worse"
    assert search_lines(material)[0] == "All 5 other settings are worse, by more than noise."
    assert search_lines(material_of(tmp_path, SETTINGS, **dict.fromkeys(NEW))) == []


def test_effect_of_a_value_that_no_scored_setting_has_is_left_out(material):
    material.sweep["effects"][0]["values"][0].update({"mean": None, "difference": None, "low": None, "high": None, "num_settings": 0})
    assert "prompt variant: attributes +0.0;" in effects_plot(material).alt
    assert effects_table(material).rows[0][2:] == (None, None, 0)


def test_files_hold_numbers_in_full(material):
    material.sweep["ranking"][1].update({"difference": -0.123456, "difference_low": -1.0, "difference_high": 0.5})
    rows = list(csv.DictReader(io.StringIO(to_csv(ranking_table(material)))))
    assert (rows[1]["difference to the best"], rows[1]["difference to the best low"]) == ("-0.123456", "-1.0")
    assert rows[0]["difference to the best"] == "" and float(rows[0]["score high"]) > float(rows[0]["score"])
    cost = {row["what"]: row for row in csv.DictReader(io.StringIO(to_csv(cost_table(material))))}
    assert cost["device time, drawing"]["this sweep"] == "600.0"
