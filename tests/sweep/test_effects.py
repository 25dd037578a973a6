import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rung_rows import rung_result
from scipy.stats import ttest_rel

from raysd.sweep.analysis.effects import marginal_effects

EFFECTS = {
    "generation.guidance_scale": {1.0: 0.0, 2.0: 5.0, 7.5: -4.0},
    "generation.variant": {"name": 0.0, "attributes": 2.0},
}
FACTORS = {name: list(values) for name, values in EFFECTS.items()}
GRID = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]


def results_of(settings, noise=0.0, num_seeds=2, rng=None, rung=0, effects=EFFECTS):
    """Additive scores with the noise of seeds."""
    rng = rng or np.random.default_rng(0)
    means = [60 + sum(effects[name][value] for name, value in setting.items()) for setting in settings]
    return [
        rung_result(n, mean + noise * rng.normal(size=num_seeds), rung, setting)
        for n, (mean, setting) in enumerate(zip(means, settings, strict=True))
    ]


def test_a_grid_has_the_plain_means_of_its_values():
    guidance, variant = marginal_effects(results_of(GRID), FACTORS)
    assert [(row["value"], row["mean"], row["difference"], row["num_settings"]) for row in guidance["values"]] == [
        (1.0, pytest.approx(61), pytest.approx(-1 / 3), 2),
        (2.0, pytest.approx(66), pytest.approx(14 / 3), 2),
        (7.5, pytest.approx(57), pytest.approx(-13 / 3), 2),
    ]
    assert (guidance["factor"], guidance["images_per_class"], guidance["spread"]) == (
        "generation.guidance_scale",
        25,
        pytest.approx(9),
    )
    assert json.loads(json.dumps([guidance, variant])) == [guidance, variant]
    assert [row["value"] for row in variant["values"]] == ["name", "attributes"] and variant["spread"] == pytest.approx(
        2
    )


@given(st.lists(st.sampled_from(GRID), min_size=4, max_size=12))
def test_effects_of_additive_scores_are_found_whatever_the_balance(settings):
    rows = {row["factor"]: row for row in marginal_effects(results_of(settings), FACTORS)}
    for name, row in rows.items():
        assume(row["values"][0]["difference"] is not None)
        truth = {value["value"]: EFFECTS[name][value["value"]] for value in row["values"]}
        center = np.mean(list(truth.values()))
        for value in row["values"]:
            assert value["difference"] == pytest.approx(truth[value["value"]] - center, abs=1e-6)
        assert row["spread"] == pytest.approx(max(truth.values()) - min(truth.values()), abs=1e-6)
        others = np.mean(
            [sum(EFFECTS[other][setting[other]] for other in EFFECTS if other != name) for setting in settings]
        )
        assert row["values"][0]["mean"] == pytest.approx(
            60 + others + EFFECTS[name][row["values"][0]["value"]], abs=1e-6
        )


def test_a_value_tried_only_with_good_partners_gets_no_credit_for_them():
    """`attributes` was tried with the good guidance scale only; by plain means it wins by far."""
    effects = {
        "generation.guidance_scale": {1.0: 0.0, 2.0: 10.0},
        "generation.variant": {"name": 0.0, "attributes": -1.0},
    }
    settings = [
        dict(zip(effects, values, strict=True))
        for values in [(1.0, "name"), (1.0, "name"), (2.0, "name"), (2.0, "attributes"), (2.0, "attributes")]
    ]
    _, variant = marginal_effects(
        results_of(settings, effects=effects), {name: list(values) for name, values in effects.items()}
    )
    name, attributes = variant["values"]
    assert attributes["mean"] - name["mean"] == pytest.approx(-1)


def test_a_factor_with_one_value_is_skipped():
    settings = [setting for setting in GRID if setting["generation.variant"] == "name"]
    assert [row["factor"] for row in marginal_effects(results_of(settings), FACTORS)] == ["generation.guidance_scale"]
    assert marginal_effects(results_of(GRID[:1]), FACTORS) == [] == marginal_effects([], FACTORS)


def test_factors_that_cannot_be_told_apart_have_plain_means_alone_and_others_their_effects():
    effects = {"a": {0: 0.0, 1: 3.0}, "b": {0: 0.0, 1: 4.0}, "c": {0: 0.0, 1: 1.0}}
    settings = [{"a": both, "b": both, "c": own} for both in (0, 1) for own in (0, 1, 1)]
    a, b, c = marginal_effects(results_of(settings, effects=effects), {name: [0, 1] for name in effects})
    for row in (a, b):
        assert [(value["mean"], value["difference"], value["low"], value["high"]) for value in row["values"]] == [
            (pytest.approx(60 + 2 / 3), None, None, None),
            (pytest.approx(67 + 2 / 3), None, None, None),
        ]
        assert row["spread"] == pytest.approx(7)
    assert [value["difference"] for value in c["values"]] == pytest.approx([-0.5, 0.5])


