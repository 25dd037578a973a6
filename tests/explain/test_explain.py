"""Each setting says what it is, to the schema, at a terminal and on the reference page, and says the truth."""

import re
from pathlib import Path

import pytest

from raysd.classifier.architecture import Architecture
from raysd.classifier.model import build_classifier, save_classifier
from raysd.config import experiment_schema, load_experiment
from raysd.errors import UserError
from raysd.explain.setting import NAME, all_settings, find_setting
from raysd.explain.text import explain
from raysd.resolve import clone_spec_of
from raysd.storage.location import Location
from raysd.training.run import TrainingRun

ROOT = Path(__file__).parent.parent.parent
KEYS = [setting.key for setting in all_settings()]


def test_recipes_and_sections_in_lists_have_settings_of_their_own():
    assert len(KEYS) > 150
    assert {"training.recipe_options.clip_norm", "evaluation.transfer_sets.probe.kind", "sweep.rungs.num_seeds"} <= {
        *KEYS
    }


def test_each_setting_is_described_in_plain_sentences():
    for setting in all_settings():
        said = setting.description
        assert re.fullmatch(r"[A-Z`].{15,350}[.]", said) and len(said.split()) >= 4, f"{setting.key}: {said}"
        assert not re.search(r"\b(Whether to|draw\w*|picture\w*)\b", said), f"{setting.key}: {said}"


def test_the_schema_has_description_default_range_and_unit():
    defs = experiment_schema()["$defs"]
    assert not [
        f"{section}.{name}"
        for section, schema in defs.items()
        for name, field in schema["properties"].items()
        if not field.get("description")
    ]
    scale = defs["GenerationSettings"]["properties"]["guidance_scale"]
    assert (scale["minimum"], scale["maximum"], scale["default"]) == (1, 100, 2.0)
    size = defs["TrainingSettings"]["properties"]["image_size"]
    assert (size["unit"], size["type"]) == ("pixels", "integer")


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ("generation.guidance_scale", ["type        number", "default     2", "range       1 to 100", "of the clone"]),
        ("generation.stored_size", ["whole number or null", "8 to 4096", "unit        pixels"]),
        ("generation.batch_size", ["fingerprint in none"]),
        ("generation.seed", ["at least 0, below 2^63"]),
        ("training.sources.0.share", ["training.sources.share", "above 0, at most 1"]),
        ("sweep.space.generation.guidance_scale", ["generation.guidance_scale"]),
        ("training.sources.1.clone.seed", ["generation.seed"]),
        ("training.recipe_options.crop_area", ["list of two numbers", "default     [0.25, 1]"]),
        ("variants.studio.templates", [f"variants.{NAME}.templates", "text or list of one or more texts"]),
        ("sweep", ["keep_within_noise", "max_concurrent_trials", "(default: grid)"]),
        ("", ["generation ", "storage", "(default: runs)"]),
    ],
)
def test_explain_says_what_a_setting_or_a_section_is(key, facts):
    text = explain(key)
    for fact in facts:
        assert fact in text


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("guidance_scale", "did you mean generation.guidance_scale?"),
        ("generation.guidence_scale", "did you mean generation.guidance_scale?"),
        ("training.colors_of_the_rainbow", "raysd explain lists all sections"),
        ("images_per_clas", "did you mean .*generation.images_per_class"),
        ("training.lr", "did you mean training.recipe_options.learning_rate?"),
        ("seeds", "did you mean generation.seeds or training.seeds"),
    ],
)
def test_a_near_miss_names_the_right_key(key, meant):
    with pytest.raises(UserError, match=meant):
        find_setting(key)


def test_the_command_explains_and_exits_with_2_on_unknown_keys(run_here):
    assert "range       1 to 100" in run_here("explain", "generation.guidance_scale").stdout
    finished = run_here("explain", "generation.guidance")
    assert finished.returncode == 2 and "did you mean generation.guidance_scale?" in finished.stderr


