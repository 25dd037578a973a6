"""What a weaker prediction comes from, beside the unconditional pass: a weaker model, or skipped blocks of the model.

Sources: Karras et al., Guiding a diffusion model with a bad version of itself (NeurIPS 2024), for weaker models; Hyung
    et al., Spatiotemporal skip guidance (CVPR 2025), for skipped blocks.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from raysd.diffusion.checkpoint import Model, find_model, plan_model
from raysd.diffusion.family import Family, read_family
from raysd.diffusion.inspection import read_header
from raysd.errors import UserError

if TYPE_CHECKING:
    from torch import nn

FIELD = "generation.weak_model"
EQUAL = {
    "_class_name": "denoiser",
    "in_channels": "latent channels",
    "out_channels": "predicted channels",
    "cross_attention_dim": "width of the text embeddings",
    "joint_attention_dim": "width of the text embeddings",
    "caption_channels": "width of the text embeddings",
    "pooled_projection_dim": "width of the pooled text embeddings",
    "projection_class_embeddings_input_dim": "width of the pooled text embeddings",
    "addition_embed_type": "kind of pooled text embeddings",
    "encoder_hid_dim": "width of the text embeddings",
    "time_cond_proj_dim": "input for a guidance scale",
}
"""Values of a denoiser's config that must be those of the model, and what each is."""
EQUAL_SCHEDULE = {
    "prediction_type": "prediction",
    "num_train_timesteps": "number of noise levels",
    "beta_schedule": "noise schedule",
    "beta_start": "noise schedule",
    "beta_end": "noise schedule",
    "rescale_betas_zero_snr": "noise schedule",
}
BLOCK = "TransformerBlock"  # ends the class of a block that can be skipped
PAIR = "JointTransformerBlock"  # returns embeddings too


class WeakModel(Model):
    """The weaker model, of which only the denoiser is loaded."""

    field: ClassVar = FIELD
    noun: ClassVar = "weak model"


def find_weak_model(name: str, revision: str | None, dtype: str, model: Model, fetch: bool) -> WeakModel:
    """Resolve the name of a weak model and check that its denoiser can stand beside that of the model.

    Args:
        name: a shipped one, a folder in diffusers format, or a hub id.
        revision: branch, tag or commit of a hub id.
        dtype: of the model.
        model: that it guides.
        fetch: whether to fetch the weights of a hub model.

    Raises:
        UserError: no such model, or one of another latent space or other text embeddings.
    """
    try:
        found = (find_model if fetch else plan_model)(name, revision, dtype)
    except UserError as error:
        raise UserError(FIELD, error.value, error.remedy) from None
    weak = WeakModel(**vars(found))
    own, others = read_family(model.find_configs_here()), read_family(weak.find_configs_here())
    if not model.is_dummy and (problem := _misfit(model, own, weak, others)) is not None:
        raise UserError(FIELD, name, f"{problem}; name a weaker version of {model.name}")
    return weak


def denoiser_bytes(model: Model, family: Family, dtype_bytes: int) -> int:
    """Return the bytes of a model's denoiser once loaded; 0 where its weights are not here."""
    return _num_weights(model.find_configs_here() / family.denoiser) * dtype_bytes


def pass_share(weak: Model, model: Model, family: Family) -> float:
    """Return the cost of a pass of the weak model over one of the model, by the number of their weights; 1 where one is
    not known."""
    counts = [_num_weights(each.find_configs_here() / family.denoiser) for each in (weak, model)]
    return counts[0] / counts[1] if all(counts) else 1.0


def load_weak_denoiser(weak: Model, denoiser: "nn.Module", part: str, dtype: Any) -> Any:
    """Load the denoiser of a weak model, of the class of the model's own."""
    folder = weak.find_here(FIELD) / part
    variant = weak.variant if weak.variant and any(folder.glob(f"*.{weak.variant}.*")) else None
    kind: Any = type(denoiser)
    options = {"variant": variant, "use_safetensors": True, "local_files_only": True}
    return kind.from_pretrained(folder, dtype=dtype, **options).eval()


