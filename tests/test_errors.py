"""Bad input is one line, wherever it is found and whatever process it crosses."""

import pickle
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from raysd.config import load_experiment, validate_experiment
from raysd.errors import UserError
from raysd.resolve import source_generations
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import Setting, experiment_at


@pytest.mark.parametrize("value", [7.5, 0, True, None, "7.5", ["name", 2], {"shots": 3, "probe": None}])
def test_a_value_is_the_same_in_another_process(value):
    error = UserError("generation.guidance_scale", value, "is too much")
    for other in (UserError.from_json(error.to_json()), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert (other.field, other.value, other.remedy) == (error.field, error.value, error.remedy)
        assert type(other.value) is type(value) and str(other) == str(error)


def test_a_value_that_json_does_not_know_becomes_its_text():
    assert UserError.from_json(UserError("storage", Path("a/b"), "is full").to_json()).value == "a/b"
    assert UserError.from_json(UserError("x", {1: (Path("a"), 2)}, "is wrong").to_json()).value == {"1": ["a", 2]}


class Options(BaseModel):
    """Stands for a section."""

    model_config = ConfigDict(extra="forbid")
    size: int | list[int] = 1

    @model_validator(mode="after")
    def _odd(self):
        if self.size == 13:
            raise ValueError("Thirteen is not taken")
        return self


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 3}, "section.width = 3: unknown key; see the JSON schema (raysd schema) for the known ones"),
        ({"size": [1, "x"]}, "section.size.1 = 'x': give a whole number"),
        ({"size": "x"}, "section.size = 'x': give a whole number or a list, as [a, b]"),
        ({"size": 13}, "section = {'size': 13}: thirteen is not taken"),
    ],
)
def test_what_pydantic_finds_is_said_with_field_value_and_remedy(values, message):
    with pytest.raises(ValidationError) as raised:
        Options(**values)
    assert str(UserError.from_validation(raised.value, "section", values)).startswith(message)


REMEDY = r"unknown key(, did you mean \w+\?)?; see the JSON schema"


def test_an_unknown_key_has_the_same_remedy_in_every_section():
    experiment = load_experiment()
    with pytest.raises(UserError, match=r"^generation\.guidance = 2: " + REMEDY):
        validate_experiment({"generation": {"guidance": 2}})
    with pytest.raises(UserError, match=r"^training\.sources\.0\.clone\.guidance = 2: " + REMEDY):
        list(source_generations(validate_experiment({"training": {"sources": [{"clone": {"guidance": 2}}]}})))
    with pytest.raises(UserError, match=r"^sweep\.space\.generation\.guidance = 2: " + REMEDY):
        experiment_at(experiment, Setting({"generation.guidance": 2}), RungSettings(images_per_class=1, num_seeds=1))
    with pytest.raises(UserError, match=r"^training\.recipe_options\.rate = 2: " + REMEDY):
        validate_experiment({"training": {"recipe_options": {"rate": 2}}}).training.resolve_recipe()
