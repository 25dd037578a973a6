"""Training state on disk as safetensors and JSON; nothing is pickled.

A state is nested dicts and lists of tensors and plain values. `state.safetensors` holds the tensors, `state.json` the
rest, with a reference in each tensor's place. Tensors come back in the memory layout they had (channels_last, say):
elementwise kernels round differently where layouts differ, and a resumed training would then stray from an undisturbed
one.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TENSOR, ORDER, PAIRS = "__tensor__", "__order__", "__pairs__"


def save_state(folder: Path, state: Any) -> None:
    """Write `state` into `folder`, which is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}

    def encode(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            name = f"t{len(tensors)}"
            order = value.dim_order()
            tensors[name] = value.detach().cpu().permute(order).contiguous().clone()
            return {TENSOR: name, ORDER: list(order)}
        if isinstance(value, dict):
            return {PAIRS: [[key, encode(item)] for key, item in value.items()]}
        if isinstance(value, (list, tuple)):
            return [encode(item) for item in value]
        return value

    structure = encode(state)
    save_file(tensors, folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps(structure))


def load_state(folder: Path) -> Any:
    """Read what `save_state` wrote; tuples come back as lists."""
    tensors = load_file(folder / "state.safetensors")

    def decode(value: Any) -> Any:
        if isinstance(value, dict):
            if TENSOR in value:
                return tensors[value[TENSOR]].permute([value[ORDER].index(dim) for dim in range(len(value[ORDER]))])
            return {key: decode(item) for key, item in value[PAIRS]}
        if isinstance(value, list):
            return [decode(item) for item in value]
        return value

    return decode(json.loads((folder / "state.json").read_text()))