def why_not_skipped(family: Family, folder: Path, blocks: Sequence[int]) -> str | None:
    """Return why blocks of a model's denoiser cannot be skipped, and what to do; None when they can.

    Args:
        family: of the checkpoint.
        folder: of the checkpoint.
        blocks: their numbers, from 0, in the order in which they run.
    """
    config = _config(folder, family)
    count = num_blocks(config) if any(kind.endswith(BLOCK) for kind in family.regions) else 0
    if not count:
        return f"the model's denoiser is a {config.get('_class_name')}, whose blocks are not known; leave it out"
    if max(blocks) >= count:
        return f"the model's denoiser has {count} transformer blocks; use numbers from 0 to {count - 1}"
    return "leaves no block; name fewer" if len(set(blocks)) == count else None


def num_blocks(config: dict[str, Any]) -> int:
    """Return the number of transformer blocks of a denoiser with this config; 0 where it is not known."""
    if config.get("_class_name") != "UNet2DConditionModel":
        return int(config.get("num_layers") or 0)
    kinds = config["down_block_types"]
    layers = _by_block(config.get("layers_per_block", 2), len(kinds))
    depths = _by_block(config.get("transformer_layers_per_block", 1), len(kinds))
    if not all(isinstance(depth, int) for depth in depths):
        return 0
    down = sum(n * d for kind, n, d in zip(kinds, layers, depths, strict=True) if "CrossAttn" in kind)
    sides = zip(config["up_block_types"], layers[::-1], depths[::-1], strict=True)
    middle = depths[-1] if "CrossAttn" in str(config.get("mid_block_type", "UNetMidBlock2DCrossAttn")) else 0
    return int(down + middle + sum((n + 1) * d for kind, n, d in sides if "CrossAttn" in kind))


def transformer_blocks(denoiser: "nn.Module") -> list["nn.Module"]:
    """Return the transformer blocks of a denoiser in the order in which they run: of a U-Net, its middle is registered
    last."""
    places = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    named = [(name, part) for name, part in denoiser.named_modules() if type(part).__name__.endswith(BLOCK)]
    return [part for _, part in sorted(named, key=lambda pair: places.get(pair[0].partition(".")[0], 1))]


def without_blocks(forward: Callable[..., Any], blocks: Sequence["nn.Module"]) -> Callable[..., Any]:
    """Return a denoiser's forward that skips some of its blocks: they pass on what they get."""

    def skipping(*args: Any, **kwargs: Any) -> Any:
        with _passing_on(blocks):
            return forward(*args, **kwargs)

    return skipping


@contextmanager
def _passing_on(blocks: Sequence["nn.Module"]) -> Iterator[None]:
    for block in blocks:
        block.forward = _pass_pair if type(block).__name__ == PAIR else _pass_on
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _pass_on(hidden_states: Any, *_: Any, **__: Any) -> Any:
    return hidden_states


def _pass_pair(hidden_states: Any, encoder_hidden_states: Any, *_: Any, **__: Any) -> Any:
    return encoder_hidden_states, hidden_states


def _by_block(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value] * count


def _misfit(model: Model, own: Family, weak: Model, others: Family) -> str | None:
    """Return why a weak model does not fit the model, as a clause."""
    if others.pipeline != own.pipeline:
        return f"is a model for {others.pipeline}, and {model.name} is for {own.pipeline}"
    folders = model.find_configs_here(), weak.find_configs_here()
    configs = [_config(folder, own) for folder in folders]
    schedules = [_json(folder / "scheduler" / "scheduler_config.json") for folder in folders]
    for values, names in ((configs, EQUAL), (schedules, EQUAL_SCHEDULE)):
        for name, what in names.items():
            ours, theirs = (value.get(name) for value in values)
            is_inner = name == "cross_attention_dim" and configs[0].get("caption_channels") is not None
            if ours != theirs and not is_inner and (values is configs or None not in (ours, theirs)):
                return f"does not fit {model.name}: {what} {theirs}, and not {ours}"
    return None


def _config(folder: Path, family: Family) -> dict[str, Any]:
    return _json(folder / family.denoiser / "config.json")


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


@cache
def _num_weights(folder: Path) -> int:
    """Return the number of a component's weights: of one variant, since others hold the same."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        files.setdefault(file.name.split(".", 1)[1], []).append(file)
    headers = [read_header(file) or {} for file in next(iter(files.values()), [])]
    return sum(math.prod(each["shape"]) for header in headers for each in header.values())
