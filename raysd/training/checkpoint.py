"""Training state in one file of torch. Reading it runs no code: torch's `weights_only` reader takes tensors and plain
values and refuses everything else.

Tensors come back in the memory layout they had (channels_last, say): elementwise kernels round differently where
layouts differ, and a resumed training would then stray from an undisturbed one.
"""

from pathlib import Path
from typing import Any, BinaryIO

import torch


def save_state(file: Path | BinaryIO, state: Any) -> None:
    """Write nested dicts and lists of tensors and plain values."""
    torch.save(state, file)


def load_state(file: Path | BinaryIO) -> Any:
    """Return what `save_state` wrote, with its tensors in the CPU's memory.

    Raises:
        pickle.UnpicklingError: the file holds something else than tensors and plain values.
    """
    return torch.load(file, map_location="cpu", weights_only=True)
