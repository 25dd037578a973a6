"""A run in TensorBoard files, MLflow, or Weights & Biases.

A run is always written as a whole, as far as it is known. So a sweep or an evaluation that is killed and started again
leaves one run without holes, and writing it twice changes nothing.
"""

import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysd.storage.location import Location
from raysd.training.logs import PROJECT

EVENTS = "events.out.tfevents.1.raysd"  # beside that of a training
NOT_IN_NAMES = re.compile(r"[^\w./ -]+")  # what MLflow takes in the names of metrics and parameters
LONGEST_VALUE = 500  # characters of a parameter in MLflow


@dataclass(frozen=True)
class Point:
    """Values at one step."""

    step: int
    time: float
    """In seconds since 1970."""
    values: Mapping[str, float]


@dataclass(frozen=True)
class LoggedImage:
    """An image at one step."""

    name: str
    step: int
    png: bytes


@dataclass(frozen=True)
class LoggedRun:
    """All that is known of a run."""

    id: str
    """The same whenever it is written."""
    kind: str
    """`classifier`, `sweep` or `sweep_setting`; the tag that holds its id in MLflow."""
    name: str
    folder: tuple[str, ...]
    """Below `logs/` of the storage root, for TensorBoard."""
    parameters: Mapping[str, Any]
    points: tuple[Point, ...] = ()
    images: tuple[LoggedImage, ...] = ()
    group: str = ""
    """Id of the sweep that it belongs to."""
    is_done: bool = True


def write_run(logger: str, root: Location, run: LoggedRun) -> None:
    """Write a run to a logger: `tensorboard`, `mlflow`, `wandb` or `none`."""
    if logger == "tensorboard":
        _write_tensorboard(root.child("logs", *run.folder), run)
    elif logger == "mlflow":
        _write_mlflow(run)
    elif logger == "wandb":
        _write_wandb(run)


def _write_tensorboard(folder: Location, run: LoggedRun) -> None:
    """Replace the event file, with the parameters beside the last values in the tab HParams."""
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import hparams

    with tempfile.TemporaryDirectory() as place:
        writer = SummaryWriter(place)
        if run.points and run.parameters:
            last = {name: value for point in run.points for name, value in point.values.items()}
            for summary in hparams(_flat(run.parameters), last):
                writer.file_writer.add_summary(summary)
        for point in run.points:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.step, walltime=point.time)
        for image in run.images:
            writer.add_image(image.name, _pixels(image.png), image.step, dataformats="HWC")
        writer.close()
        (file,) = Path(place).iterdir()
        folder.write(EVENTS, file.read_bytes())


def _write_mlflow(run: LoggedRun) -> None:
    """Write to the run with this id on the server of `MLFLOW_TRACKING_URI`; what is there is not sent again."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(PROJECT)
    experiment = found.experiment_id if found is not None else client.create_experiment(PROJECT)

    def find(kind: str, key: str) -> Any:
        return next(iter(client.search_runs([experiment], f"tags.{kind} = '{key}'")), None)

    stored = find(run.kind, run.id)
    if stored is None:
        parent = find("sweep", run.group) if run.group else None
        tags = {run.kind: run.id, **({"mlflow.parentRunId": parent.info.run_id} if parent is not None else {})}
        stored = client.create_run(experiment, run_name=run.name, tags=tags)
    key = stored.info.run_id
    for name, value in _flat(run.parameters).items():
        if _plain(name) not in stored.data.params:
            client.log_param(key, _plain(name), str(value)[:LONGEST_VALUE])
    known: dict[str, set[tuple[int, float]]] = {}
    for point in run.points:
        for name, value in point.values.items():
            metric = _plain(name)
            if metric not in known:
                known[metric] = {(each.step, each.value) for each in client.get_metric_history(key, metric)}
            if (point.step, value) not in known[metric]:
                client.log_metric(key, metric, value, int(point.time * 1000), point.step)
    there = {artifact.path for artifact in client.list_artifacts(key)} if run.images else set()
    for image in run.images:
        name = f"{image.name}-{image.step}.png"
        if name in there:
            continue
        with tempfile.TemporaryDirectory() as place:
            file = Path(place, name)
            file.write_bytes(image.png)
            client.log_artifact(key, str(file))
    if run.is_done:
        client.set_terminated(key)


def _write_wandb(run: LoggedRun) -> None:
    """Write to the run with this id; of a classifier into the summary, beside the curves of its training."""
    import wandb
    from PIL import Image

    options: dict[str, Any] = {"group": run.group, "job_type": run.kind} if run.group else {}
    if run.kind != "classifier":
        options["name"] = run.name
    opened = wandb.init(project=PROJECT, id=run.id, resume="allow", config=_flat(run.parameters), **options)
    for point in run.points:
        if run.kind == "classifier":
            opened.summary.update(dict(point.values))
        else:
            opened.log(dict(point.values), step=point.step)
    for image in run.images:
        opened.log({image.name: wandb.Image(Image.open(io.BytesIO(image.png)))}, step=image.step)
    opened.finish()


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that all loggers take: numbers, texts and truth values; others as text."""
    return {
        name: value if isinstance(value, str | int | float | bool) else str(value) for name, value in parameters.items()
    }


def _plain(name: str) -> str:
    return NOT_IN_NAMES.sub("_", name)


def _pixels(png: bytes) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
