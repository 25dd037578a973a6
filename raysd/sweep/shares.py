"""How a sweep shares a cluster out between drawing and training, so that neither waits for the other for ever."""

from collections.abc import Sequence
from dataclasses import dataclass

from raysd.clone.settings import GenerationSettings
from raysd.clone.standing_pool import PoolShape
from raysd.errors import UserError
from raysd.nodes import Ask, Node, check_room
from raysd.training.settings import TrainingSettings
from raysd.training.train import TRIAL_CPUS, ask_for_workers, cpus_per_worker

DRAWER_CPUS = 0.1  # of a diffusion actor on a cluster without GPUs; it computes on as many threads as ever, while a training waits or beside it
HALF = 0.5


@dataclass(frozen=True)
class Shares:
    """Who holds what."""

    pool: PoolShape
    trains_here: bool
    """A trial trains in its own process; with more than one worker it starts Ray Train's."""
    trial_cpus: float
    trial_gpus: float
    cpus_taken: float
    """By the diffusion actors; what is left is for the trainings."""
    gpus_taken: float

    def asks(self, training: TrainingSettings, num_trials: int, nodes: Sequence[Node]) -> list[Ask]:
        """What the sweep starts at the same time.

        Raises:
            UserError: the cluster is too small for the workers.
        """
        pool = self.pool
        actors = Ask("generation.num_actors", pool.num_actors, "diffusion actors", pool.num_actors, pool.num_cpus, pool.num_gpus)
        trials = Ask("sweep.max_concurrent_trials", num_trials, "trials", num_trials, self.trial_cpus, self.trial_gpus)
        workers = [] if self.trains_here else [ask_for_workers(training, nodes, num_trials, self.cpus_taken, self.gpus_taken)]
        return [actors, *workers, trials]


def fitting_shares(nodes: Sequence[Node], generation: GenerationSettings, training: TrainingSettings, num_trials: int) -> Shares:
    """`share_out` of some nodes, with all that is started fitting on them.

    Raises:
        UserError: the nodes are too few or too small.
    """
    shares = share_out(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes), generation, training, num_trials)
    check_room(nodes, shares.asks(training, num_trials, nodes))
    return shares


def share_out(cpus: float, gpus: float, generation: GenerationSettings, training: TrainingSettings, num_trials: int) -> Shares:
    """Share `cpus` and `gpus` of a whole cluster out between a standing pool and `num_trials` trainings at a time.

    Trainings get a GPU for each worker, the diffusion actors the others. Where none is left and a training has one worker, both have half of each GPU.
    With filters one GPU stays free, for the actor that scores pictures.

    Raises:
        UserError: the cluster is too small.
    """
    trains_here = training.num_workers == 1
    needed = training.num_workers * num_trials
    if not gpus:
        num_actors = generation.num_actors or max(1, int(cpus // generation.cpus_per_actor))
        taken = num_actors * DRAWER_CPUS
        pool = PoolShape(num_actors, DRAWER_CPUS, 0.0)
        return Shares(pool, trains_here, _trial_cpus(cpus - taken, training, num_trials), 0.0, taken, 0.0)
    per_actor = 1.0 if generation.gpus_per_actor is None else generation.gpus_per_actor
    scoring = bool(training.filters or any(source.filters for source in training.sources))
    gpus -= scoring
    is_shared = gpus == needed and trains_here
    left = HALF * gpus if is_shared else gpus - needed
    if left < min(per_actor, left or per_actor) or left <= 0:
        remedy = f"trainings of {training.num_workers} workers need {needed} of the cluster's {gpus:g} GPUs, and none is left to draw with; ask for fewer"
        raise UserError("sweep.max_concurrent_trials", num_trials, remedy)
    share = HALF if is_shared else per_actor
    room = max(1, int(left // share)) if share else generation.num_actors or 1
    num_actors = min(generation.num_actors or room, room)
    taken = num_actors * generation.cpus_per_actor
    pool = PoolShape(num_actors, generation.cpus_per_actor, share)
    trial_gpus = (HALF if is_shared else 1.0) if trains_here else 0.0
    return Shares(pool, trains_here, _trial_cpus(cpus - taken, training, num_trials), trial_gpus, taken, num_actors * share)


def _trial_cpus(cpus: float, training: TrainingSettings, num_trials: int) -> float:
    """A trial that trains by itself holds a worker's CPUs; another one hardly any."""
    per_worker = cpus_per_worker(training, cpus, num_trials)
    return per_worker if training.num_workers == 1 else TRIAL_CPUS
