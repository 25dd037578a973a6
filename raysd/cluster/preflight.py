"""What is checked of a cluster before a job: storage, software, models, memory and disk of its nodes.

The checks are plain functions over what `raysd.cluster.probe` saw. Each gives one line per failure. `check_cluster` is
what a job does: it stops at the first.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from raysd.cluster.probe import NodeReport, survey
from raysd.cluster.resources import cluster_nodes, wait_for_nodes
from raysd.cluster.settings import ClusterSettings
from raysd.errors import UserError
from raysd.formats import short
from raysd.storage.location import Location
from raysd.versions import versions

if TYPE_CHECKING:
    from raysd.diffusion.checkpoint import Lora, Model

EQUAL_VERSIONS = ("python", "raysd", "ray", "torch", "diffusers", "transformers", "timm", "pyarrow")
MODEL_REMEDIES = {
    "absent": "is not on {nodes}; put it where all nodes see it, or at the same path on each",
    "other": "is another {noun} on {nodes}; copy the driver's there, or put it where all nodes see it",
    "unloadable": "needs the package peft, which is absent on {nodes}; pip install peft there",
    "unreachable": (
        "is not in the hub's cache on {nodes}, and the hub cannot be reached from there; fetch it there first, "
        "or give a folder all nodes see"
    ),
}


def check_cluster(root: Location, wanted: ClusterSettings, models: "Sequence[Model | Lora]" = ()) -> None:
    """Before a job on a running cluster of several nodes: they are there, answer, see the storage and the models,
    and run this process's versions.

    Takes a second or two once the nodes are there, and looks at the names and sizes of a model's files, and at the
    content of LoRA weights. Does nothing where the job runs on this machine alone.

    Args:
        root: the storage root.
        wanted: what is waited for.
        models: that the job needs, and LoRA weights.

    Raises:
        UserError: the first thing that is wrong.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return
    import ray

    from raysd.cluster.session import ensure_ray

    ensure_ray()
    wait_for_nodes(wanted.cpus, wanted.gpus, wanted.wait_minutes)
    nodes = cluster_nodes()
    if [node.id for node in nodes] == [ray.get_runtime_context().get_node_id()]:
        return
    for failure in survey_failures(root, survey(nodes, root, models), versions(), models):
        raise failure


def check_disk(root: Location, num_bytes: float) -> None:
    """There is room on a local disk for so many bytes more.

    Raises:
        UserError: there is not.
    """
    free = root.free_bytes()
    if free is not None and num_bytes > free:
        remedy = (
            f"about {short(num_bytes / 1e9)} GB are still to be written, and {short(free / 1e9)} GB are free; "
            "free some space, or use another storage"
        )
        raise UserError("storage", root.uri, remedy)


def survey_failures(
    root: Location, reports: Sequence[NodeReport], here: dict[str, str], models: "Sequence[Model | Lora]" = ()
) -> list[UserError]:
    """What is wrong with the nodes, a line each.

    Args:
        root: the storage root.
        sights: of all nodes.
        here: this process's versions.
        models: those that were looked for, in the order of the sights' own.
    """
    answered = [report for report in reports if report.dead is None]
    dead = [
        UserError("node", report.node.name, f"{report.dead}; install raysd there, and see that the node is well")
        for report in reports
        if report.dead is not None
    ]
    return [
        *dead,
        *storage_failures(root, answered),
        *version_failures(answered, here),
        *model_failures(answered, models),
    ]


def storage_failures(root: Location, reports: Sequence[NodeReport]) -> list[UserError]:
    """Nodes that cannot use the storage, a line per reason."""
    nodes = _by_word((report.unseen, report.node.name) for report in reports if report.unseen is not None)
    remedy = "mount one folder on all nodes, or use s3:// or gs://"
    return [UserError("storage", root.uri, f"{reason}, on {names}; {remedy}") for reason, names in nodes.items()]


def version_failures(reports: Sequence[NodeReport], here: dict[str, str]) -> list[UserError]:
    """Packages whose version differs between the driver and a node, a line per package."""
    failures = []
    for package in EQUAL_VERSIONS:
        ours = here.get(package, "absent")
        theirs = ((dict(report.versions).get(package, "absent"), report.node.name) for report in reports)
        if others := _by_word((version, name) for version, name in theirs if version != ours):
            found = ", ".join(f"{version} on {names}" for version, names in others.items())
            failures.append(
                UserError(
                    f"versions.{package}",
                    ours,
                    f"is the driver's, but {found}; use one image, or install the same everywhere",
                )
            )
    return failures


def model_failures(reports: Sequence[NodeReport], models: "Sequence[Model | Lora]") -> list[UserError]:
    """Models and LoRA weights that some nodes lack and cannot fetch, a line for each and each reason."""
    failures = []
    for place, model in enumerate(models):
        nodes = _by_word((report.models[place], report.node.name) for report in reports)
        texts = [
            text.format(noun=model.noun, nodes=nodes[word]) for word, text in MODEL_REMEDIES.items() if word in nodes
        ]
        failures += [UserError(model.field, model.name, text) for text in texts]
    return failures


def _by_word(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names by word, with commas."""
    found = defaultdict(list)
    for word, name in pairs:
        found[word].append(name)
    return {word: ", ".join(names) for word, names in found.items()}
