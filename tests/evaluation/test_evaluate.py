import numpy as np
import pytest
import torch

from raysd.evaluation.evaluate import Evaluation
from raysd.evaluation.features import extract
from raysd.evaluation.settings import EvaluationSettings, TransferSet
from raysd.prompts.table import load_class_table
from raysd.storage.location import Location
from raysd.storage.results import read_results
from raysd.training.classifier import load_classifier, normalise
from raysd.training.pictures import decode_all
from raysd.training.real_sets import real_set
from raysd.training.settings import TrainingSettings
from raysd.training.train import TrainingRun, train_classifiers

SETTINGS = EvaluationSettings(test_set="digits", transfer_sets=[TransferSet(name="digits", shots=5)])
TABLE = load_class_table([str(digit) for digit in range(10)])


@pytest.fixture
def random_classifier(tmp_path):
    root = Location(str(tmp_path))
    run = TrainingRun(root, (), 10, TrainingSettings(backbone_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, image_size=16))
    return root, train_classifiers(run)[0]


def test_the_accuracy_equals_a_plain_loop_to_the_picture(random_classifier):
    root, classifier = random_classifier
    row = next(row for row in Evaluation(root, SETTINGS, TABLE, "cmd").measure(classifier) if row["role"] == "test")
    model, _ = load_classifier(root.child("classifiers", classifier))
    test = decode_all(real_set("digits", "test", root), 16)
    with torch.inference_mode():
        correct = sum(int(model(normalise(torch.from_numpy(test.images[i : i + 1]))).argmax()) == test.labels[i] for i in range(len(test.labels)))
    assert row["value"] == pytest.approx(100 * correct / len(test.labels))
    assert row["num_images"] == len(test.labels)


def test_features_and_logits_are_those_of_the_model(random_classifier):
    root, classifier = random_classifier
    model, _ = load_classifier(root.child("classifiers", classifier))
    images = np.random.default_rng(0).integers(0, 255, (7, 3, 16, 16), dtype=np.uint8)
    features, logits = extract(model, images)
    with torch.inference_mode():
        assert np.allclose(logits, model(normalise(torch.from_numpy(images))).numpy(), atol=1e-5)
    assert features.shape == (7, 8)


def test_one_spec_one_result_row_and_a_second_measurement_adds_none(random_classifier):
    root, classifier = random_classifier
    first = Evaluation(root, SETTINGS, TABLE, "raysd evaluate").measure(classifier)
    again = Evaluation(root, SETTINGS, TABLE, "raysd evaluate").measure(classifier)
    assert first == again
    stored = read_results(root, "accuracy")
    assert sorted(row["fingerprint"] for row in stored) == sorted({row["fingerprint"] for row in first})
    for row in stored:
        assert row["command"] == "raysd evaluate" and row["classifier"] == classifier and row["versions"]["torch"]
        assert row["low"] <= row["value"] <= row["high"]


def test_is_measured_tells_whether_all_rows_are_there(random_classifier):
    root, classifier = random_classifier
    evaluation = Evaluation(root, SETTINGS, TABLE, "")
    assert not evaluation.is_measured(classifier)
    evaluation.measure(classifier)
    assert evaluation.is_measured(classifier)


def test_a_classifier_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished classifier"):
        Evaluation(Location(str(tmp_path)), SETTINGS, TABLE, "").measure("00")
