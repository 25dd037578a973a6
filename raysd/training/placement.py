"""The resources of a cluster that the workers of a training, and the processes of trials, hold."""

from collections.abc import Sequence

from raysd.cluster.resources import Node, ResourceRequest
from raysd.errors import UserError
from raysd.training.settings import TrainingSettings

MIN_WORKER_CPUS = 0.1

SPARE_CPUS = 1.0  # left for Ray Data's tasks

TRIAL_CPUS = 0.1  # held by the process of each trial of a sweep


def request_workers(
    settings: TrainingSettings,
    nodes: Sequence[Node],
    num_concurrent: int = 1,
    cpus_taken: float = 0.0,
    gpus_taken: float = 0.0,
) -> ResourceRequest:
    """Return the request for the workers of all trainings that run at once; the least that they start with.

    Raises:
        UserError: the cluster is too small.
    """
    cpus = cpus_per_worker(settings, sum(node.cpus for node in nodes) - cpus_taken, num_concurrent)
    use_gpu = _uses_gpus(settings, sum(node.gpus for node in nodes) - gpus_taken, num_concurrent)
    count = settings.least_workers * num_concurrent
    return ResourceRequest(
        "training.num_workers", settings.num_workers, "training workers", count, cpus, float(use_gpu)
    )


def cpus_per_worker(settings: TrainingSettings, cpus: float, num_concurrent: int) -> float:
    """Return the CPUs of each worker: as set, or less on a small machine, to leave room for reading the images."""
    room = round((cpus - SPARE_CPUS - TRIAL_CPUS * num_concurrent) / (settings.num_workers * num_concurrent), 6)
    if room < MIN_WORKER_CPUS:
        need = f"{num_concurrent} trainings of {settings.num_workers} workers"
        raise UserError(
            "training.num_workers",
            settings.num_workers,
            f"the cluster has {cpus:g} CPUs, too few for {need} and {SPARE_CPUS:g} to read images",
        )
    return min(settings.cpus_per_worker, int(room * 100) / 100)


def _uses_gpus(settings: TrainingSettings, gpus: float, num_concurrent: int) -> bool:
    """Return whether each worker gets a GPU, which is so on a cluster that has any."""
    needed = settings.least_workers * num_concurrent
    if 0 < gpus < needed:
        raise UserError(
            "training.num_workers",
            settings.num_workers,
            f"{num_concurrent} at once need {needed} GPUs, the cluster has {gpus:g}; ask for fewer",
        )
    return gpus >= needed
