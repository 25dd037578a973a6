"""The command that checks a cluster, or this machine, before a job."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from raysd.commands.checks import check_training
from raysd.config import Experiment, ExperimentLike, load_experiment
from raysd.errors import UserError
from raysd.formats import byte_size
from raysd.progress import say

if TYPE_CHECKING:
    from raysd.clone.spec import CloneSpec
    from raysd.cluster.resources import Node, ResourceRequest


def doctor(experiment: ExperimentLike = None, **values: Any) -> list[UserError]:
    """Make all checks of a job, and report what passes. Generates nothing and downloads no weights.

    Training and sweep are checked where the experiment has these sections. Without a running cluster, Ray is started on
    this machine.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        values: keys of the experiment file, merged into `experiment`.

    Returns:
        The failures.

    Raises:
        UserError: `RAY_ADDRESS` names a cluster that does not answer.
    """
    from raysd.cluster.resources import cluster_nodes, describe
    from raysd.cluster.session import ensure_ray
    from raysd.resolve import clone_spec_of

    experiment, failures = load_experiment(experiment, **values), _Failures()
    ensure_ray()
    nodes = cluster_nodes()
    say(f"nodes    {describe(nodes)}: {', '.join(node.name for node in nodes)}")
    request = _check_room(experiment, nodes, failures)
    spec = None
    with failures.noted():
        _check_packages()
    if "training" in experiment.model_fields_set:
        with failures.noted():
            check_training(experiment)
    with failures.noted():
        spec = clone_spec_of(experiment, fetch=False)
    with failures.noted():
        experiment.root.check_writable()
        _check_nodes(experiment, nodes, spec, request, failures)
    if spec is not None:
        with failures.noted():
            _check_disk(experiment, spec)
    return failures.all


class _Failures:
    """The failures found so far."""

    def __init__(self) -> None:
        self.all: list[UserError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Record the error that ends a block."""
        try:
            yield
        except UserError as error:
            self.all.append(error)


def _check_packages() -> None:
    """Check for a package that diffusers does without, but then refuses some models."""
    if find_spec("accelerate") is None:
        remedy = "is not installed, and without it diffusers refuses some models; pip install accelerate"
        raise UserError("packages", "accelerate", remedy)


def _check_room(experiment: Experiment, nodes: "Sequence[Node]", failures: _Failures) -> "ResourceRequest":
    """Check that the cluster has room for what each command starts; return the generation actors."""
    from raysd.cluster.resources import check_room
    from raysd.generation.placement import request_actors
    from raysd.sweep.sweep import plan_placement
    from raysd.training.placement import request_workers

    actors = request_actors(experiment.generation, nodes)
    with failures.noted():
        check_room(nodes, [actors])
        say(f"room     {actors}")
    if "training" in experiment.model_fields_set:
        with failures.noted():
            workers = request_workers(experiment.training, nodes)
            check_room(nodes, [workers])
            say(f"room     {workers}")
    if "sweep" in experiment.model_fields_set:
        with failures.noted():
            _, requests = plan_placement(experiment, nodes)
            check_room(nodes, requests)
            say(f"room     in a sweep: {', '.join(map(str, requests))}")
    return actors


def _check_nodes(
    experiment: Experiment,
    nodes: "Sequence[Node]",
    spec: "CloneSpec | None",
    request: "ResourceRequest",
    failures: _Failures,
) -> None:
    from raysd.cluster.preflight import EQUAL_VERSIONS, survey_failures
    from raysd.cluster.probe import survey
    from raysd.generation.memory import actor_memory, memory_failures
    from raysd.versions import versions

    models, here = () if spec is None else tuple(each for each in spec.weights if each.digest), versions()
    reports = survey(nodes, experiment.root, models, thorough=True)
    found = survey_failures(experiment.root, reports, here, models)
    failures.all += found
    for report in reports:
        if report.dead is None:
            gpus = "".join(f", {gpu.name} with {gpu.num_bytes / 1e9:.0f} GB" for gpu in report.gpus)
            say(f"node     {report.node.name}: {(report.memory or 0) / 1e9:.0f} GB of memory{gpus}")
    broken = {failure.field.partition(".")[0] for failure in found}
    if "storage" not in broken:
        say(f"storage  {experiment.root.uri}: each node reads what the driver writes, and the other way round")
    if "versions" not in broken:
        say(
            f"versions {', '.join(f'{name} {here[name]}' for name in EQUAL_VERSIONS if name in here)}: the "
            "same on all nodes"
        )
    if spec is None:
        return
    lacking = [failure.value for failure in found if failure.field.startswith("generation.")]
    if spec.model.missing_bytes:
        missing = f"{byte_size(spec.model.missing_bytes)} would be downloaded to the driver and to each node"
        say(f"model    {spec.model.name}: {missing}")
    elif fetching := [report.node.name for report in reports if "fetchable" in report.models]:
        say(f"model    {spec.model.name}: would be downloaded to {', '.join(fetching)}")
    elif spec.model.name not in lacking:
        say(f"model    {spec.model.name}, weights {spec.model.digest}: the same on all nodes")
    for lora in spec.loras:
        if lora.name not in lacking:
            say(f"lora     {lora.name}, weights {lora.digest}: the same on all nodes")
    memory = actor_memory(spec, experiment.generation.batch_size)
    say(
        f"memory   a generation actor takes {memory.describe(bool(request.gpus))} (an estimate for batches of "
        f"{experiment.generation.batch_size})"
    )
    failures.all += memory_failures(request, [report for report in reports if report.dead is None], memory)


def _check_disk(experiment: Experiment, spec: "CloneSpec") -> None:
    from raysd.clone.clone import plan_clone
    from raysd.clone.scan import missing_shards
    from raysd.cluster.preflight import check_disk
    from raysd.generation.cost import num_bytes
    from raysd.resolve import replicates

    settings = [each.generation for each in replicates(experiment)]
    clones = [plan_clone(experiment.root, replace(spec, seed=own.seed), own) for own in settings]
    size, free = sum(num_bytes(clone, missing_shards(clone)) for clone in clones), experiment.root.free_bytes()
    check_disk(experiment.root, size)
    say(
        f"disk     about {byte_size(size)} to be written (an estimate), "
        f"{'in an object store' if free is None else f'{byte_size(free)} free'}"
    )
