"""Denoising steps that run only the ends of a U-Net and take its deep features from an earlier step.

Of each `interval` calls of the denoiser the first runs all layers, and keeps what enters the shallow part of the upward
path. The others run `depth` layers of the downward path and those of the upward path that read their skip connections,
and take what was kept for the rest. Layers that are left out are replaced one by one, and the U-Net's own `forward`
runs in all steps.

Which calls run in full depends on their number alone, never on the images, so an image does not depend on its
neighbors. Caches that compare features from step to step decide by a mean over the batch, and would break that.

Source: Ma et al., DeepCache: Accelerating diffusion models for free (CVPR 2024).
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raysd.diffusion.family import Family

if TYPE_CHECKING:
    from torch import Tensor, nn

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline")
"""Pipelines that call their denoiser once for all rows of a step. One that makes a call for each pass of guidance would
mix the features of both."""
UNET = "UNet2DConditionModel"
BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2DCrossAttn"),
}


def cannot_cache(family: Family, folder: Path, depth: int) -> str | None:
    """Return why a model cannot generate with cached steps, and what to do; None when it can.

    Args:
        family: of the checkpoint.
        folder: of the checkpoint.
        depth: layers of the downward path that run in every step.
    """
    if family.pipeline not in PIPELINES:
        return f"{family.pipeline} is not known to call a U-Net once a step; leave it out"
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    if (kind := config.get("_class_name")) != UNET:
        return f"the model's denoiser is a {kind}, and only layers of {UNET} can be skipped; leave it out"
    for field, known in BLOCKS.items():
        names = config.get(field, known[-1])
        for name in [names] if isinstance(names, str) else names or [None]:
            if name not in known:
                return f"the model's U-Net has a block of the kind {name}, which cannot be skipped; leave it out"
    most = max_depth(config)
    return f"the model's U-Net has {most} layers on the way down; use at most this depth" if depth > most else None


def max_depth(config: dict[str, Any]) -> int:
    """Return the number of layers on the way down of a U-Net with this config, downsampling ones included."""
    num_blocks, layers = len(config["down_block_types"]), config["layers_per_block"]
    return (sum(layers) if isinstance(layers, list) else layers * num_blocks) + num_blocks - 1


@dataclass(frozen=True, eq=False)
class Skipped:
    """A part of a U-Net that cached calls leave out."""

    module: "nn.Module"
    kind: Literal["layer", "attention", "down block"]
    """What it returns: a tensor, a tuple of one, or a tensor and those for the skip connections."""
    is_up: bool
    """Whether the kept features stand for its output; else its input does, and nothing reads that."""


@contextmanager
def cached_steps(unet: "nn.Module", interval: int, depth: int) -> Iterator[None]:
    """Let a U-Net run in full only in the first of each `interval` calls, until the context is left.

    Args:
        unet: a `UNet2DConditionModel` whose `forward` is not compiled.
        interval: calls from one full one to the next; 1 leaves nothing out.
        depth: layers of the downward path that run in every call.
    """
    skipped = skipped_parts(unet, depth)
    modules = [unet, *(part.module for part in skipped)]
    own = [vars(module).get("forward") for module in modules]
    StepCache(unet, skipped, interval)
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


class StepCache:
    """Stand-in for the `forward` of a U-Net; puts others in the place of the parts that cached calls leave out.

    Args:
        unet: the U-Net.
        skipped: these parts, in the order in which they run.
        interval: calls from one full one to the next.
    """

    def __init__(self, unet: "nn.Module", skipped: list[Skipped], interval: int) -> None:
        self.forward, self.interval = unet.forward, interval
        self.num_rows, self.calls, self.is_full = 0, 0, True
        self.features: Tensor | None = None
        for part in skipped:
            part.module.forward = self._stand_in(part, is_last=part is skipped[-1])
        unet.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the U-Net: in full when it is time, or when the call has another number of rows than the one before, as
        at the ends of a guidance interval."""
        num_rows = len(args[0] if args else kwargs["sample"])
        self.calls = self.calls + 1 if num_rows == self.num_rows else 0
        self.num_rows = num_rows
        self.is_full = self.calls % self.interval == 0
        return self.forward(*args, **kwargs)

    def _stand_in(self, part: Skipped, is_last: bool) -> Callable[..., Any]:
        forward, num_skips = part.module.forward, len(_layers(part.module)) if part.kind == "down block" else 0

        def stand_in(hidden_states: "Tensor", *args: Any, **kwargs: Any) -> Any:
            if self.is_full:
                output = forward(hidden_states, *args, **kwargs)
                if is_last:
                    self.features = output[0] if part.kind == "attention" else output
                return output
            value = self.features if part.is_up else hidden_states
            if part.kind == "down block":
                return value, (value,) * num_skips
            return (value,) if part.kind == "attention" else value

        return stand_in


def skipped_parts(unet: Any, depth: int) -> list[Skipped]:
    """Return what calls leave out that run `depth` layers of the downward path, in the order in which it runs."""
    down: list[Skipped] = []
    running = depth
    for block in unet.down_blocks:
        layers = _layers(block)
        if running <= 0:
            down.append(Skipped(block, "down block", is_up=False))
        else:
            down += [part for layer in layers[running:] for part in _parts(layer, is_up=False)]
        running -= len(layers)
    up: list[Skipped] = []
    running = depth + 1  # each skip connection, and that of the first convolution
    for block in reversed(unet.up_blocks):
        layers = list(reversed(_layers(block)))
        if running <= 0:
            up.insert(0, Skipped(block, "layer", is_up=True))
        else:
            up[:0] = [part for layer in reversed(layers[running:]) for part in _parts(layer, is_up=True)]
        running -= len(layers)
    return [*down, Skipped(unet.mid_block, "layer", is_up=True), *up]


def _layers(block: Any) -> list[Any]:
    """Return the layers of a block that make or read a skip connection each, as lists of a residual block and an
    attention; a downsampling layer makes one too."""
    layers = [[resnet] for resnet in block.resnets]
    for layer, attention in zip(layers, getattr(block, "attentions", None) or [], strict=False):
        layer.append(attention)
    return layers + [[layer] for layer in getattr(block, "downsamplers", None) or []]


def _parts(layer: list[Any], is_up: bool) -> list[Skipped]:
    kinds: tuple[Literal["layer", "attention"], ...] = ("layer", "attention")
    return [Skipped(module, kind, is_up) for module, kind in zip(layer, kinds, strict=False)]
