"""Training state on disk as safetensors and JSON; nothing is pickled.

A state is nested dicts and lists of tensors and plain values. `state.safetensors` holds the tensors, `state.json` the rest, with a
reference in each tensor's place.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TENSOR, PAIRS = "__tensor__", "__pairs__"


def save_state(folder: Path, state: Any) -> None:
    """Write `state` into `folder`, which is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}

    def encode(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            name = f"t{len(tensors)}"
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {TENSOR: name}
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
                return tensors[value[TENSOR]]
            return {key: decode(item) for key, item in value[PAIRS]}
        if isinstance(value, list):
            return [decode(item) for item in value]
        return value

    return decode(json.loads((folder / "state.json").read_text()))
