import json

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

from raysd.classifier.architecture import Architecture
from raysd.classifier.model import (
    Projector,
    build_classifier,
    check_architecture,
    load_classifier,
    save_classifier,
    synchronize_norms,
)
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.recipe import built_in_recipes

PROJECTOR = {"layers": 1, "width": 32, "bottleneck": 8, "temperature": 0.1}
ARCHITECTURES = {
    "small": Architecture("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, 10, 32, 2),
    "small with a projector": Architecture(
        "resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, 10, 32, 1, PROJECTOR
    ),
    "convolutions": Architecture("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}, 7, 96, 2),
    "attention": Architecture("vit_tiny_patch16_224", {"img_size": 96, "depth": 2}, 7, 96, 2),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_timm_opens_what_raysd_wrote(tmp_path, name):
    architecture = ARCHITECTURES[name]
    model = build_classifier(architecture).eval().to(memory_format=torch.channels_last)
    save_classifier(
        Location(str(tmp_path)), model, architecture, {"class_names": [str(i) for i in range(architecture.num_classes)]}
    )
    images = torch.randn(2, 3, architecture.image_size, architecture.image_size)
    num_classes = 0 if architecture.projector else architecture.num_classes
    expected = model.backbone(images)
    folder = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    file = timm.create_model(
        architecture.timm_name,
        num_classes=num_classes,
        checkpoint_path=str(tmp_path / "model.safetensors"),
        **architecture.timm_options,
    )
    assert torch.allclose(folder(images), expected, atol=1e-6) and torch.allclose(
        file.eval()(images), expected, atol=1e-6
    )
    assert tuple(timm.data.resolve_model_data_config(folder)["mean"]) == (0.5, 0.5, 0.5)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == architecture.timm_name and config["num_classes"] == num_classes
    assert len(config.get("label_names", [])) == num_classes
    origin = [config["pretrained_cfg"].get(name) for name in ("tag", "license", "origin_url", "paper_ids")]
    assert origin == [None] * 4  # nobody else's weights
    again, _ = load_classifier(Location(str(tmp_path)))
    assert torch.allclose(again(images), model(images), atol=1e-5)
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3)(images).shape == (2, 3)


def test_the_record_comes_last_so_that_half_a_classifier_is_none(tmp_path):
    architecture = ARCHITECTURES["small"]
    save_classifier(Location(str(tmp_path)), build_classifier(architecture), architecture, {"seed": 0})
    assert json.loads((tmp_path / "record.json").read_text())["seed"] == 0
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert max(times, key=times.get) == "record.json"


def test_a_cosine_softmax_has_bounded_logits_and_sees_directions_only():
    head = Projector(12, 5, 3, 16, 4, 0.1).eval()
    features = torch.randn(6, 12)
    logits = head(features)
    assert logits.shape == (6, 5) and logits.abs().max() <= 10 + 1e-4
    assert torch.allclose(head(7 * features), logits, atol=1e-4)
    assert len(head.hidden) == 4 and head.hidden[-1].bias is None


def test_several_views_of_several_sizes_go_through_together():
    model = build_classifier(ARCHITECTURES["small with a projector"]).eval()
    large, small = torch.randn(2, 3, 32, 32), torch.randn(4, 3, 16, 16)
    assert torch.allclose(model(large, small), torch.cat([model(large), model(small)]), atol=1e-5)


def test_an_image_size_that_a_backbone_does_not_take_is_refused():
    with pytest.raises(UserError, match="does not run on 96 px with them"):
        check_architecture(Architecture("vit_tiny_patch16_224", {}, 7, 96, 2))


def test_the_sizes_of_a_recipes_other_views_are_checked_too():
    architecture = Architecture("vit_tiny_patch16_224", {"img_size": 96, "depth": 1}, 7, 96, 2)
    check_architecture(architecture)
    with pytest.raises(
        UserError,
        match=(
            "does not run on 48 px with them, which the recipe needs; vision transformers take it with "
            "dynamic_img_size: true"
        ),
    ):
        check_architecture(
            architecture, built_in_recipes()["paper"].model_copy(update={"local_size_share": 0.5}).view_sizes(96)
        )
    options = {"img_size": 96, "depth": 1, "dynamic_img_size": True}
    check_architecture(Architecture("vit_tiny_patch16_224", options, 7, 96, 2), [48])


def test_biases_norms_and_position_embeddings_have_no_weight_decay():
    model = build_classifier(Architecture("vit_tiny_patch16_224", {"img_size": 96, "depth": 1}, 7, 96, 2))
    groups = create_optimizer_v2(model, opt="adamw", lr=1, weight_decay=0.1).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free = {names[id(parameter)] for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    assert {
        "backbone.pos_embed",
        "backbone.cls_token",
        "backbone.norm.bias",
    } <= free and "backbone.head.weight" not in free


def test_synchronized_batch_norms_keep_their_activations():
    model = build_classifier(Architecture("efficientnet_b0", {}, 7, 32, 2)).eval()
    images = torch.randn(2, 3, 32, 32)
    before = model(images)
    converted = synchronize_norms(model).eval()
    assert any("SyncBatchNorm" in type(module).__name__ for module in converted.modules())
    assert torch.allclose(converted(images), before, atol=1e-5)
