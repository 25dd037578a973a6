"""The division of a cluster between generating and training, so that neither waits for the other forever."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from raysd.clone.settings import GenerationSettings
from raysd.cluster.resources import Node, ResourceRequest, processes_on
from raysd.errors import UserError
from raysd.generation.placement import PoolShape
from raysd.training.placement import MIN_WORKER_CPUS, SPARE_CPUS, TRIAL_CPUS, cpus_per_worker, request_workers
from raysd.training.settings import TrainingSettings

ACTOR_CPUS = (
    0.1  # the least of a generation actor, and on a cluster without GPUs all; it computes on as many threads as ever
)
HALF = 0.5


@dataclass(frozen=True)
class Placement:
    """The shares of a cluster that pools and trainings hold."""

    pool: PoolShape
    trains_here: bool
    """A trial trains in its own process; with more than one worker it starts Ray Train's."""
    trial_cpus: float
    trial_gpus: float
    cpus_taken: float
    """By the generation actors; what is left is for the trainings."""
    gpus_taken: float
    num_trials: int = 1
    """That run at once beside all actors."""
    extra_trials: int = 0
    """That run with what actors give back."""

    @property
    def most_trials(self) -> int:
        """The most trials at once."""
        return self.num_trials + self.extra_trials

    @property
    def actors_each(self) -> float:
        """Actors that hold as much as a trial, by GPUs where trials have them."""
        trial, actor = (
            (self.trial_gpus, self.pool.num_gpus) if self.trial_gpus else (self.trial_cpus, self.pool.num_cpus)
        )
        return trial / actor if actor else 0.0

    def with_extra_trials(
        self, wanted: int, cpus: float, gpus: float, num_pipelines: int, spare_gpus: int
    ) -> "Placement":
        """Return the placement with as many extra trials as fit beside one actor of each pipeline, so that images can
        always be generated."""
        num_actors = (self.pool.num_actors or 1) * num_pipelines

        def fits(extra: int) -> bool:
            trials, left = self.num_trials + extra, num_actors - ceil(extra * self.actors_each)
            return (
                left >= num_pipelines
                and not 0 < self.pool.num_gpus < self.trial_gpus  # parts that are given back may lie on several GPUs
                and trials * self.trial_cpus + left * self.pool.num_cpus + SPARE_CPUS <= cpus
                and trials * self.trial_gpus + left * self.pool.num_gpus + spare_gpus * bool(gpus) <= gpus
            )

        return replace(self, extra_trials=next((extra for extra in range(wanted, 0, -1) if fits(extra)), 0))

    def requests(
        self, training: TrainingSettings, num_trials: int, num_pipelines: int, nodes: Sequence[Node]
    ) -> list[ResourceRequest]:
        """Return the requests of everything that the sweep starts at once; `place` divided the sum of the nodes.

        Raises:
            UserError: the cluster is too small for the workers.
        """
        num_actors = (self.pool.num_actors or 1) * num_pipelines
        actors = ResourceRequest(
            "generation.num_actors", num_actors, "generation actors", num_actors, self.pool.num_cpus, self.pool.num_gpus
        )
        trials = ResourceRequest(
            "sweep.max_concurrent_trials", num_trials, "trials", num_trials, self.trial_cpus, self.trial_gpus
        )
        workers = (
            [] if self.trains_here else [request_workers(training, nodes, num_trials, self.cpus_taken, self.gpus_taken)]
        )
        return [actors, *workers, trials]


def place(
    cpus: float,
    gpus: float,
    generation: GenerationSettings,
    training: TrainingSettings,
    num_trials: int,
    num_pipelines: int = 1,
    spare_gpus: int = 0,
) -> Placement:
    """Divide `cpus` and `gpus` of a whole cluster between shared pools and `num_trials` trainings at once.

    Trainings get a GPU for each worker, the generation actors the others. Where none is left and a training has one
    worker, both have half of each GPU.

    Args:
        cpus: of the cluster.
        gpus: of the cluster.
        generation: what a generation actor asks for.
        training: what a training asks for.
        num_trials: trainings at once.
        num_pipelines: generators that are searched; each has a pool of its own.
        spare_gpus: GPUs that stay free for other work, as scoring.

    Raises:
        UserError: the cluster is too small.
    """
    trains_here = training.num_workers == 1
    share = per_actor = 0.0
    room = int(cpus // generation.cpus_per_actor)
    if gpus:
        needed = training.num_workers * num_trials
        per_actor = 1.0 if generation.gpus_per_actor is None else generation.gpus_per_actor
        left = gpus - spare_gpus - needed
        if left == 0 and trains_here and per_actor:
            share, per_actor, room = HALF, HALF, needed
        elif per_actor:
            room = processes_on(left, per_actor)
        if left < 0 or room < num_pipelines:
            need = (
                f"{needed} for trainings, {spare_gpus} for scores, {per_actor * num_pipelines:g} or more to "
                f"generate with {num_pipelines} generators"
            )
            raise UserError(
                "sweep.max_concurrent_trials",
                num_trials,
                f"the cluster has {gpus:g} GPUs; needed are {need}; ask for fewer trainings at a time",
            )
    num_actors = max(1, min(generation.num_actors or room, max(room, 1)) // num_pipelines)
    all_actors = num_actors * num_pipelines
    cpus_left = cpus - cpus_needed(training, num_trials)
    num_cpus = (
        max(ACTOR_CPUS, min(generation.cpus_per_actor, int(100 * cpus_left / all_actors) / 100)) if gpus else ACTOR_CPUS
    )
    taken = all_actors * num_cpus
    if taken > cpus_left:
        need = (
            f"{all_actors} generation actors at {ACTOR_CPUS:g} and {cpus_needed(training, num_trials):g} for "
            "trainings and reading"
        )
        raise UserError(
            "generation.num_actors",
            generation.num_actors,
            f"the cluster has {cpus:g} CPUs, too few for {need}; ask for fewer",
        )
    trial_cpus = cpus_per_worker(training, cpus - taken, num_trials) if trains_here else TRIAL_CPUS
    trial_gpus = (share or 1.0) if gpus and trains_here else 0.0
    pool = PoolShape(num_actors, num_cpus, per_actor)
    return Placement(pool, trains_here, trial_cpus, trial_gpus, taken, all_actors * per_actor, num_trials)


def cpus_needed(training: TrainingSettings, num_trials: int) -> float:
    """Return the fewest CPUs that trainings and the tasks that read images need."""
    return SPARE_CPUS + num_trials * (TRIAL_CPUS + training.num_workers * MIN_WORKER_CPUS)
