import json
import os
import subprocess
import sys

import pytest

from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.logs import check_logger, open_log

HISTORY = [{"step": step, "time": 1e9 + step, "loss": 2.0 / step, "learning_rate": 0.1} for step in (10, 20, 30)]


def test_tensorboard_files_hold_the_whole_history_after_each_epoch(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for until in (1, 3):
        log = open_log("tensorboard", Location(str(tmp_path)), "abc", {})
        log.write(HISTORY[:until])
        curves = EventAccumulator(str(tmp_path / "logs" / "abc")).Reload()
        assert [event.step for event in curves.Scalars("loss")] == [10, 20, 30][:until]
    assert set(curves.Tags()["scalars"]) == {"loss", "learning_rate"}
    assert len(list((tmp_path / "logs" / "abc").iterdir())) == 1


def test_a_training_that_goes_on_keeps_its_mlflow_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None, raising=False)
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    record = {"num_epochs": 3, "recipe": {"optimizer": "sgd"}}
    for until in (2, 3):
        log = open_log("mlflow", Location(str(tmp_path)), "abc", record)
        log.write(HISTORY[:until])
    log.close()
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name("raysd")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"num_epochs": "3", "recipe.optimizer": "sgd"}
    assert {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")} == {
        row["step"]: row["loss"] for row in HISTORY
    }


def test_weights_and_biases_gets_the_rows(tmp_path):
    pytest.importorskip("wandb")
    code = f"""
from raysd.storage.location import Location
from raysd.training.logs import open_log
log = open_log("wandb", Location("."), "abc", {{"num_epochs": 3}})
log.write({json.dumps(HISTORY)})
log.close()
"""
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=os.getcwd(), env=environment, check=True, timeout=120)
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert str(HISTORY[-1]["loss"]).encode() in written.read_bytes()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("raysd.training.logs.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^training\.logger = 'wandb': needs .*; pip install 'raysd\[wandb\]'$"):
        check_logger("wandb")
    check_logger("none")
