import os
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raysd.classifier.model import load_classifier, normalize
from raysd.data.images import decode_all
from raysd.data.real_datasets import encode_png, image_table, real_dataset
from raysd.errors import UserError
from raysd.evaluation import evaluate
from raysd.evaluation.compare import Costs, compare_classifiers
from raysd.evaluation.evaluate import Evaluation, read_correct
from raysd.evaluation.models import own_model
from raysd.evaluation.settings import EvaluationSettings, ProbeSettings, TestSet, TransferSet
from raysd.prompts.table import load_class_table
from raysd.storage.location import Location
from raysd.storage.rows import ACCURACY, COMPARISON, FAILED, read_rows
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers

SETTINGS = EvaluationSettings(test_set="digits", transfer_sets=[TransferSet(name="digits", shots=5)])
TABLE = load_class_table([str(digit) for digit in range(10)])


@pytest.fixture
def random_classifier(tmp_path):
    root = Location(str(tmp_path))
    run = TrainingRun(
        root,
        (),
        10,
        TrainingSettings(backbone_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, image_size=16),
    )
    return root, train_classifiers(run)[0]


def test_the_accuracy_equals_a_plain_loop_to_the_image(random_classifier):
    root, classifier = random_classifier
    row = next(row for row in Evaluation(root, SETTINGS, TABLE, "cmd").measure(classifier) if row["role"] == "test")
    model, _ = load_classifier(root.child("classifiers", classifier))
    test = decode_all(real_dataset("digits", "test", root), 16)
    with torch.inference_mode():
        correct = sum(
            int(model(normalize(torch.from_numpy(test.images[i : i + 1]))).argmax()) == test.labels[i]
            for i in range(len(test.labels))
        )
    assert row["value"] == pytest.approx(100 * correct / len(test.labels))
    assert row["num_images"] == len(test.labels)


def test_one_spec_one_result_row_and_a_second_measurement_adds_none(random_classifier):
    root, classifier = random_classifier
    first = Evaluation(root, SETTINGS, TABLE, "raysd evaluate").measure(classifier)
    again = Evaluation(root, SETTINGS, TABLE, "raysd evaluate").measure(classifier)
    assert first == again
    stored = read_rows(root, ACCURACY)
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


def test_a_test_row_holds_more_than_top1(random_classifier):
    root, classifier = random_classifier
    row = next(row for row in Evaluation(root, SETTINGS, TABLE, "").measure(classifier) if row["role"] == "test")
    assert row["value"] <= row["top5"] <= 100 and 0 <= row["calibration_error"] <= 100
    assert row["mean_per_class"] == pytest.approx(np.mean(row["per_class"]), abs=1e-6)
    assert sum(pair["count"] for pair in row["confusions"]) <= row["num_images"] and "masked" not in row
    assert 100 * read_correct(root, row).mean() == pytest.approx(row["value"])


def test_a_transfer_row_says_how_its_probe_was_chosen_and_averages_its_seeds(random_classifier):
    root, classifier = random_classifier
    probe = ProbeSettings(trials=4)
    settings = EvaluationSettings(
        transfer_sets=[
            TransferSet(name="digits", shots=[1, 4], probe=probe, seeds=[0, 1]),
            {"name": "digits", "probe": {"kind": "knn"}},
        ]
    )
    rows = Evaluation(root, settings, TABLE, "").measure(classifier)
    assert [(row["shots"], row["probe"]["kind"]) for row in rows] == [(1, "lbfgs"), (4, "lbfgs"), (None, "knn")]
    four = rows[1]
    assert (
        four["value"] == pytest.approx(np.mean([seed["top1"] for seed in four["probe_seeds"]]))
        and len(four["probe_seeds"]) == 2
    )
    assert 100 * read_correct(root, four).mean() == pytest.approx(four["value"])


