"""How many generation actors a job begins with, how many it may grow to, and how many shards they are handed at
once."""

from collections.abc import Sequence
from dataclasses import dataclass

from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import CloneSpec
from raysd.cluster.resources import Node, ResourceRequest, check_room, cluster_nodes, is_mac, room_for
from raysd.cluster.session import WAVE_SHARDS
from raysd.errors import UserError

WAVE_SHARDS_PER_ACTOR = (
    64  # or more for a large pool, since actors are started again, and the last of them waited for, in each wave
)
TASKS_PER_ACTOR = 2  # one generates while the other one commits


@dataclass(frozen=True)
class PoolShape:
    """The actors of one pipeline, and what each of them holds of the cluster."""

    num_actors: int | None
    """None: as many as there is room for, and more when nodes join."""
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class PoolSize:
    """Number of actors that a pool begins with, and the number that it may grow to when nodes join."""

    first: int
    most: int | None
    """None when there is no bound."""
    gpus_per_actor: float

    def __str__(self) -> str:
        return f"{self.first} actors" if self.most in (None, self.first) else f"{self.first} of {self.most} actors"

    @property
    def wave_shards(self) -> int:
        """Number of shards that are handed to Ray Data at once."""
        return max(WAVE_SHARDS, WAVE_SHARDS_PER_ACTOR * self.first)

    def bounds(self, num_items: int) -> dict[str, int]:
        """Return the bounds of Ray Data's pool, which then grows by itself; no actor is without a shard."""
        return {"min_size": min(self.first, num_items), "max_size": min(self.most or num_items, num_items)}


def pool_size(settings: GenerationSettings, num_items: int) -> PoolSize:
    """Return the number of actors for `num_items` shards.

    Raises:
        UserError: the cluster has no room for as many as must be there, or for one.
    """
    nodes = cluster_nodes()
    request = request_actors(settings, nodes)
    check_room(nodes, [request])
    most = None if settings.num_actors is None else min(settings.num_actors, num_items)
    if most is None and is_mac() and len(nodes) == 1:
        most = request.count
    return PoolSize(min(room_for(nodes, request.cpus, request.gpus), most or num_items), most, request.gpus)


def request_actors(settings: GenerationSettings, nodes: Sequence[Node]) -> ResourceRequest:
    """Return the request for the actors that must be there to begin; without a number as many as the nodes have room
    for, at least one."""
    gpus = settings.gpus_per_actor if settings.gpus_per_actor is not None else float(any(node.gpus for node in nodes))
    field, value = (
        ("min_actors", settings.min_actors) if settings.min_actors is not None else ("num_actors", settings.num_actors)
    )
    room = 1 if is_mac() and len(nodes) == 1 else room_for(nodes, settings.cpus_per_actor, gpus)  # they share one GPU
    count = value or max(1, room)
    return ResourceRequest(f"generation.{field}", value, "generation actors", count, settings.cpus_per_actor, gpus)


def check_dtype(spec: CloneSpec, gpus_per_actor: float) -> None:
    """Check that half precision has GPUs.

    Raises:
        UserError: there are none.
    """
    if spec.dtype == "float16" and not gpus_per_actor and not is_mac():
        raise UserError(
            "generation.dtype", spec.dtype, "needs GPUs, and the actors have none; set it to float32 or bfloat16"
        )
