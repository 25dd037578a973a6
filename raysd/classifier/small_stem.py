"""ResNets for images up to 64 px, as timm models: `small_resnet18` has a stem of one 3x3 convolution and no pooling.

The stem of `resnet18` takes an image to a quarter of its side before the first block, which leaves little of 32 pixels.
Importing this module makes the models known to timm:

    import raysd.classifier.small_stem
    timm.create_model("small_resnet18", stem_stride=2, num_classes=10)
"""

from typing import Any

import timm
import torch
from timm.models import load_pretrained, register_model

from raysd.classifier.architecture import SMALL, SMALL_RESNETS


def _register(name: str) -> None:
    def create(
        pretrained: bool = False, stem_stride: int = 1, pretrained_cfg: Any = None, **options: Any
    ) -> torch.nn.Module:
        """Build the model; `pretrained` loads the folder that `pretrained_cfg` names, no weights of ImageNet."""
        options = {key: value for key, value in options.items() if key not in ("pretrained_cfg_overlay", "cache_dir")}
        if pretrained:
            options.setdefault("num_classes", dict(pretrained_cfg)["num_classes"])
        model = timm.create_model(name, **options)
        model.conv1 = torch.nn.Conv2d(
            options.get("in_chans", 3), model.bn1.num_features, kernel_size=3, stride=stem_stride, padding=1, bias=False
        )
        model.maxpool = torch.nn.Identity()
        if pretrained_cfg is not None:  # the image preprocessing; else it would be that of the ResNet for ImageNet
            model.pretrained_cfg = model.default_cfg = dict(pretrained_cfg)
        if pretrained:
            load_pretrained(model, pretrained_cfg=model.pretrained_cfg, num_classes=model.num_classes)
        return model

    create.__name__, create.__module__ = SMALL + name, __name__
    register_model(create)


for _name in SMALL_RESNETS:
    _register(_name)
