import json

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

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
    (["generation.images_per_class=many"], "generation.images_per_class = 'many': give a whole number"),
    (["generation.images_per_class=0"], "greater than or equal to 1"),
    (["generation.guidance_scale=-2"], "generation.guidance_scale = -2"),
    (["generation.guidance_scale=.nan"], "generation.guidance_scale"),
    (["name=../x"], "name = '../x'"),
    (["training.seeds=[]"], "training.seeds"),
    (["generation.images_per_class=1:30"], "generation.images_per_class = '1:30': give a whole number"),
    (["storage="], "storage = ''"),
    (["generation.seed=9223372036854775808"], "generation.seed = 9223372036854775808"),
    (["training.seeds=[18446744073709551616]"], "training.seeds.0 = 18446744073709551616"),
    (["sweep.seed=-1"], "sweep.seed = -1"),
    (["generation..seed=1"], "write it as key=value"),
    (["nonsense"], "write it as key=value"),
    (["generation=5"], "generation = 5: give keys and values, as {key: value}"),
    (["generation.sampler=slow"], "generation.sampler = 'slow': give 'fast' or 'paper'"),
    (["generation.safety_checker=maybe"], "give true or false"),
    (["sweep.objective=accuracy"], "give 'validation', 'transfer', 'test' or 'generated' or keys and values"),
    (["generation.guidance_interval=[0, 0.5, 1]"], "has too many values; give at most 2"),
    (["evaluation.transfer_sets=[{name: x, shots: 0}]"], "shots = 0: should be greater than or equal to 1"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD)
def test_bad_input_gives_one_line_with_field_value_and_remedy(overrides, message):
    with pytest.raises(UserError) as caught:
        load_experiment(None, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(word in str(caught.value) for word in ("dictionary", "instance of", "valid string", "nput should"))


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "no valid YAML"), ("- 1\n- 2\n", "must hold keys"), (None, "no such file")]
)
def test_bad_files_give_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_experiment(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_the_yaml_word_off_without_quotes_turns_lint_off(tmp_path):
    assert load_experiment(None, ["lint=off"]).lint == "off"
    (tmp_path / "x.yaml").write_text("lint: off\n")
    assert load_experiment(tmp_path / "x.yaml").lint == "off"


ODD = ["007", "010", "0x1F", "12:30", "1_000", "2021-01-01", "1e3", ".5", "3.10", "yes", "no", "on", "off", "true"]


def test_texts_keep_the_characters_of_the_file(tmp_path):
    (tmp_path / "x.yaml").write_text(
        f"name: 007\nclasses: [{', '.join(ODD)}]\n"
        "generation: {class_counts: {007: 8, 1_000: 3}, negative_prompt: 1e3, model: 12, images_per_class: 0100}\n"
        "variants: {x: {templates: [no, '{name}'], weights: {templates: [1, .5]}}}\n"
    )
    experiment = load_experiment(tmp_path / "x.yaml")
    generation = experiment.generation
    assert (experiment.name, experiment.classes) == ("007", ODD)
    assert generation.class_counts == {"007": 8, "1_000": 3} and generation.images_per_class == 100
    assert (generation.negative_prompt, generation.model) == ("1e3", "12")
    assert experiment.variants["x"].templates == ["no", "{name}"]
    assert experiment.variants["x"].weights == {"templates": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("storage=/t/run #2", "/t/run #2"),
        ("storage=hdfs://node:8020/x", "hdfs://node:8020/x"),
        ("storage=hdfs:///x", "hdfs:///x"),
        ("storage=viewfs:///x", "viewfs:///x"),
        ("generation.negative_prompt=a: b #c, [d]", "a: b #c, [d]"),
        ("generation.negative_prompt=[dark]", "[dark]"),
        ("generation.negative_prompt='a #b'", "a #b"),
        ("generation.negative_prompt=null", None),
        ("generation.model=a #b", "a #b"),
        ("generation.images_per_class=0100", 100),
        ("generation.images_per_class=0x1F", 31),
        ("generation.scheduler_options={solver_order: 3, x: sde, y: true}", {"solver_order": 3, "x": "sde", "y": True}),
        ("classes=[cat, 007]", ["cat", "007"]),
        ("classes=a #1.csv", "a #1.csv"),
        (
            'generation.class_counts={"St. Bernard": 3, "tench, Tinca tinca": 2}',
            {"St. Bernard": 3, "tench, Tinca tinca": 2},
        ),
        ("generation.negative_prompt=\\${name}", "${name}"),
    ],
)
def test_an_override_of_a_text_is_taken_as_it_stands(override, value):
    found = load_experiment(None, [override])
    for key in override.partition("=")[0].split("."):
        found = getattr(found, key)
    assert found == value


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_prompt_comes_through_an_override(text):
    assume("${" not in text and text not in ("", "~", "null", "Null", "NULL"))
    assume(len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"")
    assert load_experiment(None, [f"generation.negative_prompt={text}"]).generation.negative_prompt == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generation: {seed: 1}\ngeneration: {seed: 2}\n", "the key 'generation' stands twice"),
        ("a: !!python/name:os.system\n", "is not allowed"),
        ("a: &a [*a]\n", "refers to itself"),
        ("classes: [a\n", "line 2, column 1"),
        (
            "variants: {x: {templates: ['a ${name}']}}\n",
            r"^variants.x.templates\[0\] = 'a \${name}': .* themselves write",
        ),
        (
            "variants: {x: {templates: ['a ${name']}}\n",
            r"^variants.x.templates\[0\] = 'a \${name': .* themselves write",
        ),
    ],
)
def test_an_error_of_the_file_blames_the_file_and_no_override(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_experiment(tmp_path / "x.yaml", ["generation.seed=3"])
    assert "seed=3" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_bad_override_among_several_is_named():
    with pytest.raises(UserError, match=r"^classes = '\[a': is no valid YAML"):
        load_experiment(None, ["lint=off", "classes=[a", "generation.seed=1"])


def test_a_variable_of_the_environment_is_looked_up(monkeypatch, tmp_path):
    monkeypatch.setenv("ROOT_OF_RUNS", "/t/run")
    (tmp_path / "x.yaml").write_text("storage: ${oc.env:ROOT_OF_RUNS}/x\n")
    assert load_experiment(tmp_path / "x.yaml").storage == "/t/run/x"
