"""A classifier: a timm backbone with a linear head or a projector, and its folder on disk.

The folder is what timm and the Hugging Face hub expect: `model.safetensors` and `config.json`, so that
`timm.create_model("local-dir:<folder>", pretrained=True)` opens it. `head.safetensors` holds a projector, and
`record.json`, written last, raysd's own record with the metrics.
"""

import inspect
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load, save
from timm.layers import convert_sync_batchnorm
from timm.models import save_for_hf
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from raysd.classifier import small_stem  # noqa: F401 - makes the ResNets for small images known to timm
from raysd.classifier.architecture import CONFIG, HEAD, RECORD, WEIGHTS, Architecture
from raysd.errors import UserError, meant
from raysd.storage.location import Location


class Projector(nn.Module):
    """Pooled features float [B, D] to logits [B, K].

    Args:
        num_features: D.
        num_classes: K.
        layers: hidden layers.
        width: of each hidden layer.
        bottleneck: width of the bottleneck.
        temperature: of the softmax.
    """

    def __init__(
        self, num_features: int, num_classes: int, layers: int, width: int, bottleneck: int, temperature: float
    ) -> None:
        super().__init__()
        widths = [num_features] + [width] * layers
        hidden = [
            nn.Sequential(nn.Linear(one, other), nn.BatchNorm1d(other), nn.GELU()) for one, other in pairwise(widths)
        ]
        self.hidden = nn.Sequential(*hidden, nn.Linear(width, bottleneck, bias=False))
        self.directions = nn.Parameter(torch.empty(num_classes, bottleneck))
        self.temperature = temperature
        nn.init.normal_(self.directions, std=0.01)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the bottleneck makes of features, at unit length, float [B, bottleneck]."""
        return functional.normalize(self.hidden(functional.normalize(features, dim=1)), dim=1)

    def classify(self, projections: torch.Tensor) -> torch.Tensor:
        """Return cosines over the temperature, in [-1 / temperature, 1 / temperature]."""
        return functional.linear(projections, functional.normalize(self.directions, dim=1)) / self.temperature

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits of features."""
        return self.classify(self.project(features))


MEAN = STD = 127.5
SEEN = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0}
ORIGIN = ("tag", "license", "origin_url", "paper_ids")  # timm knows them of its own weights, not of those that we write


