import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raysd.classifier.model import load_classifier, normalize
from raysd.data.images import decode_all
from raysd.data.real_datasets import encode_png, image_table, real_dataset
from raysd.errors import UserError
from raysd.evaluation import extraction as parts
from raysd.evaluation import features
from raysd.evaluation.extraction import Extraction, part_name
from raysd.evaluation.features import extract
from raysd.evaluation.metrics import predict
from raysd.evaluation.models import own_model
from raysd.storage.location import Location
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers

TINY = TrainingSettings(backbone_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, image_size=16)


@pytest.fixture
def tiny(tmp_path):
    root = Location(str(tmp_path / "root"))
    return root, own_model(root, train_classifiers(TrainingRun(root, (), 10, TINY))[0])


def test_features_are_those_of_the_model_and_are_kept_as_parquet(tiny):
    root, model = tiny
    digits = real_dataset("digits", "test", root)
    extraction = Extraction(root, model, digits, "features")
    extract([extraction])
    found, labels = extraction.read_features()
    arrays = decode_all(digits, 16)
    model, _ = load_classifier(Location(model.folder))
    with torch.inference_mode():
        expected, _ = model.features_and_logits(normalize(torch.from_numpy(arrays.images)))
    assert np.allclose(found, expected.numpy(), atol=1e-5) and labels.tolist() == arrays.labels.tolist()
    schema = pq.read_schema(extraction.folder.file(part_name(0)))
    assert schema.field("features").type.list_size == 8 and "index" in schema.names


def test_only_missing_parts_are_computed_again(tiny, monkeypatch):
    root, model = tiny
    digits = real_dataset("digits", "train", root)
    monkeypatch.setattr(parts, "SMALL_PART", 400)
    extraction = Extraction(root, model, digits, "features")
    extract([extraction])
    assert extraction.read_features()[1].tolist() == decode_all(digits, 8).labels.tolist()
    first = {name: extraction.folder.read(name) for name in extraction.folder.list_files()}
    assert len(first) == len(extraction.parts) == 3
    extraction.folder.delete(part_name(1))
    seen = []
    original = features.Forward.write_part
    monkeypatch.setattr(
        features.Forward,
        "write_part",
        lambda self, job, number, decoded=None: seen.append(number) or original(self, job, number, decoded),
    )
    extract([extraction])
    assert seen == [1]
    assert {name: extraction.folder.read(name) for name in extraction.folder.list_files()} == first


def test_another_classifier_set_or_reading_has_its_own_place(tiny):
    root, model = tiny
    train, test = (real_dataset("digits", split, root) for split in ("train", "test"))
    jobs = [
        Extraction(root, model, train, "features"),
        Extraction(root, model, test, "features"),
        Extraction(root, model, test, "predictions"),
    ]
    jobs.append(Extraction(root, model, test, "predictions", (0, 1)))
    assert len({job.folder.uri for job in jobs}) == 4


@pytest.mark.slow
def test_ray_data_actors_give_the_same_bytes_and_name_a_broken_image(tiny, tmp_path, ray_cluster, monkeypatch):
    root, model = tiny
    digits = real_dataset("digits", "test", root)
    here = Extraction(root, model, digits, "features")
    extract([here])
    there = Extraction(Location(str(tmp_path / "other")), model, digits, "features")
    monkeypatch.setattr(features, "HERE_PIXELS", 0)
    monkeypatch.setattr("raysd.data.broken._decode", lambda data: True)  # damaged after it was brought in
    images = [encode_png(np.zeros((8, 8, 3), dtype=np.uint8)), b"no image"]
    pq.write_table(image_table(images, np.arange(2), ["a", "b"]), tmp_path / "broken.parquet")
    broken = Extraction(root, model, real_dataset(str(tmp_path / "broken.parquet"), "test", root), "features")
    (error,) = extract([there, broken]).values()
    assert np.allclose(here.read_features()[0], there.read_features()[0], atol=1e-6)
    assert "of the set broken" in str(error) and "cannot be decoded" in str(error)


LOGITS = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0]])


def test_rank_counts_the_classes_that_come_first_and_constant_logits_are_no_hit():
    found = predict(LOGITS, torch.tensor([2, 0, 3]))
    assert found["prediction"].tolist() == [0, 3, 0]
    assert found["rank"].tolist() == [1, 3, 3]
    assert found["confidence"] == pytest.approx(LOGITS.softmax(1).max(1).values.numpy())


def test_masked_classes_cannot_be_predicted():
    found = predict(LOGITS[:2], torch.tensor([2, 1]), shared=(1, 2))
    assert found["shared_prediction"].tolist() == [2, 2] and found["shared_rank"].tolist() == [0, 1]
    assert found["prediction"].tolist() == [0, 3]


def test_each_class_of_a_group_counts_as_right():
    found = predict(LOGITS[:2], torch.tensor([1, 1]), groups=((1, 3),))
    assert found["prediction"].tolist() == [0, 1] and found["rank"].tolist() == [2, 0]


def test_logits_that_are_no_numbers_are_an_error():
    with pytest.raises(UserError, match="train it again"):
        predict(torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))
