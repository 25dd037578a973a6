"""Logs of a training: TensorBoard files, MLflow, or Weights & Biases.

Each gets the whole history after each epoch, so that a killed and resumed training leaves one curve without holes.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from raysd.errors import UserError
from raysd.storage.location import Location

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
PROJECT = "raysd"
NOT_CURVES = ("step", "time")
History = list[dict[str, float]]


class Log(Protocol):
    """Log of a classifier's history."""

    def write(self, history: History) -> None:
        """Write the history so far: a row per epoch with `step`, `time`, and the values."""

    def close(self) -> None:
        """End the log of a training."""


def check_logger(logger: str) -> None:
    """Check that a logger's package is installed.

    Raises:
        UserError: the package is missing; the message names the command that installs it.
    """
    if logger in PACKAGES and find_spec(PACKAGES[logger]) is None:
        package = PACKAGES[logger] if logger == "tensorboard" else f"'raysd[{logger}]'"
        raise UserError("training.logger", logger, f"needs the package {PACKAGES[logger]}; pip install {package}")


def open_log(logger: str, root: Location, classifier: str, record: dict[str, Any]) -> Log | None:
    """Return the log of one classifier, by its fingerprint; None for the logger `none`."""
    if logger == "tensorboard":
        return TensorBoardLog(root.child("logs", classifier))
    if logger == "mlflow":
        return MlflowLog(classifier, record)
    if logger == "wandb":
        return WandbLog(classifier, record)
    return None


class TensorBoardLog:
    """Log in one event file in the storage root, written anew after each epoch."""

    def __init__(self, folder: Location) -> None:
        self.folder = folder

    def write(self, history: History) -> None:
        """Replace the event file."""
        from tensorboardX import SummaryWriter

        with tempfile.TemporaryDirectory() as folder:
            writer = SummaryWriter(folder)
            for row in history:
                for name, value in row.items():
                    if name not in NOT_CURVES:
                        writer.add_scalar(name, value, int(row["step"]), walltime=row["time"])
            writer.close()
            (file,) = Path(folder).iterdir()
            self.folder.write("events.out.tfevents.0.raysd", file.read_bytes())

    def close(self) -> None:
        """Do nothing: no file is open."""


class MlflowLog:
    """Log in a run named by the classifier's fingerprint, on the server of `MLFLOW_TRACKING_URI`."""

    def __init__(self, classifier: str, record: dict[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        self.client, self.num_written = MlflowClient(), 0
        experiment = self.client.get_experiment_by_name(PROJECT)
        experiment_id = experiment.experiment_id if experiment is not None else self.client.create_experiment(PROJECT)
        found = self.client.search_runs([experiment_id], f"tags.classifier = '{classifier}'")
        run = (
            found[0]
            if found
            else self.client.create_run(experiment_id, run_name=classifier, tags={"classifier": classifier})
        )
        self.run_id = run.info.run_id
        if not found:
            for name, value in _parameters(record).items():
                self.client.log_param(self.run_id, name, value)

    def write(self, history: History) -> None:
        """Send the new rows; an existing row gets the same values."""
        for row in history[self.num_written :]:
            for name, value in row.items():
                if name not in NOT_CURVES:
                    self.client.log_metric(self.run_id, name, value, int(row["time"] * 1000), int(row["step"]))
        self.num_written = len(history)

    def close(self) -> None:
        """Mark the run as finished."""
        self.client.set_terminated(self.run_id)


class WandbLog:
    """Log in a run whose id is the classifier's fingerprint; `WANDB_MODE=offline` keeps it on disk."""

    def __init__(self, classifier: str, record: dict[str, Any]) -> None:
        import wandb

        self.run = wandb.init(project=PROJECT, id=classifier, resume="allow", config=_parameters(record))
        self.num_written = 0

    def write(self, history: History) -> None:
        """Send the new rows."""
        for row in history[self.num_written :]:
            self.run.log({name: value for name, value in row.items() if name not in NOT_CURVES}, step=int(row["step"]))
        self.num_written = len(history)

    def close(self) -> None:
        """End the run."""
        self.run.finish()


def _parameters(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record's values under flat names."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= {f"{name}.{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {name: value}
    return flat