def own_digits(root, tmp_path, keep):
    """The digits' test images of some classes, in a folder per class."""
    digits = real_dataset("digits", "test", root)
    rows = digits.read_rows(digits.files()[0])
    for number, (image, label) in enumerate(zip(rows["image"].to_pylist(), rows["label"].to_pylist(), strict=True)):
        if label in keep:
            folder = tmp_path / "own" / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(image["bytes"])
    return str(tmp_path / "own")


def test_a_subset_is_read_twice_with_and_without_the_other_classes(random_classifier, tmp_path):
    root, classifier = random_classifier
    folder = own_digits(root, tmp_path, (3, 5, 8))
    with pytest.raises(UserError, match="has no image of 7 of the 10 classes: 0, 1, 2, 4, 6, "):
        Evaluation(root, EvaluationSettings(test_sets=[folder]), TABLE, "")
    settings = EvaluationSettings(test_sets=[TestSet(name=folder, shared_classes=True)])
    (row,) = Evaluation(root, settings, TABLE, "").measure(classifier)
    assert row["role"] == "shift" and row["masked"]["num_classes"] == 3
    assert (
        row["masked"]["value"] >= row["value"]
        and row["masked"]["low"] <= row["masked"]["value"] <= row["masked"]["high"]
    )
    assert [value is None for value in row["per_class"]] == [label not in (3, 5, 8) for label in range(10)]
    (tmp_path / "own").rename(tmp_path / "renamed")
    settings = EvaluationSettings(test_sets=[TestSet(name=str(tmp_path / "renamed"), shared_classes=True)])
    (again,) = Evaluation(root, settings, TABLE, "").measure(classifier)
    assert again == {**row, "dataset": "renamed-whole"}, "the row is found, under the name that was given"


def test_images_of_other_classes_are_left_out_and_counted(random_classifier, tmp_path):
    root, classifier = random_classifier
    folder = own_digits(root, tmp_path, (3, 5, 8))
    table = load_class_table(["3", "5", *(f"other {i}" for i in range(8))])
    with pytest.raises(UserError, match="'8'"):
        Evaluation(root, EvaluationSettings(test_sets=[folder]), table, "")
    settings = EvaluationSettings(test_sets=[TestSet(name=folder, shared_classes=True)])
    (row,) = Evaluation(root, settings, table, "").measure(classifier)
    whole = real_dataset("digits", "test", root)
    labels = decode_all(whole, 8).labels
    assert row["num_left_out"] == (labels == 8).sum() and row["num_images"] == (labels == 3).sum() + (labels == 5).sum()


def broken_transfer_set(tmp_path):
    """Its test half has a class of a single image, so its training half lacks it or cannot spare one."""
    image = encode_png(np.zeros((8, 8, 3), dtype=np.uint8))
    labels = np.array([0] * 8 + [1] * 8 + [2])
    pq.write_table(image_table([image] * len(labels), labels, ["a", "b", "c"]), tmp_path / "rare.parquet")
    return str(tmp_path / "rare.parquet")


def test_a_probe_that_fails_is_listed_and_tried_again_and_the_others_are_measured(random_classifier, tmp_path):
    root, classifier = random_classifier
    settings = EvaluationSettings(transfer_sets=[broken_transfer_set(tmp_path), TransferSet(name="digits", shots=5)])
    evaluation = Evaluation(root, settings, TABLE, "")
    failed, good = evaluation.measure(classifier)
    assert failed["value"] is None and "rare" in failed["dataset"] and "c" in failed["error"]
    assert good["value"] > 0 and not evaluation.is_measured(classifier)
    assert [row["fingerprint"] for row in read_rows(root, ACCURACY)] == [good["fingerprint"]]


def test_a_set_that_cannot_be_fetched_stops_all_or_is_listed_as_skipped(tmp_path):
    root = Location(str(tmp_path))
    sets = [TransferSet(name="digits"), TransferSet(name="cog_l1")]
    with pytest.raises(UserError, match="cog_l1"):
        Evaluation(root, EvaluationSettings(transfer_sets=sets), TABLE, "")
    evaluation = Evaluation(root, EvaluationSettings(transfer_sets=sets, skip_absent=True), TABLE, "")
    assert [measured.images.name for measured in evaluation.sets] == ["digits-test"]
    assert list(evaluation.skipped) == ["cog_l1"] and "path" in evaluation.skipped["cog_l1"]


