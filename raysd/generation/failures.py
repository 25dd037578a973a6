"""Which nodes fail at generating, which of them are avoided, and when the generation stops for it.

A device that works again is forgiven. A node is avoided once it could not begin, or one of its devices failed several
times in a row, or its actors died many times in a row; actors that work there on other devices go on. Generation stops
when no node is left, or when the same error comes from half of the nodes, several at least, and nothing was generated
anywhere. It stops at once when the files of the model are at fault, which are the same on every node.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raysd.clone.spec import CloneSpec
from raysd.cluster.resources import Node
from raysd.diffusion.inspection import CheckpointError
from raysd.errors import UserError

Kind = Literal["start", "model", "device", "death"]
LIMITS: dict[Kind, int] = {
    "start": 1,
    "model": 1,
    "device": 3,
    "death": 10,
}  # in a row; processes may be killed by others, so they have more tries
START_DEATHS = 3  # in a row, of each actor that starts at a time, before any said where it is
SEVERAL = 2
UNKNOWN = "unknown"
DEVICE_WORDS = ("CUDA", "cuDNN", "CUBLAS", "NCCL", "HIP error", "device-side assert")


@dataclass(frozen=True)
class Place:
    """Where an actor works."""

    node: str
    """Ray's id of the node."""
    name: str
    devices: tuple[str, ...] = ()
    """GPUs that Ray gave it."""


class Failed(Exception):
    """An actor that has to leave.

    Args:
        kind: what failed.
        error: one clear line.
    """

    def __init__(self, kind: Kind, error: UserError) -> None:
        super().__init__(str(error))
        self.kind: Kind = kind
        self.error = error


def is_local(error: Exception) -> bool:
    """Return whether an error comes from a device or a node, so that another one may not have it, and not from the
    program or the settings."""
    of_device = isinstance(error, RuntimeError) and any(word in str(error) for word in DEVICE_WORDS)
    return of_device or isinstance(error, (OSError, MemoryError))


def of_loading(error: Exception, spec: CloneSpec, node: str) -> tuple[Kind, UserError]:
    """Return what keeps an actor from loading its model: `start` if another node may be able to, `model` if its files
    are at fault. The libraries raise an OSError without a number for these."""
    if isinstance(error, UserError):
        return "model" if isinstance(error, CheckpointError) else "start", error
    is_of_node = isinstance(error, ImportError) or (is_local(error) and getattr(error, "errno", 0) is not None)
    if is_of_node:
        return "start", UserError("node", node, f"cannot load the model: {one_line(error)}")
    why = one_line(error).partition(". ")[0].rstrip(".")
    remedy = f"cannot be loaded: {why}; copy or download it again, or use another"
    return "model", CheckpointError("generation.model", spec.model.name, remedy)


def one_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class Failures:
    """All failures so far."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Place, Kind]] = Counter()
        self.errors: dict[str, set[str]] = defaultdict(set)
        """Nodes by error, without numbers."""
        self.avoided: dict[str, UserError] = {}
        """Why a node is avoided."""
        self.last: UserError | None = None
        self.has_success = False
        self.has_begun = False
        """Whether an actor could load the model."""
        self.of_model: UserError | None = None

    def begin(self) -> None:
        """Note that an actor has loaded the model."""
        self.has_begun = True

    def fail(self, place: Place, kind: Kind, error: UserError, num_starting: int = 1) -> None:
        """Count a failure.

        Args:
            place: where the actor was.
            kind: what failed.
            error: one clear line.
            num_starting: actors that were started at a time.
        """
        if kind == "model" and not self.has_begun:
            self.of_model = self.last = error
            return
        self.counts[place, kind] += 1
        self.errors[re.sub(r"0x[0-9a-f]+|\d+", "#", f"{error.field} {error.remedy}".replace(place.name, ""))].add(
            place.node
        )
        self.last = error
        if self.counts[place, kind] >= (LIMITS[kind] if place.node != UNKNOWN else START_DEATHS * num_starting):
            self.avoided.setdefault(place.node, error)

    def succeed(self, place: Place) -> None:
        """Note that a shard was committed at a place."""
        self.has_success = True
        self.avoided.pop(UNKNOWN, None)
        for each in [key for key in self.counts if key[0] == place or key[0].node == UNKNOWN]:
            del self.counts[each]

    def verdict(self, nodes: Sequence[Node], num_working: int) -> UserError | None:
        """Return the error that ends the generation; None while it goes on.

        Args:
            nodes: that have room for an actor.
            num_working: actors that are at work.
        """
        if self.last is None:
            return None
        if self.of_model is not None and not self.has_begun:
            return self.of_model
        most = max(map(len, self.errors.values()), default=0)
        if not self.has_success and most >= SEVERAL and 2 * most >= len(nodes):
            return self.last
        none_left = bool(nodes) and all(node.id in self.avoided for node in nodes)
        return self.last if not num_working and (none_left or UNKNOWN in self.avoided) else None

    def lines(self, nodes: Sequence[Node]) -> list[str]:
        """Return a line for each node that is avoided."""
        names = {node.id: node.name for node in nodes}
        return [f"node {names.get(node, node[:8])} was avoided: {error}" for node, error in self.avoided.items()]
