"""What generates and trains for the rounds of an adaptive clone."""

from contextlib import suppress
from dataclasses import replace

from raysd.clone.clone import Clone
from raysd.clone.scan import missing_shards
from raysd.cluster.resources import ResourceRequest, check_room, cluster_nodes, room_for
from raysd.config import Experiment
from raysd.errors import UserError
from raysd.generation.placement import PoolShape, request_actors
from raysd.generation.shared_pool import SharedPool
from raysd.progress import Progress
from raysd.resolve import replicates
from raysd.training.placement import SPARE_CPUS, request_workers
from raysd.training.run import TrainingRun
from raysd.training.train import train_classifiers, train_here

STAYS, LEAVES = 10.0**9, 0.2
"""Seconds without work after which generation actors end: never, and at once."""
POLL_SECONDS, ASK_SECONDS = 1.0, 30.0


class Actors:
    """Generates and trains for the rounds; Ray is started when something is missing.

    Args:
        experiment: validated settings.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.pool: SharedPool | None = None

    def __enter__(self) -> "Actors":
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            with suppress(Exception):  # nothing is lost, and another error may be on its way
                self.pool.close()

    def grow(self, clones: list[Clone]) -> None:
        """Generate what is missing of some clones, and show how far it is.

        Raises:
            UserError: the cluster has no room, the storage is full, or the model cannot be loaded.
        """
        import ray

        missing = [clone for clone in clones if not clone.is_complete()]
        if not missing:
            return
        pool = self.pool = self.pool or self._start()
        before = pool.num_generated()
        count = sum(int(clone.shard_sizes()[missing_shards(clone)].sum()) for clone in missing)
        pending = growing = pool.start_growing(missing)
        with Progress("generated", count) as progress:
            while pending:
                _, pending = ray.wait(pending, timeout=POLL_SECONDS)
                with suppress(Exception):  # of a queue that is busy or starts again
                    now = min(count, pool.num_generated(ASK_SECONDS) - before)
                    if now > progress.done:
                        progress.advance(now - progress.done)
        ray.get(growing)

    def train(self, run: TrainingRun) -> list[str]:
        """Train the missing classifiers of a round: in this process where one worker without a GPU is asked for, which
        spares the start of Ray Train's."""
        from raysd.cluster.session import ensure_ray

        if all(run.is_trained(seed) for seed in run.settings.seeds):
            return [run.fingerprint(seed) for seed in run.settings.seeds]
        ensure_ray()
        return train_here(run) if self._trains_here() else train_classifiers(run)

    def _trains_here(self) -> bool:
        from raysd.cluster.session import cluster_gpus

        return self.experiment.training.num_workers == 1 and not cluster_gpus()

    def _start(self) -> SharedPool:
        """Start the queue of the generation actors, which stay up if there is room for the training beside them."""
        from raysd.cluster.session import ensure_ray

        ensure_ray()
        experiment, nodes = self.experiment, cluster_nodes()
        actors = request_actors(experiment.generation, nodes)
        check_room(nodes, [actors])
        shape = PoolShape(experiment.generation.num_actors, actors.cpus, actors.gpus)
        return SharedPool(experiment.generation, shape, len(replicates(experiment)) + 1, self._rest_seconds(actors))

    def _rest_seconds(self, actors: ResourceRequest) -> float:
        """Return the seconds without work after which actors end: at once where others need their room."""
        experiment, nodes = self.experiment, cluster_nodes()
        if experiment.adaptive.way == "select":  # classifiers are asked about the pool
            return LEAVES
        if self._trains_here():  # with what Ray does not count
            return STAYS
        most = experiment.generation.num_actors or room_for(nodes, actors.cpus, actors.gpus)
        readers = ResourceRequest("training.num_workers", None, "tasks that read images", 1, SPARE_CPUS)
        everything = [replace(actors, count=max(most, actors.count)), request_workers(experiment.training, nodes)]
        try:
            check_room(nodes, [*everything, readers])
        except UserError:
            return LEAVES
        return STAYS