@pytest.mark.slow
def test_probes_on_ray_give_the_rows_of_this_process(random_classifier, ray_cluster, monkeypatch):
    root, classifier = random_classifier
    settings = EvaluationSettings(
        transfer_sets=[TransferSet(name="digits", shots=shots, probe=ProbeSettings(trials=3)) for shots in (3, 5)]
    )
    model, evaluation = own_model(root, classifier), Evaluation(root, settings, TABLE, "")
    here = evaluation.measure_all([model], quiet=True)
    for row in here:
        root.child("results", "accuracy").delete(f"{row['fingerprint']}.json")
    monkeypatch.setattr(evaluate, "PARALLEL_IMAGES", 0)
    there = evaluation.measure_all([model])
    assert [(row["shots"], row["value"]) for row in there] == [(row["shots"], row["value"]) for row in here]


def cost(seconds, device="A100"):
    each = None if seconds is None else seconds / 600
    return {"num_images": 600, "device": device, "seconds_per_image": each, "seconds": seconds, "source": "clone"}


@pytest.mark.parametrize(
    ("costs", "num_seeds", "why"),
    [
        (Costs(cost(6.0), cost(12.0)), 2, None),
        (Costs(cost(6.0), cost(12.0)), 1, "a setting has one seed alone"),
        (Costs(cost(6.0), cost(None)), 3, "was not measured; raysd benchmark"),
        (Costs(cost(6.0), cost(12.0, "V100")), 3, "on different devices"),
        (Costs(cost(6.0), cost(12.0), "the settings of training differ too"), 3, "training differ too"),
    ],
)
def test_a_cost_goes_with_a_verdict_only_where_nothing_else_differs(costs, num_seeds, why):
    refusal = costs.refusal(num_seeds)
    assert (refusal is None) if why is None else (why in refusal)
    assert costs.share == (0.5 if costs.b == cost(12.0) else None)


def test_two_settings_are_compared_image_by_image(random_classifier):
    root, classifier = random_classifier
    run = TrainingRun(
        root,
        (),
        10,
        TrainingSettings(backbone_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, image_size=16, seeds=[1]),
    )
    evaluation = Evaluation(root, SETTINGS, TABLE, "")
    ours, theirs = evaluation.measure(classifier), evaluation.measure(train_classifiers(run)[0])
    rows = compare_classifiers(evaluation, ours, theirs, "cmd")
    assert [row["role"] for row in rows] == ["test", "transfer"]
    for row, a, b in zip(rows, ours, theirs, strict=True):
        assert (
            row["difference"] == pytest.approx(a["value"] - b["value"])
            and row["low"] <= row["difference"] <= row["high"]
        )
        assert row["verdict"] in ("better", "worse", "within noise")
        assert row["a"].keys() == row["b"].keys() == {"top1", "rows"}, "as version 0.1.0 wrote them"
    same = compare_classifiers(evaluation, ours, ours, "cmd", costs=Costs(cost(6.0), cost(12.0)))
    assert {row["verdict"] for row in same} == {"within noise"} and {row["cost_share"] for row in same} == {0.5}
    side = same[0]["b"]
    assert side["low"] < side["top1"] < side["high"] and side["generation"]["seconds"] == 12
    assert "one seed alone" in same[0]["refused"]
    assert len(read_rows(root, COMPARISON)) == 4