class Classifier(torch.nn.Module):
    """A backbone and, with a projector, a head of its own."""

    def __init__(self, backbone: torch.nn.Module, head: Projector | None = None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, *views: torch.Tensor) -> torch.Tensor:
        """Return logits [sum of all B, K] of one or several batches [B, 3, S, S], each of its own size."""
        outputs = torch.cat([self.backbone(view) for view in views])
        return outputs if self.head is None else self.head(outputs)

    def logits_and_projections(self, *views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [sum of all B, K] and the projector's output at unit length, [sum of all B, D], of one or
        several batches [B, 3, S, S]; only with a projector."""
        assert self.head is not None, "without a projector there are no projections"
        projections = self.head.project(torch.cat([self.backbone(view) for view in views]))
        return self.head.classify(projections), projections

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that the backbone excludes from weight decay, such as position embeddings; timm's
        optimizers ask for them."""
        own: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in own}

    def features_and_logits(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return pooled features [B, D], before any projector, and logits [B, K] of images [B, 3, S, S]."""
        if self.head is not None:
            features = self.backbone(images)
            return features, self.head(features)
        features = self.backbone.forward_head(self.backbone.forward_features(images), pre_logits=True)
        return features, self.backbone.get_classifier()(features)


def check_architecture(architecture: Architecture, other_sizes: Iterable[int] = ()) -> None:
    """Check that a classifier can be built and run, by building it and passing it one empty image.

    Args:
        architecture: of the classifier.
        other_sizes: sides in pixels of further views, as local crops.

    Raises:
        UserError: timm does not know the backbone, or the backbone does not take the options or one of the sizes.
    """
    _check_name(architecture.backbone)
    model = build_classifier(architecture).eval()
    for size in dict.fromkeys((architecture.image_size, *other_sizes)):
        try:
            with torch.inference_mode():
                model(torch.zeros(1, 3, size, size))
        except Exception as error:
            shown = {"image_size": architecture.image_size, **architecture.backbone_options}
            other = (
                ", which the recipe needs; vision transformers take it with dynamic_img_size: true"
                if size != architecture.image_size
                else ""
            )
            remedy = f"{architecture.backbone} does not run on {size} px with them{other} ({_reason(error)})"
            raise UserError("training.backbone_options", shown, remedy) from None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _check_name(backbone: str) -> None:
    if not timm.is_model(backbone):
        close = get_close_matches(backbone, timm.list_models(), n=3) or timm.list_models(f"*{backbone[:6]}*")[:3]
        hint = f"; close to it: {', '.join(close)}" if close else "; see timm.list_models()"
        raise UserError("training.backbone", backbone, f"timm has no such model{hint}")


def build_classifier(architecture: Architecture) -> Classifier:
    """Return a classifier with random weights.

    Raises:
        UserError: options that the backbone does not take.
    """
    options, projector = architecture.timm_options, architecture.projector
    num_classes = architecture.num_classes if projector is None else 0
    try:
        backbone = timm.create_model(architecture.timm_name, num_classes=num_classes, **options)
    except Exception as error:  # backbones fail in many ways on options that do not fit
        why = f"{architecture.backbone} does not take them ({_reason(error)}{_meant_option(architecture, error)})"
        raise UserError("training.backbone_options", options, why) from None
    if projector is None:
        return Classifier(backbone)
    return Classifier(backbone, Projector(backbone.head_hidden_size, architecture.num_classes, **projector))


def _meant_option(architecture: Architecture, error: Exception) -> str:
    """Return the option that was meant, if a class of the backbone's module does not know the name of one."""
    found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    places = (sys.modules[timm.model_entrypoint(architecture.timm_name).__module__], timm.models)
    kinds = [getattr(place, found[1]) for place in places if hasattr(place, found[1])] if found else []
    return meant(found[2], inspect.signature(kinds[0]).parameters) if found and kinds else ""


def synchronize_norms(model: Classifier) -> Classifier:
    """Synchronize batch norms over all workers; timm's way keeps the activations that some of its norms have in
    them."""
    synchronised: Classifier = convert_sync_batchnorm(model)
    return synchronised


class SmallConv2d(nn.Conv2d):
    """A convolution that computes in float32 where some of its taps see nothing but padding.

    In bfloat16 on a CPU (torch 2.14), the gradients of these taps, which should be zero, are at times not finite, and
    another value in each process. The taps have no effect, but clipping the gradient's norm takes them to all weights.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the convolved images [N, channels, height, width]."""
        if not _has_idle_taps(self, images.shape[-2:]):
            return super().forward(images)
        with torch.autocast(images.device.type, enabled=False):
            return super().forward(images.float())


def _has_idle_taps(module: nn.Conv2d, size: Sequence[int]) -> bool:
    """Return whether a tap of the kernel sees only padding, at every place of images of this height and width."""
    paddings = (module.padding,) * 2 if isinstance(module.padding, str) else module.padding
    for side, kernel, stride, padding, dilation in zip(
        size, module.kernel_size, module.stride, paddings, module.dilation, strict=True
    ):
        reach = dilation * (kernel - 1)
        named = {"same": (reach // 2, reach - reach // 2), "valid": (0, 0)}
        before, after = named[padding] if isinstance(padding, str) else (padding, padding)
        outputs = (side + before + after - reach - 1) // stride + 1
        starts = [place * stride - before for place in range(outputs)]
        if any(all(not 0 <= start + tap * dilation < side for start in starts) for tap in range(kernel)):
            return True
    return False


def compute_small_in_float32(model: nn.Module) -> None:
    """Make the convolutions of a model `SmallConv2d`; weights and their names stay."""
    for module in model.modules():
        if type(module) is nn.Conv2d and max(module.kernel_size) > 1:
            module.__class__ = SmallConv2d


@torch.no_grad()
def lone_norms(model: Classifier, views: Sequence[torch.Tensor]) -> list[nn.Module]:
    """Return the batch norms that would get one value of each channel of these views, of which they can take no
    variance. One that is synchronized with other workers gets their values, too."""
    found: list[nn.Module] = []

    def note(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            found.append(norm)

    is_shared = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm)]
    own = [norm for norm in norms if not (is_shared and isinstance(norm, nn.SyncBatchNorm))]
    handles = [norm.register_forward_pre_hook(note) for norm in own]
    model.eval()(*views)
    model.train()
    for handle in handles:
        handle.remove()
    return found


@contextmanager
def running_statistics(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Let some batch norms take their running mean and variance, as in evaluation, and leave them as they are."""
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def normalize(images: torch.Tensor, mean: float | torch.Tensor = MEAN, std: float | torch.Tensor = STD) -> torch.Tensor:
    """Convert uint8 [B, 3, S, S] to float32, by default in [-1, 1], channels last; `mean` and `std` are of values from
    0 to 255."""
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


def save_classifier(folder: Location, model: Classifier, architecture: Architecture, record: dict[str, Any]) -> None:
    """Write weights and configuration as timm does, then the record, which marks the classifier as complete.

    The backbone's tensors become contiguous, since safetensors takes no others.
    """
    config: dict[str, Any] = {"pretrained_cfg": {"architecture": architecture.timm_name, **dict.fromkeys(ORIGIN)}}
    if model.head is None and "class_names" in record:
        config["label_names"] = record["class_names"]
    seen = {"input_size": (3, architecture.image_size, architecture.image_size), **SEEN}
    backbone = model.backbone.to(memory_format=torch.contiguous_format)
    with tempfile.TemporaryDirectory() as place:
        save_for_hf(backbone, place, config, architecture.timm_options, safe_serialization=True, data_config=seen)
        for name in (WEIGHTS, CONFIG):
            folder.write(name, Path(place, name).read_bytes())
    if model.head is not None:
        folder.write(HEAD, save({name: tensor.detach().cpu() for name, tensor in model.head.state_dict().items()}))
    folder.write(
        RECORD, json.dumps({"architecture": vars(architecture), **record}, indent=2, sort_keys=True).encode() + b"\n"
    )


def load_classifier(folder: Location) -> tuple[Classifier, Architecture]:
    """Return a finished classifier in evaluation mode."""
    architecture = Architecture(**json.loads(folder.read(RECORD))["architecture"])
    model = build_classifier(architecture)
    model.backbone.load_state_dict(load(folder.read(WEIGHTS)))
    if model.head is not None:
        model.head.load_state_dict(load(folder.read(HEAD)))
    return model.eval().to(memory_format=torch.channels_last), architecture
