import json

import pytest
import yaml

from raysd.config import experiment_schema, load_experiment
from raysd.errors import UserError
from raysd.prompts.resolve import resolve_variant
from raysd.prompts.table import load_class_table


def test_the_defaults_are_valid():
    assert load_experiment().generation.guidance_scale == 2.0


def test_a_file_and_overrides_are_merged(tmp_path):
    (tmp_path / "x.yaml").write_text("name: x\ngeneration: {guidance_scale: 4, images_per_class: 7}\n")
    experiment = load_experiment(
        tmp_path / "x.yaml", ["generation.guidance_scale=1.5", "sweep.space.generation.variant=[name,attributes]"]
    )
    assert (experiment.generation.guidance_scale, experiment.generation.images_per_class) == (1.5, 7)
    assert experiment.sweep.space.generation["variant"] == ["name", "attributes"]


def test_a_variant_of_your_own_is_added_in_yaml(tmp_path):
    (tmp_path / "x.yaml").write_text(
        yaml.safe_dump({"variants": {"studio": {"templates": ["a studio photo of a {name}"]}}})
    )
    experiment = load_experiment(tmp_path / "x.yaml")
    assert (
        resolve_variant("studio", experiment.all_variants, load_class_table(["cat"])).prompt(
            {"name": "cat", "key": "cat"}, 0
        )
        == "a studio photo of a cat"
    )


def test_the_shipped_configurations_are_valid():
    from pathlib import Path

    from raysd.commands import DEMO

    files = [DEMO, *Path(__file__).parent.parent.glob("configs/*.yaml")]
    assert len(files) >= 3
    for path in files:
        load_experiment(path)


def test_the_json_schema_names_every_block():
    schema = json.loads(json.dumps(experiment_schema()))
    assert {"generation", "training", "evaluation", "sweep", "variants"} <= set(schema["properties"])


BAD = [
    (["foo=1"], "foo = 1: unknown key"),
    (["generation.foo=1"], "generation.foo = 1: unknown key"),
    (["generation.images_per_class=many"], "generation.images_per_class = 'many': input should be a valid integer"),
    (["generation.images_per_class=0"], "greater than or equal to 1"),
    (["generation.guidance_scale=-2"], "generation.guidance_scale = -2"),
    (["generation.guidance_scale=.nan"], "generation.guidance_scale"),
    (["name=../x"], "name = '../x'"),
    (["training.seeds=[]"], "training.seeds"),
    (["nonsense"], "write it as key=value"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD)
def test_bad_input_gives_one_line_with_field_value_and_remedy(overrides, message):
    with pytest.raises(UserError) as caught:
        load_experiment(None, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "no valid YAML"), ("- 1\n- 2\n", "must hold keys"), (None, "no such file")]
)
def test_bad_files_give_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_experiment(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_the_yaml_word_off_without_quotes_turns_lint_off():
    assert load_experiment(None, ["lint=off"]).lint == "off"
