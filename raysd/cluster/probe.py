"""A probe of each node of a cluster: does it see the storage and the models, which versions and memory does it have?

1. The driver writes a token into a fresh folder below the storage root.
2. A small task on each node reads the token, writes its own, and reports what else there is. A node that does not see
   the driver's token writes nothing.
3. The driver looks for the nodes' tokens, and deletes the folder.
"""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raysd.cluster.resources import Node
from raysd.errors import UserError
from raysd.progress import say
from raysd.storage.location import Location
from raysd.versions import versions

if TYPE_CHECKING:
    from raysd.diffusion.checkpoint import Lora, Model

ANSWER_SECONDS, SAY_SECONDS = 300.0, 30.0  # a worker process starts in seconds, the first one of a cold node in minutes
GPU_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
DRIVER = "driver"
# A model or LoRA file on a node: the driver's, another one under the same path, none; LoRA weights that cannot be
# loaded there; a hub model that would be fetched, or cannot be.
Presence = Literal["same", "other", "absent", "unloadable", "fetchable", "unreachable"]


@dataclass(frozen=True)
class Gpu:
    """One GPU of a node."""

    name: str
    num_bytes: int


@dataclass(frozen=True)
class NodeReport:
    """State of a node, as a process on it sees it."""

    node: Node
    unseen: str | None = None
    """Reason why the node cannot use the storage; None when it can."""
    versions: tuple[tuple[str, str], ...] = ()
    """Packages and their versions."""
    memory: int | None = None
    """Memory that all processes may use, in bytes."""
    gpus: tuple[Gpu, ...] = ()
    models: tuple[Presence, ...] = ()
    """Presence of each model and LoRA file that was looked for."""
    dead: str | None = None
    """Reason why the node did not answer; None when it did."""


def survey(
    nodes: Sequence[Node], root: Location, models: "Sequence[Model | Lora]" = (), thorough: bool = False
) -> list[NodeReport]:
    """Look at all nodes at once, and leave out those that are gone by then; Ray has to be connected.

    Args:
        nodes: the nodes of the cluster.
        root: the storage root, which this process can write to.
        models: the models and LoRA weights as found here; none when nothing is generated.
        thorough: whether to compare the models' weights, not only the names and sizes of their files. LoRA weights,
            many of which are equally large, are always compared.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder, token = root.child(f".preflight-{uuid.uuid4().hex}"), uuid.uuid4().hex
    marked = [(model, _expected_mark(model, thorough)) for model in models]
    folder.write(DRIVER, token.encode())
    try:
        task = ray.remote(num_cpus=0, max_retries=0)(look)
        answers = {}
        for node in nodes:
            pinned = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False))
            answers[pinned.remote(node, folder, token, marked, thorough)] = node
        ready, late = _wait_for(answers)
        reports = [NodeReport(answers[answer], dead=f"did not answer in {ANSWER_SECONDS:g} s") for answer in late]
        for answer in ready:
            try:
                reports.append(_confirmed(ray.get(answer), folder))
            except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
                continue  # it is gone
            except ray.exceptions.RayError as error:
                reports.append(NodeReport(answers[answer], dead=f"cannot run raysd ({_last_line(error)})"))
    finally:
        folder.delete_folder()
    return sorted(reports, key=lambda report: report.node.name)


def _wait_for(answers: dict[Any, Node]) -> tuple[list[Any], list[Any]]:
    """Return the tasks that ended, and those that did not end in time."""
    import ray

    late, ended = list(answers), time.monotonic() + ANSWER_SECONDS
    while late and (left := ended - time.monotonic()) > 0:
        _, late = ray.wait(late, num_returns=len(late), timeout=min(SAY_SECONDS, left))
        if late:
            names = ", ".join(answers[answer].name for answer in late)
            say(f"waiting for {names} to answer; a node's first process may take minutes")
    return [answer for answer in answers if answer not in set(late)], late


def look(
    node: Node, folder: Location, token: str, marked: "list[tuple[Model | Lora, str | None]]", thorough: bool
) -> NodeReport:
    """Return what the node of this process sees; runs there."""
    models = tuple(_presence(model, mark, thorough) for model, mark in marked)
    return NodeReport(
        node, _use_storage(node, folder, token), tuple(versions().items()), memory_bytes(), gpus_here(), models
    )


def _expected_mark(model: "Model | Lora", thorough: bool) -> str | None:
    from raysd.diffusion.checkpoint import Lora

    # The digest of LoRA weights is the one in the clone's fingerprint.
    return model.digest if isinstance(model, Lora) else model_mark(model, thorough)


def _presence(model: "Model | Lora", expected: str | None, thorough: bool) -> Presence:
    from raysd.diffusion.checkpoint import Lora, has_peft
    from raysd.storage.hub import asked_repository

    mark = model_mark(model, thorough)
    if mark == expected:
        return "unloadable" if isinstance(model, Lora) and not has_peft() else "same"
    if isinstance(model, Lora) or model.commit is None:
        return "absent" if mark is None else "other"
    # The files of a commit are always the same, so a difference means that some are missing.
    return "unreachable" if asked_repository(model.name, model.commit) is None else "fetchable"


def model_mark(model: "Model | Lora", thorough: bool) -> str | None:
    """Return a mark that is equal where the model is the same; None where the model is missing.

    It is a hash of the weights if `thorough`, else of the names and sizes of the files.
    """
    from raysd.diffusion.checkpoint import Lora, pipeline_mark

    return model.digest_here() if isinstance(model, Lora) else pipeline_mark(model, thorough)


def memory_bytes() -> int:
    """Return the memory of this machine, or of its container, in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    texts = [limit.read_text().strip() for limit in limits if limit.is_file()]
    return min([total, *(int(text) for text in texts if text.isdigit())])


def gpus_here() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs of this machine, also those that this process may not use; torch is not loaded."""
    if shutil.which(GPU_QUERY[0]) is None:
        return ()
    try:
        lines = subprocess.run(GPU_QUERY, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (subprocess.SubprocessError, OSError):
        return ()
    pairs = (line.rpartition(",") for line in lines if line.strip())
    return tuple(
        Gpu(name.strip(), int(float(size) * 2**20))
        for name, _, size in pairs
        if size.strip().replace(".", "").isdigit()
    )


def _use_storage(node: Node, folder: Location, token: str) -> str | None:
    try:
        if not folder.exists(DRIVER) or folder.read(DRIVER).decode() != token:
            return "another disk than the driver’s is there"
        folder.write(node.id, token.encode())
    except UserError as error:
        return error.remedy
    except OSError as error:
        return f"it cannot be used ({error.strerror or error})"
    return None


def _confirmed(report: NodeReport, folder: Location) -> NodeReport:
    """Return the report, with a failure if this process does not see what the node wrote."""
    if report.unseen is None and not folder.exists(report.node.id):
        return replace(report, unseen="what is written there does not reach the driver")
    return report


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200]
