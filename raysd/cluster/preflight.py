"""Checks of a cluster before a job: storage, software and models of its nodes, and the disk.

The checks are plain functions over the reports of `raysd.cluster.probe`. Each returns one error per failure.
`check_cluster`, which a job calls, raises the first one.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from raysd.cluster.probe import NodeReport, survey
from raysd.cluster.resources import cluster_nodes, wait_for_nodes
from raysd.cluster.settings import ClusterSettings
from raysd.errors import UserError
from raysd.formats import byte_size
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
        "is not in the hub's cache on {nodes}, and the hub cannot be reached from there; "
        "fetch it there first, or give a folder all nodes see"
    ),
}


def check_cluster(root: Location, wanted: ClusterSettings, models: "Sequence[Model | Lora]" = ()) -> None:
    """Check that a running cluster's nodes answer, see the storage and the models, and have this process's versions.

    Takes a second or two once the nodes are there. Compares the names and sizes of a model's files, and the content of
    LoRA weights. Does nothing where the job runs on this machine alone.

    Args:
        root: the storage root.
        wanted: the nodes to wait for.
        models: the models and LoRA weights that the job needs.

    Raises:
        UserError: the first failure.
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
    """Check that a local disk has room for `num_bytes` more.

    Raises:
        UserError: the disk has less.
    """
    free = root.free_bytes()
    if free is not None and num_bytes > free:
        why = f"about {byte_size(num_bytes)} are still to be written, and {byte_size(free)} are free"
        raise UserError("storage", root.uri, f"{why}; free some space, or use another storage")


def survey_failures(
    root: Location, reports: Sequence[NodeReport], here: dict[str, str], models: "Sequence[Model | Lora]" = ()
) -> list[UserError]:
    """Return what is wrong with the nodes, one error per failure.

    Args:
        root: the storage root.
        reports: the reports of all nodes.
        here: this process's versions.
        models: the models that were looked for, in the order of the reports' `models`.
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
    """Return an error for each reason why nodes cannot use the storage."""
    nodes = _by_word((report.unseen, report.node.name) for report in reports if report.unseen is not None)
    remedy = "mount one folder on all nodes, or use s3:// or gs://"
    return [UserError("storage", root.uri, f"{reason}, on {names}; {remedy}") for reason, names in nodes.items()]


def version_failures(reports: Sequence[NodeReport], here: dict[str, str]) -> list[UserError]:
    """Return an error for each package whose version differs between the driver and a node."""
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
    """Return an error for each model or LoRA file that nodes lack and cannot fetch, and for each reason."""
    failures = []
    for place, model in enumerate(models):
        nodes = _by_word((report.models[place], report.node.name) for report in reports)
        texts = [
            text.format(noun=model.noun, nodes=nodes[word]) for word, text in MODEL_REMEDIES.items() if word in nodes
        ]
        failures += [UserError(model.field, model.name, text) for text in texts]
    return failures


def _by_word(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the names for each word, joined by commas."""
    found = defaultdict(list)
    for word, name in pairs:
        found[word].append(name)
    return {word: ", ".join(names) for word, names in found.items()}
