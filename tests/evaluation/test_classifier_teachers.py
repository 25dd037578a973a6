"""Classifiers as teachers: which are found, which do not fit, and whether they ever saw a real image."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from raysd.classifier.architecture import Architecture
from raysd.classifier.model import build_classifier, save_classifier
from raysd.config import load_experiment
from raysd.curation.settings import ScoringSettings
from raysd.errors import UserError
from raysd.evaluation.teachers import find_teacher, saw_real
from raysd.prompts.table import load_class_table
from raysd.resolve import find_teachers
from raysd.storage.location import Location

NAMES = ["cat", "dog", "cow"]
CLONE = {"kind": "clone", "name": "name, g=2"}


def save(folder, trained_on=CLONE, names=NAMES, seed=0, **more):
    """A classifier with random weights in a folder of raysd, or in one of timm's where it was trained on nothing."""
    torch.manual_seed(seed)
    architecture = Architecture("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, len(names), 16, 1)
    model = build_classifier(architecture).eval()
    about = {"trained_on": trained_on, "seed": seed, "class_names": names, "fingerprint": f"{seed:016x}", **more}
    save_classifier(Location(str(folder)), model, architecture, about)
    if trained_on is None:
        (folder / "record.json").unlink()
    return model


def encoded(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def found(tmp_path, name):
    return find_teacher("scoring.teachers.0", str(name), Location(str(tmp_path)), load_class_table(NAMES))


def test_a_classifier_of_raysd_is_found_by_its_name_and_by_its_folder(tmp_path):
    model = save(tmp_path / "classifiers" / f"{7:016x}", seed=7)
    by_name, by_folder = found(tmp_path, f"{7:016x}"), found(tmp_path, tmp_path / "classifiers" / f"{7:016x}")
    assert by_name.fingerprint == by_folder.fingerprint == f"{7:016x}" and by_name.saw_real == "no"
    images = [encoded(seed) for seed in range(5)]
    logs = by_name.load().log_probabilities(images)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(io.BytesIO(data)))) for data in images])
    with torch.inference_mode():
        expected = model(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).log_softmax(1)
    np.testing.assert_allclose(logs, expected, atol=1e-4)
    np.testing.assert_allclose(by_folder.load().log_probabilities(images[:2]), logs[:2], atol=1e-5)


def test_a_timm_classifier_of_as_many_classes_teaches_and_nobody_knows_what_it_saw(tmp_path):
    save(tmp_path / "timm", trained_on=None)
    teacher = found(tmp_path, tmp_path / "timm")
    assert teacher.saw_real == "unknown" and teacher.load().log_probabilities([encoded(0)]).shape == (1, 3)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path):
    save(tmp_path / "two", names=NAMES[:2])
    save(tmp_path / "order", names=NAMES[::-1])
    save(tmp_path / "timm_two", trained_on=None, names=NAMES[:2])
    for name, message in {
        tmp_path / "two": r"tells 2 classes \(cat, dog, ...\) apart, the class table has 3",
        tmp_path / "order": "use one of the same classes in the same order",
        tmp_path / "timm_two": "has 2 classes, the class table 3",
        "0123456789abcdef": "no finished classifier of that name in",
        "./absent": "no such folder",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            found(tmp_path, name)
        assert caught.value.field == "scoring.teachers.0" and "\n" not in str(caught.value)


def test_a_teacher_saw_real_images_if_it_or_one_of_its_teachers_learned_from_some():
    real = {"kind": "real", "name": "fashion_mnist"}
    assert saw_real(CLONE) == saw_real({"kind": "random", "name": ""}) == "no"
    assert saw_real(real) == saw_real({**CLONE, "parts": [CLONE, real]}) == "yes"
    assert saw_real({**CLONE, "teacher": {"saw_real": "unknown"}}) == "unknown"
    assert saw_real({**CLONE, "parts": [CLONE, {**CLONE, "teacher": {"saw_real": "yes"}}]}) == "yes"
    assert saw_real({"kind": "pretrained", "name": "timm/resnet50"}) == "unknown"


def test_an_experiment_that_cannot_teach_yet_is_refused_with_what_is_missing(tmp_path):
    path = tmp_path / "teaching.yaml"
    path.write_text(f"storage: {tmp_path / 'runs'}\nclasses: [cat, dog, cow]\ngeneration: {{model: dummy}}\n")
    words = f"{path} generation.guidance_scale=2"

    def teachers(*overrides):
        return find_teachers(load_experiment(path, [f'scoring.teachers=["{words}"]', *overrides]))

    with pytest.raises(UserError, match=r"teachers\.0.*its generation\.images_per_class: the clone does not have"):
        teachers()
    words += f' scoring.teachers=["{path}"] training.recipe_options.soft_weight=0.5'
    experiment = load_experiment(path).model_copy(update={"scoring": ScoringSettings(teachers=[words])})
    with pytest.raises(UserError, match="its classifiers have teachers themselves, by an experiment file"):
        find_teachers(experiment)
