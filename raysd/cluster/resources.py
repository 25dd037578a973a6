"""The nodes of a cluster, and whether what a job starts fits on them."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raysd.errors import UserError
from raysd.progress import say

UNITS = 10_000  # Ray counts resources in these fractions
ACCELERATOR = "accelerator_type:"
LOOK_SECONDS, SAY_SECONDS = 1.0, 60.0


@dataclass(frozen=True)
class Node:
    """An alive node and what Ray may hand out of it."""

    id: str
    name: str
    cpus: float
    gpus: float = 0.0
    accelerator: str | None = None
    """Ray's word for its kind of GPU, as `A100`."""

    def room(self, cpus: float, gpus: float) -> int:
        """How many processes that hold so much fit on it; those that hold a part of a GPU lie on one GPU each."""
        rooms = [_units(self.cpus) // _units(cpus)] if cpus else []
        if gpus:
            rooms.append(processes_on(self.gpus, gpus))
        return min(rooms, default=0)


@dataclass(frozen=True)
class ResourceRequest:
    """Equal processes that a job starts, and the setting that says how many."""

    field: str
    value: object
    what: str
    """Their plural, as `generation actors`."""
    count: int
    cpus: float
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.count} {self.what} x {_resources(self.cpus, self.gpus)}"


def cluster_nodes() -> list[Node]:
    """The alive nodes of the cluster that this process is connected to; each has a name of its own."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = Counter(node["NodeManagerHostname"] for node in alive)
    nodes = []
    for node in alive:
        host, resources = node["NodeManagerHostname"], node["Resources"]
        name = host if hosts[host] == 1 else f"{host} ({node['NodeID'][:8]})"
        accelerator = next((key.removeprefix(ACCELERATOR) for key in resources if key.startswith(ACCELERATOR)), None)
        nodes.append(
            Node(node["NodeID"], name, float(resources.get("CPU", 0)), float(resources.get("GPU", 0)), accelerator)
        )
    return nodes


def processes_on(gpus: float, each: float) -> int:
    """How many processes fit on the GPUs of a node that hold a part of one each, or whole ones. Ray never gives
    parts of two GPUs to a process."""
    return int(gpus) * (UNITS // _units(each)) if each < 1 else _units(gpus) // _units(each)


def gpus_filled(requests: Sequence[ResourceRequest]) -> float:
    """GPUs that no other process can have: a part that is left over is of no use to those that need more. Only parts
    of one size share GPUs."""
    counts: Counter[float] = Counter()
    for request in requests:
        counts[request.gpus] += request.count
    return sum(
        count * gpus if gpus >= 1 else math.ceil(count / processes_on(1, gpus))
        for gpus, count in counts.items()
        if gpus
    )


def room_for(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """How many processes that hold so much fit on the nodes; none is split over two of them."""
    return sum(node.room(cpus, gpus) for node in nodes)


def check_room(nodes: Sequence[Node], requests: Sequence[ResourceRequest]) -> None:
    """What a job starts at the same time fits on the nodes: each kind of process by itself, and all kinds by their sum.

    Raises:
        UserError: it would wait for ever, with the arithmetic.
    """
    for request in requests:
        if (room := room_for(nodes, request.cpus, request.gpus)) < request.count:
            raise UserError(
                request.field,
                request.value,
                f"{request}, and there is room for {room} on {describe(nodes)}; ask for fewer, or for less each",
            )
    for name, needed, there in (
        ("CPUs", sum(request.count * request.cpus for request in requests), sum(node.cpus for node in nodes)),
        ("GPUs", gpus_filled(requests), sum(node.gpus for node in nodes)),
    ):
        if _units(needed) > _units(there):
            parts = " + ".join(map(str, requests))
            raise UserError(
                requests[-1].field,
                requests[-1].value,
                f"{parts} = {needed:g} {name}, and there are {there:g} on {describe(nodes)}; ask for fewer",
            )


def wait_for_nodes(cpus: int, gpus: int, minutes: float) -> None:
    """Ask for so many CPUs and GPUs, and wait until the cluster has them. An autoscaler starts nodes for what is
    asked; without one they may join by hand.

    The asking is a placement group, which ends with this process; it holds nothing once the nodes are there.

    Raises:
        UserError: they did not come in time.
    """
    from ray.util import placement_group, remove_placement_group

    if _has(nodes := cluster_nodes(), cpus, gpus):
        return
    wanted, began, said = _resources(cpus, gpus), time.monotonic(), -SAY_SECONDS
    group = placement_group([{"GPU": 1}] * gpus + [{"CPU": 1}] * cpus)
    try:
        while not _has(nodes := cluster_nodes(), cpus, gpus):
            waited = time.monotonic() - began
            if waited > 60 * minutes:
                field, value = (
                    ("cluster.gpus", gpus) if sum(node.gpus for node in nodes) < gpus else ("cluster.cpus", cpus)
                )
                raise UserError(
                    field,
                    value,
                    (
                        f"after {minutes:g} minutes there is {describe(nodes)}; ask for less, or raise "
                        "cluster.wait_minutes"
                    ),
                )
            if waited - said >= SAY_SECONDS:
                say(f"waiting for nodes with {wanted} in all; there is {describe(nodes)}")
                said = waited
            group.wait(LOOK_SECONDS)
    finally:
        remove_placement_group(group)


def _has(nodes: Sequence[Node], cpus: float, gpus: float) -> bool:
    return sum(node.cpus for node in nodes) >= cpus and sum(node.gpus for node in nodes) >= gpus


def describe(nodes: Sequence[Node]) -> str:
    """What the nodes have, in a few words: `2 nodes of 4 CPUs and 1 GPUs, 1 node of 8 CPUs`."""
    kinds = Counter((node.cpus, node.gpus) for node in nodes)
    return (
        ", ".join(f"{count} node{'s' if count > 1 else ''} of {_resources(*kind)}" for kind, count in kinds.items())
        or "no node"
    )


def _resources(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")


def _units(amount: float) -> int:
    return round(amount * UNITS)
