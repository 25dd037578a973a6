"""Settings: the points of the space, and the experiment at each of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.config import load_experiment, validate_experiment
from raysd.errors import UserError
from raysd.resolve import clone_spec_of
from raysd.sweep.settings import RangeSettings, RungSettings
from raysd.sweep.space import (
    Setting,
    distinct_settings,
    experiment_at,
    list_settings,
    rounded,
    rungs_of,
    settings_to_check,
    sweep_fingerprint,
)

RUNG = RungSettings(images_per_class=7, num_seeds=1)


def with_space(space, **sweep):
    return validate_experiment({"training": {"seeds": [0, 1, 2]}, "sweep": {"space": space, **sweep}})


def test_a_grid_holds_every_combination_once_with_variants_outermost():
    settings = list_settings(
        with_space({"generation": {"guidance_scale": [1, 2, 4], "variant": ["name", "attributes"]}})
    )
    assert [setting.label for setting in settings[:4]] == [
        "name, guidance 1",
        "name, guidance 2",
        "name, guidance 4",
        "attributes, guidance 1",
    ]
    assert len(set(settings)) == 6


def test_a_random_search_repeats_and_has_no_setting_twice():
    space = {"generation": {"guidance_scale": {"low": 1, "high": 8, "log": True}, "variant": ["name", "attributes"]}}
    first, again, other = (
        list_settings(with_space(space, search="random", num_settings=9, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) == 9
    assert all(1 <= setting.values["generation.guidance_scale"] <= 8 for setting in first)


def test_a_random_search_for_more_settings_than_there_are_is_refused():
    with pytest.raises(UserError, match="search=grid"):
        list_settings(with_space({"generation": {"guidance_scale": [1, 2]}}, search="random", num_settings=3))


def test_a_setting_reaches_every_section_of_the_experiment():
    experiment = with_space(
        {
            "generation": {"guidance_scale": [3]},
            "training": {"recipe": ["fast"], "recipe_options": {"learning_rate": [0.5]}},
        }
    )
    (setting,) = list_settings(experiment)
    at = experiment_at(experiment, setting, RUNG)
    assert (at.generation.guidance_scale, at.generation.images_per_class) == (3, 7)
    assert (at.training.recipe, at.training.recipe_options, at.training.seeds) == ("fast", {"learning_rate": 0.5}, [0])


@pytest.mark.parametrize(
    ("space", "field"),
    [
        ({"generation": {"guidance": [1]}}, "sweep.space.generation.guidance"),
        ({"generation": {"guidance_scale": [0.5]}}, "sweep.space.generation.guidance_scale"),
        ({"training": {"recipe": {"learning_rate": [1]}}}, "sweep.space.training"),
        ({"training": {"num_epochs": [0]}}, "sweep.space.training.num_epochs"),
    ],
)
def test_a_wrong_value_names_its_place_in_the_space(space, field):
    with pytest.raises(UserError) as error:
        experiment = with_space(space)
        experiment_at(experiment, list_settings(experiment)[0], RUNG)
    assert str(error.value).startswith(field)


def test_settings_share_their_noise_and_their_classifier_seeds():
    experiment = with_space({"generation": {"guidance_scale": [1, 7.5], "variant": ["name", "attributes"]}})
    runs = [experiment_at(experiment, setting, RUNG) for setting in list_settings(experiment)]
    assert {run.generation.seed for run in runs} == {0} and {tuple(run.training.seeds) for run in runs} == {(0,)}


def test_rungs_of_one_setting_are_one_clone():
    experiment = with_space({"generation": {"guidance_scale": [1, 2]}}, scheduler="halving", rungs=[10, 30])
    setting = list_settings(experiment)[0]
    assert (
        len({clone_spec_of(experiment_at(experiment, setting, rung)).fingerprint for rung in rungs_of(experiment)}) == 1
    )


def test_a_rung_with_more_seeds_than_there_are_is_refused():
    experiment = with_space(
        {"generation": {"guidance_scale": [1]}}, scheduler="asha", rungs=[{"images_per_class": 5, "num_seeds": 4}, 10]
    )
    with pytest.raises(UserError, match=r"sweep\.rungs\.0\.num_seeds"):
        rungs_of(experiment)


def test_both_ends_of_a_range_are_checked():
    experiment = with_space(
        {"generation": {"guidance_scale": {"low": 1, "high": 9}, "variant": ["name", "attributes"]}},
        search="tpe",
        num_settings=4,
    )
    scales = {setting.values["generation.guidance_scale"] for setting in settings_to_check(experiment)}
    variants = {setting.values["generation.variant"] for setting in settings_to_check(experiment)}
    assert {1.0, 9.0} <= scales and variants == {"name", "attributes"}


def test_a_negative_prompt_is_a_factor():
    experiment = with_space({"generation": {"negative_prompt": ["", "blurry"]}})
    specs = [clone_spec_of(experiment_at(experiment, setting, RUNG)) for setting in list_settings(experiment)]
    assert [spec.variant.negative_prompt for spec in specs] == ["", "blurry"]
    assert specs[0].fingerprint == clone_spec_of(experiment).fingerprint != specs[1].fingerprint


class NoSets:
    """An evaluation on some sets, given by their identities."""

    def __init__(self, *identities):
        self.sets = [type("MeasuredOn", (), {"identity": lambda self, value=value: value})() for value in identities]


def test_a_sweep_is_named_by_what_shapes_its_answer_and_not_by_the_cluster():
    same = [
        "name=a",
        "name=b",
        "generation.num_actors=3",
        "generation.min_actors=2",
        "training.min_workers=1",
        "generation.batch_size=7",
        "sweep.max_concurrent_trials=2",
        "sweep.extra_trials=2",
        "training.logger=none",
    ]
    others = [
        "generation.seed=1",
        "sweep.keep=0.5",
        "training.seeds=[1]",
        "training.num_epochs=3",
        "training.filters={best_share: 0.5}",
    ]
    names = [sweep_fingerprint(load_experiment(None, [override]), NoSets("digits")) for override in [*same, *others]]
    assert len(set(names[: len(same)])) == 1 and len(set(names)) == 1 + len(others)
    assert sweep_fingerprint(load_experiment(None), NoSets("digits", "mnist")) not in names


def test_what_every_variant_holds_is_in_the_name_of_a_sweep(tmp_path):
    def named(second):
        variants = {"one": {"templates": ["a {name}"]}, "two": {"templates": [second]}}
        return validate_experiment(
            {"variants": variants, "sweep": {"space": {"generation": {"variant": ["one", "two"]}}}}
        )

    assert sweep_fingerprint(named("b {name}"), NoSets()) != sweep_fingerprint(named("c {name}"), NoSets())


def test_settings_that_are_the_same_when_resolved_are_told_apart_from_new_ones():
    experiment = with_space({"generation": {"guidance_scale": [1, 2], "guidance_interval": [[0, 1], [0.2, 0.8]]}})
    kept, repeated = distinct_settings(experiment, list_settings(experiment))
    assert [setting.values["generation.guidance_scale"] for setting in kept] == [1, 2, 2]
    assert [setting.values["generation.guidance_scale"] for setting in repeated] == [1]


def test_a_cache_of_every_step_is_the_same_setting_as_none():
    experiment = with_space({"generation": {"step_cache": [None, {"interval": 1}, {"interval": 3}, {"interval": 5}]}})
    kept, repeated = distinct_settings(experiment, list_settings(experiment))
    assert [setting.values["generation.step_cache"] for setting in (*kept, *repeated)] == [
        None,
        {"interval": 3},
        {"interval": 5},
        {"interval": 1},
    ]


@given(low=st.floats(0.1, 10), width=st.floats(0.1, 10), step=st.floats(0.01, 3), share=st.floats(0, 1))
def test_stepped_numbers_stay_in_their_range_and_on_its_steps(low, width, step, share):
    choices = RangeSettings(low=low, high=low + width, step=step)
    value = rounded(low + share * width, choices)
    steps = (value - low) / step
    assert low <= value <= low + width + 1e-9
    assert abs(steps - round(steps)) < 1e-6 or value == pytest.approx(low + width)


def test_whole_steps_give_whole_numbers():
    assert rounded(7.4, RangeSettings(low=5, high=50, step=5)) == 5 and isinstance(
        rounded(7.6, RangeSettings(low=5, high=50, step=5)), int
    )


def test_a_label_names_every_value():
    values = {
        "generation.variant": "name",
        "generation.guidance_scale": 2.0,
        "training.recipe_options.learning_rate": 0.01,
        "generation.sampler": "fast",
    }
    setting = Setting(values)
    assert setting.label == "name, guidance 2, learning_rate 0.01, sampler fast"