def test_an_image_that_cannot_be_decoded_fails_its_own_set_alone(random_classifier, tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.data.broken._decode", lambda data: True)  # damaged after it was brought in
    root, classifier = random_classifier
    images = [encode_png(np.zeros((8, 8, 3), dtype=np.uint8))] * 9 + [b"no image"]
    pq.write_table(image_table(images, np.arange(10), TABLE.names), tmp_path / "broken.parquet")
    evaluation = Evaluation(
        root, EvaluationSettings(test_sets=[str(tmp_path / "broken.parquet")], test_set="digits"), TABLE, ""
    )
    good, failed = evaluation.measure(classifier)
    assert good["value"] is not None and failed["value"] is None and "cannot be decoded" in failed["error"]
    assert [row["fingerprint"] for row in read_rows(root, FAILED)] == [failed["fingerprint"]]


def test_a_classifier_of_other_classes_is_refused(random_classifier):
    root, classifier = random_classifier
    table = load_class_table([str(digit) for digit in range(11)])
    sets = EvaluationSettings(test_sets=[TestSet(name="digits", shared_classes=True)])
    with pytest.raises(UserError, match="has 10 classes; name the class table it was made for"):
        Evaluation(root, sets, table, "").measure(classifier)


def raise_on_few_shots(monkeypatch, probe):
    """Let probes of a number of shots raise what nobody foresaw."""

    def run(learn, check, settings, seed, shots):
        if shots == 3:
            raise RuntimeError("CUDA out of memory")
        return probe(learn, check, settings, seed, shots)

    monkeypatch.setattr(evaluate, "run_probe", run)


def test_a_probe_that_raises_takes_no_other_one_with_it_and_is_tried_again(random_classifier):
    root, classifier = random_classifier
    settings = SETTINGS.model_copy(
        update={"transfer_sets": [TransferSet(name="digits", shots=shots) for shots in (3, 5)]}
    )
    measured = Evaluation(root, settings, TABLE, "cmd")
    with pytest.MonkeyPatch.context() as patch:
        raise_on_few_shots(patch, evaluate.run_probe)
        rows = measured.measure(classifier)
    assert [row["value"] is None for row in rows] == [False, True, False]
    assert [row["error"] for row in read_rows(root, FAILED)] == ["RuntimeError: CUDA out of memory"]
    assert all(row["value"] is not None for row in measured.measure(classifier))


def test_a_set_whose_features_cannot_be_computed_takes_no_other_one_with_it(random_classifier, monkeypatch):
    from raysd.evaluation.features import Forward

    root, classifier = random_classifier
    write = Forward.write_part

    def failing(self, extraction, number, decoded=None):
        if extraction.kind == "features":
            raise RuntimeError(f"CUDA out of memory, {number + id(extraction)} bytes")
        return write(self, extraction, number, decoded)

    monkeypatch.setattr(Forward, "write_part", failing)
    rows = Evaluation(root, SETTINGS, TABLE, "cmd").measure(classifier)
    assert [row["value"] is None for row in rows] == [False, True] and "CUDA out of memory" in rows[1]["error"]
    (row,) = Forward()(
        {"job": np.array([0]), "part": np.array([0])},
        [evaluate.extractions(root, own_model(root, classifier), Evaluation(root, SETTINGS, TABLE, "").sets[1])[0]],
    )["failure"]
    assert row.startswith("RuntimeError: CUDA out of memory")


@pytest.mark.slow
def test_a_probe_whose_process_dies_takes_no_other_one_with_it(ray_cluster, random_classifier, monkeypatch):
    root, classifier = random_classifier
    few = SETTINGS.model_copy(update={"transfer_sets": [TransferSet(name="digits", shots=shots) for shots in (3, 5)]})
    evaluation, model = Evaluation(root, few, TABLE, "cmd"), own_model(root, classifier)
    evaluation.measure(classifier)  # so that there are features

    def dying(root, model, measured, command, names):
        if measured.shots == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"fingerprint": "aa", "value": 1.0}

    monkeypatch.setattr(evaluate, "_measure_row_alone", dying)
    monkeypatch.setattr(evaluate, "MAX_DEATHS", 1)
    rows = list(evaluate._rows_on_ray([(root, model, each, "cmd", []) for each in evaluation.sets[1:]]))
    assert sorted(row["value"] is None for row in rows) == [False, True]
    assert [row["shots"] for row in rows if row["value"] is None] == [3]
