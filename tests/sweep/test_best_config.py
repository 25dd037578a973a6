import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from raysd.clone.spec import resolve_clone_spec
from raysd.config import load_experiment, validate_experiment
from raysd.sweep.best_config import best_config

OWN = {
    "name": "flowers",
    "classes": ["cat", "dog"],
    "variants": {"studio": {"templates": ["a studio photo of a {name}"]}},
    "generation": {
        "images_per_class": 25,
        "guidance_interval": [0.1, 0.9],
        "lora": [{"path": "/x.safetensors", "scale": 0.5}],
    },
    "training": {
        "recipe": "paper",
        "recipe_options": {"weight_decay": 0.1},
        "seeds": [0, 1, 2],
        "sources": [{"clone": {}}, {"real": "/real"}],
    },
    "evaluation": {"transfer_sets": ["digits", {"name": "mnist_5k", "shots": [1, 10], "probe": {"kind": "lbfgs"}}]},
    "sweep": {"space": {"generation": {"guidance_scale": [1, 2], "variant": ["name", "studio"]}}},
}
SETTING = {
    "generation.guidance_scale": 7.5,
    "generation.variant": "studio",
    "training.batch_size": 64,
    "training.recipe_options.learning_rate": 1e-05,
    "training.recipe_options.crop_area": [0.3, 1.0],
}


@pytest.fixture
def reload(tmp_path):
    """Write a file and load it as a user would."""

    def load(text):
        (tmp_path / "best.yaml").write_text(text, encoding="utf-8")
        return load_experiment(tmp_path / "best.yaml")

    return load


def test_the_file_loads_with_the_experiments_values_and_the_settings(reload):
    experiment = validate_experiment(OWN)
    best = reload(best_config(experiment, SETTING))
    assert best.generation == experiment.generation.model_copy(update={"guidance_scale": 7.5, "variant": "studio"})
    options = {"weight_decay": 0.1, "learning_rate": 1e-05, "crop_area": [0.3, 1.0]}
    assert best.training == experiment.training.model_copy(update={"batch_size": 64, "recipe_options": options})
    assert best.training.resolve_recipe().crop_area == (0.3, 1.0)
    assert (best.evaluation, best.variants, best.classes) == (
        experiment.evaluation,
        experiment.variants,
        experiment.classes,
    )


def test_the_number_of_images_is_that_of_the_full_run(reload):
    experiment = validate_experiment(OWN)
    assert reload(best_config(experiment, SETTING)).generation.images_per_class == 25
    assert reload(best_config(experiment, SETTING, 1300)).generation.images_per_class == 1300


def test_the_sweep_is_gone_and_only_own_values_are_written():
    written = yaml.safe_load(
        best_config(
            validate_experiment({"name": "x", "sweep": {"space": {"generation": {"variant": ["name", "attributes"]}}}}),
            {"generation.guidance_scale": 4.0},
        )
    )
    assert set(written) == {"name", "storage", "generation"}
    assert written["generation"] == {"guidance_scale": 4.0}


def test_the_name_says_best_and_stays_short_enough(reload):
    assert reload(best_config(validate_experiment({"name": "x"}), {})).name == "x-best"
    long = reload(best_config(validate_experiment({"name": "x" * 64}), {})).name
    assert len(long) == 64 and long.endswith("x-best")


def test_a_local_storage_root_stays_the_same_folder(reload, tmp_path, monkeypatch):
    experiment = validate_experiment({"storage": "runs"})
    monkeypatch.chdir(tmp_path)
    assert reload(best_config(experiment, {})).storage == experiment.storage


def test_real_images_that_a_sweep_does_not_train_on_are_left_out(reload):
    best = reload(best_config(validate_experiment({"training": {"real": "fashion_mnist", "num_epochs": 3}}), {}))
    assert (best.training.real, best.training.num_epochs) == (None, 3)


def test_a_value_that_is_set_back_to_its_default_still_counts(reload):
    """In a variant that extends another one, and in the probe of a built-in set, a default that is written differs
    from none."""
    variants = {
        "far": {"templates": ["{name}"], "negative_prompt": "blurred"},
        "near": {"extends": "far", "negative_prompt": ""},
    }
    sets = [{"name": "cars196", "probe": {"kind": "lbfgs"}}, {"name": "cars196", "probe": {}}]
    experiment = validate_experiment({"classes": ["cat"], "variants": variants, "evaluation": {"transfer_sets": sets}})
    best = reload(best_config(experiment, {"generation.variant": "near"}))
    wanted = experiment.generation.model_copy(update={"variant": "near"})
    prints = [
        resolve_clone_spec(generation, own.table, own.all_variants).fingerprint
        for generation, own in [(best.generation, best), (wanted, experiment)]
    ]
    assert prints[0] == prints[1]
    assert [each.probe.model_fields_set for each in best.evaluation.transfer_sets] == [{"kind"}, set()]


def test_the_experiment_itself_is_not_changed():
    experiment = validate_experiment(OWN)
    best_config(experiment, SETTING, 1300)
    assert experiment == validate_experiment(OWN)


@given(st.text())
@example("61.2 %\nname: other")
@example("\r\nsweep: {}\x85generation: 1\u2028x: 1\u2029y: 2\x00\x0b")
def test_a_hostile_note_stays_a_comment(note):
    experiment = validate_experiment({"name": "x"})
    text = best_config(experiment, SETTING, note=note)
    assert yaml.safe_load(text) == yaml.safe_load(best_config(experiment, SETTING))
    assert text.splitlines()[0].startswith("# ") and sum(line.startswith("#") for line in text.splitlines()) <= 2


def test_the_note_can_be_read():
    assert "\n# guidance 2: 61.2 %, 1,300 images per class\n" in best_config(
        validate_experiment(OWN), SETTING, note="guidance 2: 61.2 %,\n 1,300 images per class"
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.text("${}\\ a.:'\"#1e0_", min_size=1))
@example("1e3")
@example("${generation.seed}")
@example("\\${oc.env:HOME}\\")
@example("off")
@example("a ${b} \\\\")
def test_texts_come_back_as_they_were(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "texts.yaml"
    experiment = validate_experiment({"variants": {"own": {"templates": [text]}}})
    path.write_text(best_config(experiment, {}), encoding="utf-8")
    assert load_experiment(path).variants["own"].templates == [text]
