"""What a sweep's settings refuse, each in one line that names the field and the remedy."""

import pytest
import yaml

from raysd.config import load_experiment
from raysd.errors import UserError

LISTS = {"generation": {"guidance_scale": [1, 2]}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"space": {}}, "empty"),
        ({"space": {"generation": {"guidance_scale": [1, 1]}}}, "twice"),
        (
            {"space": {"generation": {"guidance_scale": {"low": 3, "high": 1}}}, "search": "random", "num_settings": 2},
            "low must be below high",
        ),
        ({"space": {"generation": {"guidance_scale": {"low": 1, "high": 3}}}}, "search=random"),
        ({"space": {"generation": {"images_per_class": [5, 50]}}}, "same for all settings"),
        ({"space": {"training": {"seeds": [[0], [1]]}}}, "same for all settings"),
        ({"space": LISTS, "num_settings": 3}, "a grid tries all"),
        ({"space": LISTS, "search": "random"}, "num_settings"),
        ({"space": LISTS, "scheduler": "halving", "rungs": [50]}, "two or more"),
        ({"space": LISTS, "rungs": [10, 20]}, "scheduler=halving"),
        ({"space": LISTS, "scheduler": "asha", "rungs": [20, 10]}, "rise"),
        (
            {"space": LISTS, "search": "tpe", "num_settings": 3, "scheduler": "halving", "rungs": [10, 20]},
            "scheduler=asha",
        ),
        ({"space": LISTS, "scheduler": "asha", "rungs": [10, 20], "keep_within_noise": True}, "scheduler=halving"),
        ({"space": LISTS, "objective": {"transfer": 0}}, "greater than 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_a_remedy(tmp_path, values, words):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"sweep": values}))
    with pytest.raises(UserError, match=words) as error:
        load_experiment(path)
    assert str(error.value).startswith("sweep") and "\n" not in str(error.value)


def test_a_number_is_a_rung(tmp_path):
    experiment = load_experiment(
        None, ["sweep.scheduler=halving", "sweep.rungs=[10, {images_per_class: 30, num_seeds: 1}]"]
    )
    assert [(rung.images_per_class, rung.num_seeds) for rung in experiment.sweep.rungs] == [(10, None), (30, 1)]


def test_weights_of_an_objective_add_up_to_one():
    weights = load_experiment(None, ["sweep.objective={transfer: 3, test: 1}"]).sweep.weights
    assert weights == {"transfer": 0.75, "test": 0.25}


@pytest.mark.parametrize(
    ("values", "words"),
    [({"seeds": 1}, "sweep.confirm.seeds"), ({"settings": 0}, "sweep.confirm.settings"), ({"more": 2}, "unknown key")],
)
def test_a_confirmation_that_says_nothing_is_refused(values, words):
    with pytest.raises(UserError, match=words):
        load_experiment(None, sweep={"space": LISTS, "confirm": values})
    assert load_experiment(None).sweep.confirm is None
