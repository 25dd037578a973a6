"""Measure classifiers with a part of a cluster: that which a trial of a sweep holds, and has no other use for then.

A trial that trains in its own process measures there, too. One that started workers has little itself; what its workers
held is free again, so tasks take it: as many at once as there were workers, with the CPUs and the GPU of one each.
"""

from dataclasses import dataclass
from typing import Any

from raysd.evaluation.evaluate import MAX_DEATHS, PARALLEL_IMAGES, Evaluation, extractions
from raysd.evaluation.features import HERE_PIXELS
from raysd.evaluation.models import EvaluatedModel, own_model
from raysd.evaluation.tasks import MeasuredOn
from raysd.storage.row_types.measured import MeasuredRow


@dataclass(frozen=True)
class Share:
    """Equal parts of a cluster."""

    num_tasks: int
    cpus: float
    gpus: float


def measure_here(evaluation: Evaluation, classifiers: list[str], cpus: float) -> list[MeasuredRow]:
    """Return all rows of some classifiers, measured in this process, which holds so many CPUs and its GPU."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))
    return [row for classifier in classifiers for row in evaluation.measure(classifier, here=True)]


def measure_by_tasks(evaluation: Evaluation, classifiers: list[str], share: Share) -> list[MeasuredRow]:
    """Return all rows of some classifiers, measured by tasks that hold a part of the share each; in this process where
    starting them would take longer.

    The tasks wait until their part is free. A task whose process dies is tried again a few times.
    """
    import ray

    models = [own_model(evaluation.root, classifier) for classifier in classifiers]
    if not _is_much(evaluation, models):
        return measure_here(evaluation, classifiers, 1)
    # "DEFAULT": not within the bundle of the trial, which is small.
    options: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": share.gpus, "scheduling_strategy": "DEFAULT"}
    task = ray.remote(max_retries=MAX_DEATHS, **options)(measure_here)
    waiting, rows = divided(evaluation.sets, classifiers, share.num_tasks), dict[str, MeasuredRow]()
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < share.num_tasks:
                sets, some = waiting.pop(0)
                running.append(task.remote(evaluation.only(sets), some, share.cpus))
            (done,), running = ray.wait(running, num_returns=1)
            rows |= {row["fingerprint"]: row for row in ray.get(done)}
    finally:
        for left in running:  # of an error; they hold what others wait for
            ray.cancel(left, force=True)
    return [rows[key] for classifier in classifiers for key in evaluation.row_fingerprints(classifier)]


def divided(sets: list[MeasuredOn], classifiers: list[str], num_tasks: int) -> list[tuple[list[MeasuredOn], list[str]]]:
    """Return sets and classifiers of each task. Sets that need the same images stay together, since their features are
    computed once; classifiers are divided where there are fewer such groups than tasks."""
    groups: dict[str, list[MeasuredOn]] = {}
    for measured in sets:
        groups.setdefault(measured.images.fingerprint, []).append(measured)
    parts = min(len(classifiers), max(1, num_tasks // max(1, len(groups))))
    return [(group, classifiers[part::parts]) for group in groups.values() for part in range(parts)]


def _is_much(evaluation: Evaluation, models: list[EvaluatedModel]) -> bool:
    """Return whether there are many pixels to see, or many images that probes learn from."""
    todo = [
        (model, measured) for model in models for measured in evaluation.sets if not evaluation.has_row(model, measured)
    ]
    needed = [part for pair in todo for part in extractions(evaluation.root, *pair)]
    pixels = sum(sum(map(len, each.parts)) * each.preprocessing.size**2 for each in needed)
    learned = sum(
        sum(map(len, extractions(evaluation.root, *pair)[0].parts)) for pair in todo if pair[1].train is not None
    )
    return pixels > HERE_PIXELS or learned >= PARALLEL_IMAGES
