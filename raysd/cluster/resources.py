"""The nodes of a cluster, and the check that the processes of a job fit on them."""

import math
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raysd.errors import UserError
from raysd.progress import say

UNITS = 10_000  # in one CPU or GPU; Ray counts in these fractions
ACCELERATOR = "accelerator_type:"
LOOK_SECONDS, SAY_SECONDS = 1.0, 60.0


@dataclass(frozen=True)
class Node:
    """An alive node and the resources that Ray hands out on it."""

    id: str
    name: str
    cpus: float
    gpus: float = 0.0
    accelerator: str | None = None
    """Ray's name for the kind of GPU, as `A100`."""

    def room(self, cpus: float, gpus: float) -> int:
        """Return how many such processes fit on this node; one that holds a part of a GPU uses a single GPU."""
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
    """Plural noun for the processes, as `generation actors`."""
    count: int
    cpus: float
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.count} {self.what} x {_resources(self.cpus, self.gpus)}"


def cluster_nodes() -> list[Node]:
    """Return the alive nodes of the cluster that this process is connected to, with unique names."""
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


def is_mac() -> bool:
    """Return whether this machine is a Mac with Apple's own chip, whose GPU generates though Ray counts none."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def processes_on(gpus: float, each: float) -> int:
    """Return how many processes that hold `each` GPUs, a part of one or whole ones, fit on the GPUs of a node.

    Ray never gives a process parts of two GPUs.
    """
    return int(gpus) * (UNITS // _units(each)) if each < 1 else _units(gpus) // _units(each)


def gpus_filled(requests: Sequence[ResourceRequest]) -> float:
    """Return the number of GPUs that the requests take. Only equal parts share a GPU, and its rest counts as taken."""
    counts: Counter[float] = Counter()
    for request in requests:
        counts[request.gpus] += request.count
    return sum(
        count * gpus if gpus >= 1 else math.ceil(count / processes_on(1, gpus))
        for gpus, count in counts.items()
        if gpus
    )


def room_for(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """Return how many such processes fit on the nodes; none is split over two nodes."""
    return sum(node.room(cpus, gpus) for node in nodes)


def check_room(nodes: Sequence[Node], requests: Sequence[ResourceRequest]) -> None:
    """Check that what a job starts at once fits on the nodes: each kind of process by itself, and the sum of all kinds.

    Raises:
        UserError: the job would wait forever; says the numbers.
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
    """Request CPUs and GPUs, and wait until the cluster has them.

    An autoscaler starts nodes for the request; without one they may join by hand. The request is a placement group,
    which ends with this process and holds nothing once the nodes are there.

    Raises:
        UserError: the nodes did not join in time.
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
                remedy = f"after {minutes:g} minutes there is {describe(nodes)}; ask for less, or raise"
                raise UserError(field, value, f"{remedy} cluster.wait_minutes")
            if waited - said >= SAY_SECONDS:
                say(f"waiting for nodes with {wanted} in all; there is {describe(nodes)}")
                said = waited
            group.wait(LOOK_SECONDS)
    finally:
        remove_placement_group(group)


def _has(nodes: Sequence[Node], cpus: float, gpus: float) -> bool:
    return sum(node.cpus for node in nodes) >= cpus and sum(node.gpus for node in nodes) >= gpus


def describe(nodes: Sequence[Node]) -> str:
    """Return what the nodes have in a few words: `2 nodes of 4 CPUs and 1 GPUs, 1 node of 8 CPUs`."""
    kinds = Counter((node.cpus, node.gpus) for node in nodes)
    return (
        ", ".join(f"{count} node{'s' if count > 1 else ''} of {_resources(*kind)}" for kind, count in kinds.items())
        or "no node"
    )


def _resources(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")


def _units(amount: float) -> int:
    return round(amount * UNITS)