def test_the_reference_page_is_up_to_date_and_has_what_is_linked(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    from make_settings_page import page

    text = (ROOT / "docs" / "settings.md").read_text()
    assert text == page(), "run python tools/make_settings_page.py"
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {setting.link.partition("#")[2] for setting in all_settings()} <= anchors


OTHER = {
    "generation.model": "dummy",
    "generation.variant": "name_hypernym",
    "generation.negative_prompt": "dark",
    "generation.guidance_scale": "3",
    "generation.guidance_interval": "[0, 0.5]",
    "generation.entropy_guidance": "{classifier: CLASSIFIER}",
    "generation.guidance_range": "[1, 4]",
    "generation.weak_model": "embedded",
    "generation.skip_blocks": "[1]",
    "generation.cads": "{scale: 0.2}",
    "generation.scheduler_options": "{solver_order: 3}",
    "generation.image_size": "24",
    "generation.stored_size": "16",
    "generation.dtype": "float16",
    "generation.codec": "jpeg",
    "generation.compile": "true",
    "generation.step_cache": "{interval: 2}",
    "generation.class_counts": "{bag: 3}",
    "training.backbone": "resnet34",
    "training.backbone_options": "{drop_path_rate: 0.1}",
    "training.recipe": "fast",
    "training.recipe_options": "{flip: 0.1}",
    "training.precision": "float16",
    "training.seeds": "[1]",
    "training.min_workers": "1",
}
"""Another value than the default, where it does not follow from the type."""
ELSEWHERE = {
    f"generation.{name}" for name in ("revision", "weak_revision", "lora", "exemplar_guidance", "seeds", "scheduler")
}  # need files, or diffusers
OF_IMAGES = {"training.sources", "training.filters", "training.real"}


def other_value(setting):
    if setting.key in OTHER:
        return OTHER[setting.key]
    if setting.type.startswith("one of"):
        return next(
            word for word in setting.type.removeprefix("one of ").split(", ") if word not in ("auto", setting.default)
        )
    if setting.type == "true or false":
        return "false" if setting.default == "true" else "true"
    assert setting.type.startswith(("whole number", "number")), f"give {setting.key} a value in OTHER"
    if setting.default in ("null", "1"):
        return "2"
    return str(float(setting.default) / 2 if setting.type == "number" else int(setting.default) + 1)


def of_section(name, left_out):
    return [
        setting.key
        for setting in all_settings()
        if setting.path[0] == name and len(setting.path) == 2 and setting.key not in left_out
    ]


def clone_fingerprint(override):
    return clone_spec_of(load_experiment(None, override)).fingerprint


@pytest.mark.parametrize("key", of_section("generation", ELSEWHERE))
def test_the_clones_fingerprint_changes_with_the_settings_that_say_so(key, tmp_path):
    setting = find_setting(key)
    storage = f"storage={tmp_path}"
    if key == "generation.entropy_guidance":
        small = Architecture("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, 10, 32, 2)
        save_classifier(Location(str(tmp_path / "classifier")), build_classifier(small), small, {})
    value = other_value(setting).replace("CLASSIFIER", str(tmp_path / "classifier"))
    changed = clone_fingerprint([storage, f"{key}={value}"]) != clone_fingerprint([storage])
    assert changed == (setting.enters == "of the clone")


def classifier_fingerprint(override):
    training = load_experiment(None, override).training
    return TrainingRun(Location("/nowhere"), (), 10, training).fingerprint(training.seeds[0])


@pytest.mark.parametrize("key", of_section("training", OF_IMAGES))
def test_the_classifiers_fingerprints_change_with_the_settings_that_say_so(key):
    setting = find_setting(key)
    changed = classifier_fingerprint([f"{key}={other_value(setting)}"]) != classifier_fingerprint([])
    assert changed == (setting.enters == "of the classifiers")