def test_the_highest_rung_that_all_settings_reached_counts_and_failed_ones_do_not():
    low, high = results_of(GRID), results_of(GRID, rung=1)
    assert marginal_effects([*low, *high[:3]], FACTORS)[0]["images_per_class"] == 25
    assert marginal_effects([*low, *high], FACTORS)[0]["images_per_class"] == 100
    failed = [rung_result(5, [], 0, GRID[5]), *low[:5], *high[:5]]
    (row, _) = marginal_effects(failed, FACTORS)
    assert row["images_per_class"] == 100 and sum(value["num_settings"] for value in row["values"]) == 5


def test_many_numbers_are_cut_into_quartiles():
    rates = np.geomspace(0.001, 0.1, 12).tolist()
    results = [
        rung_result(number, [60 + number // 3] * 2, setting={"training.recipe_options.learning_rate": rate})
        for number, rate in enumerate(rates)
    ]
    (row,) = marginal_effects(results, {"training.recipe_options.learning_rate": rates[::-1]})
    assert [value["num_settings"] for value in row["values"]] == [3, 3, 3, 3]
    assert [value["mean"] for value in row["values"]] == pytest.approx([60, 61, 62, 63])
    assert row["values"][0]["value"] == "0.001 to 0.00231"


def test_eight_numbers_or_many_words_stay_as_they_are():
    for values in (list(range(8)), [f"variant {number}" for number in range(9)]):
        results = [rung_result(number, [60, 61], setting={"x": value}) for number, value in enumerate(values)]
        (row,) = marginal_effects(results, {"x": values[::-1]})
        assert [value["value"] for value in row["values"]] == values[::-1]


def test_values_may_be_lists():
    values = [[0.0, 1.0], [0.2, 0.8]]
    (row,) = marginal_effects(
        [rung_result(number, [number, number], setting={"x": value}) for number, value in enumerate(values)],
        {"x": values},
    )
    assert [value["value"] for value in row["values"]] == values and row["spread"] == pytest.approx(1)


def test_without_degrees_of_freedom_the_seeds_give_the_interval_and_without_those_nothing_does():
    settings = [{"x": 0}, {"x": 1}]
    scores = [[60.0, 61.5, 63.0], [58.0, 60.5, 60.0]]
    (row,) = marginal_effects(
        [rung_result(number, own, setting=settings[number]) for number, own in enumerate(scores)], {"x": [0, 1]}
    )
    interval = ttest_rel(*scores).confidence_interval(0.95)  # of the whole difference, twice that to the mean
    first = row["values"][0]
    assert (first["low"], first["high"]) == pytest.approx((interval.low / 2, interval.high / 2))
    (row,) = marginal_effects(
        [rung_result(number, own[:1], setting=settings[number]) for number, own in enumerate(scores)], {"x": [0, 1]}
    )
    assert [(value["difference"], value["low"], value["high"]) for value in row["values"]] == [
        (pytest.approx(1), None, None),
        (pytest.approx(-1), None, None),
    ]


def test_with_one_seed_the_residuals_give_the_interval_of_a_two_way_analysis():
    scores = np.array([[60.0, 63.0], [66.0, 67.0], [57.0, 59.5]])
    results = [rung_result(number, [scores.flat[number]], setting=setting) for number, setting in enumerate(GRID)]
    guidance, _ = marginal_effects(results, FACTORS)
    residuals = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    half = 4.302653 * np.sqrt(np.sum(residuals**2) / 2 * (1 / 2 - 1 / 6))
    for value, mean in zip(guidance["values"], scores.mean(axis=1), strict=True):
        assert (value["low"], value["high"]) == pytest.approx(
            (mean - scores.mean() - half, mean - scores.mean() + half)
        )


@pytest.mark.parametrize(
    ("own", "num_seeds"), [(0.0, 1), (0.0, 3), (2.0, 3)], ids=["one seed", "seeds", "settings that are not additive"]
)
def test_intervals_hold_the_truth_as_often_as_they_say(own, num_seeds):
    rng, held, runs = np.random.default_rng(0), 0, 300
    for _ in range(runs):
        settings = [GRID[number] for number in (*range(6), *rng.integers(6, size=6))]
        results = results_of(settings, 1.0, num_seeds, rng)
        for result in results:
            shift = own * rng.normal()
            result["seed_scores"] = [score + shift for score in result["seed_scores"]]
        value = marginal_effects(results, FACTORS)[0]["values"][1]
        held += value["low"] <= 14 / 3 <= value["high"]
    assert 0.9 < held / runs < 0.99
