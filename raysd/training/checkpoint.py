"""Training state in one file of torch. Reading it runs no code: torch's `weights_only` reader takes tensors and plain
values and refuses everything else.

Tensors come back in the memory layout they had (channels_last, say): elementwise kernels round differently where
layouts differ, and a resumed training would then stray from an undisturbed one.

A training that goes on with other images begins with the state at the end of the one before, which lies beside its
classifier: what was learned, and the steps so far.
"""

from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from safetensors.torch import load

from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.run import STATE

Learned = dict[str, "Learner | None"]
"""What learns in a training, by name."""


class Learner(Protocol):
    """A model, an optimizer or a scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return all values."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take these values."""


def save_state(file: Path | BinaryIO, state: Any) -> None:
    """Write nested dicts and lists of tensors and plain values."""
    torch.save(state, file)


def load_state(file: Path | BinaryIO) -> Any:
    """Return what `save_state` wrote, with its tensors in the CPU's memory.

    Raises:
        pickle.UnpicklingError: the file holds something else than tensors and plain values.
    """
    return torch.load(file, map_location="cpu", weights_only=True)


def pack(learners: Learned) -> dict[str, Any]:
    """Return the values of all learners, by name."""
    return {name: None if learner is None else learner.state_dict() for name, learner in learners.items()}


def unpack(state: dict[str, Any], learners: Learned) -> None:
    """Give all learners the values that `pack` returned."""
    for name, learner in learners.items():
        if learner is not None:
            learner.load_state_dict(state[name])


def keep_end(folder: Location, learners: Learned, steps: int) -> None:
    """Write the state at the end of a training into the folder of its classifier, for one that goes on.

    Args:
        folder: of the classifier.
        learners: what learned.
        steps: of all trainings so far.
    """
    written = BytesIO()
    save_state(written, {"learned": pack(learners), "steps": steps})
    folder.write(STATE, written.getvalue())


def check_same(folder: Location, weights: dict[str, torch.Tensor]) -> None:
    """Check that a training that was done again for its state came to the weights that are there.

    Raises:
        UserError: it did not, as on another device; results of the classifier would no longer be its own.
    """
    there = load(folder.read("model.safetensors"))
    if not all(torch.equal(values.cpu(), there[name]) for name, values in weights.items()):
        remedy = f"{folder.uri} has no {STATE} any more, and this machine trains other weights; delete that folder"
        raise UserError("adaptive.training", "continued", f"{remedy}, and run the same command again")


def begin_at(folder: Location, learners: Learned) -> int:
    """Give all learners the state that `keep_end` wrote, and return the steps so far."""
    state = load_state(BytesIO(folder.read(STATE)))
    unpack(state["learned"], learners)
    return int(state["steps"])
