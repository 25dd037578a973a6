"""Sweeps and evaluations in the loggers: real event files, a real MLflow file store, and W&B without a network."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from stand_in import StandIn, actor_of, job_of

from raysd.config import Experiment
from raysd.storage.location import Location
from raysd.storage.rows import ACCURACY, RUNG_RESULT, write_row
from raysd.tracking.evaluation_log import log_evaluation
from raysd.tracking.sweep_log import SweepLog

SCORES = {(0, 0): [50.0], (1, 0): [60.0], (1, 1): [70.0, 72.0]}
"""Scores by seed of each number of a setting and rung."""
ANSWER = {
    "fingerprint": "abc",
    "rung_results": [f"{number}{rung}" for number, rung in SCORES],
    "best": {"label": "guidance 2", "score": 71.0, "low": 69.5, "high": 72.5, "images_per_class": 100},
}


def rung_result(number, rung, scores):
    return {
        "fingerprint": f"{number}{rung}",
        "sweep": "abc",
        "number": number,
        "setting": {"generation.guidance_scale": number + 1.0, "generation.variant": "name"},
        "label": f"name, guidance {number + 1}",
        "clone": "x",
        "rung": rung,
        "images_per_class": [25, 100][rung],
        "seeds": list(range(len(scores))),
        "seed_scores": scores,
        "score": float(np.mean(scores)) if scores else None,
        "seconds": {"generate": 3.0, "train": 2.0, "measure": 1.0},
        "proxies": {"similarity": 0.3, "other": None},
        "num_images": 250,
        "num_flagged": 1,
        "date": "2026-01-02T03:04:05Z",
    }


@pytest.fixture
def root(tmp_path):
    """A storage root with the clone of the settings, and their rung results."""
    clone = job_of(tmp_path / "clones" / "x", image_size=8)
    actor_of(clone, StandIn()).generate_shard(clone, 0)
    for (number, rung), scores in SCORES.items():
        write_row(Location(str(tmp_path)), RUNG_RESULT, rung_result(number, rung, scores))
    return tmp_path


def experiment(root, logger):
    space = {"generation": {"guidance_scale": [1, 2]}}
    return Experiment(name="mine", storage=str(root), training={"logger": logger}, sweep={"space": space})


def accuracy_row(classifier, **values):
    row = {
        "fingerprint": hashlib.sha256(f"{classifier}{values}".encode()).hexdigest()[:16],
        "classifier": classifier,
        "trained_on": {"kind": "clone"},
        "role": "test",
        "dataset": "fashion_mnist",
        "shots": None,
        "probe_label": "",
        "metric": "top1",
        "value": 85.5,
        "low": 84.0,
        "high": 87.0,
        "date": "2026-01-02T03:04:05Z",
    }
    return {**row, **values}


ROWS = [
    accuracy_row("c0"),
    accuracy_row("c0", role="transfer", dataset="/data/birds", shots=4, value=40.0),
    accuracy_row("c0", dataset="broken", value=None),
    accuracy_row("p", trained_on={"kind": "pretrained"}),
]


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_gets_a_run_for_each_setting_with_scores_settings_and_sample_images(root):
    log = SweepLog(experiment(root, "tensorboard"))
    log.add("00")
    (folder,) = (root / "logs" / "sweep-abc").glob("0000-*")
    first = events(folder)
    assert [(event.step, event.value) for event in first.Scalars("score")] == [(25, 50.0)]
    log.finish(ANSWER)
    log.finish(ANSWER)  # which changes nothing
    (folder,) = (root / "logs" / "sweep-abc").glob("0001-*guidance-2*")
    second = events(folder)
    assert [(event.step, event.value) for event in second.Scalars("score")] == [(25, 60.0), (100, 71.0)]
    assert {"seed_score/1", "seconds/generate", "proxy/similarity", "images"} <= set(second.Tags()["scalars"])
    (image,) = second.Images("samples")
    assert image.step == 100 and image.encoded_image_string.startswith(b"\x89PNG")
    assert "_hparams_/session_start_info" in second.summary_metadata
    answer = events(root / "logs" / "sweep-abc" / "answer")
    assert [event.value for event in answer.Scalars("best_score_low")] == [69.5]
    assert len(list((root / "logs" / "sweep-abc").rglob("events*"))) == 3


def test_tensorboard_gets_the_accuracies_beside_the_curves_of_the_training(root):
    from raysd.training.logs import open_log

    (root / "classifiers" / "c0").mkdir(parents=True)
    (root / "classifiers" / "c0" / "record.json").write_text(json.dumps({"num_steps": 30}))
    open_log("tensorboard", Location(str(root)), "c0", {}).write([{"step": 30, "time": 1e9, "loss": 0.5}])
    log_evaluation("tensorboard", Location(str(root)), ROWS)
    found = events(root / "logs" / "c0")
    assert [event.value for event in found.Scalars("loss")] == [0.5]
    (accuracy,) = found.Scalars("test/fashion_mnist/top1")
    assert (accuracy.step, accuracy.value) == (30, 85.5)
    assert found.Scalars("test/fashion_mnist/top1_low")[0].value == 84.0
    assert [tag for tag in found.Tags()["scalars"] if "birds" in tag and "/data" not in tag]
    assert sorted(path.name for path in (root / "logs").iterdir()) == ["c0"]  # pretrained ones have no run


def test_accuracies_of_another_call_stay_beside_the_new_ones(root):
    earlier, new = accuracy_row("c0"), accuracy_row("c0", dataset="cifar10", value=70.0)
    for row in (earlier, new, accuracy_row("c1", value=1.0)):
        write_row(Location(str(root)), ACCURACY, row)
        log_evaluation("tensorboard", Location(str(root)), [row])
    found = events(root / "logs" / "c0")
    values = {name: found.Scalars(f"test/{name}/top1")[0].value for name in ("fashion_mnist", "cifar10")}
    assert values == {"fashion_mnist": 85.5, "cifar10": 70.0}


def test_a_sweep_with_a_confirmation_is_one_run(root):
    log = SweepLog(experiment(root, "tensorboard"))
    log.add("00")
    log.finish(
        {**ANSWER, "fingerprint": "def"}
    )  # the answer's name holds the confirmation, that of the search does not
    assert [path.name for path in (root / "logs").iterdir()] == ["sweep-abc"]
    assert events(root / "logs" / "sweep-abc" / "answer").Scalars("best_score")


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A real MLflow file store."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    return mlflow.tracking.MlflowClient()


def runs(client):
    experiment = client.get_experiment_by_name("raysd")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_mlflow_gets_the_settings_as_children_of_the_sweep(root, client):
    log = SweepLog(experiment(root, "mlflow"))
    for fingerprint in ("00", "10", "11"):
        log.add(fingerprint)
    assert runs(client)["sweep mine"].info.status == "RUNNING"
    SweepLog(experiment(root, "mlflow")).finish(ANSWER)  # as a later process does
    found = runs(client)
    assert set(found) == {"sweep mine", "name, guidance 1", "name, guidance 2"}
    best, whole = found["name, guidance 2"], found["sweep mine"]
    assert best.data.params["generation.guidance_scale"] == "2.0" and best.data.params["generation.variant"] == "name"
    history = client.get_metric_history(best.info.run_id, "score")
    assert [(metric.step, metric.value) for metric in history] == [(25, 60.0), (100, 71.0)]
    assert best.data.tags["mlflow.parentRunId"] == whole.info.run_id and whole.info.status == "FINISHED"
    assert "samples-100.png" in [artifact.path for artifact in client.list_artifacts(best.info.run_id)]
    assert whole.data.metrics["best_score"] == 71.0 and whole.data.params["best"] == "guidance 2"


def test_mlflow_gets_the_accuracies_in_the_run_of_the_training(root, client):
    from raysd.training.logs import open_log

    open_log("mlflow", Location(str(root)), "c0", {}).write([{"step": 30, "time": 1e9, "loss": 0.5}])
    for _ in range(2):
        log_evaluation("mlflow", Location(str(root)), ROWS)
    (run,) = runs(client).values()
    assert run.data.metrics["loss"] == 0.5 and run.data.metrics["test/fashion_mnist/top1_high"] == 87.0
    assert len(client.get_metric_history(run.info.run_id, "test/fashion_mnist/top1")) == 1


def test_weights_and_biases_gets_settings_and_accuracies(root):
    pytest.importorskip("wandb")
    code = f"""
import json, sys
sys.path[:0] = ["tests", "tests/tracking"]
from test_tracking import ANSWER, ROWS, experiment
from raysd.storage.location import Location
from raysd.tracking.evaluation_log import log_evaluation
from raysd.tracking.sweep_log import SweepLog
SweepLog(experiment({str(root)!r}, "wandb")).finish(ANSWER)
log_evaluation("wandb", Location({str(root)!r}), ROWS)
"""
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(root)}
    subprocess.run([sys.executable, "-c", code], cwd=os.getcwd(), env=environment, check=True, timeout=300)
    written = {
        path.parent.name.split("-", 3)[3]: path.read_bytes() for path in root.glob("wandb/offline-run-*/*.wandb")
    }
    assert set(written) == {"sweep-abc", "sweep-abc-0", "sweep-abc-1", "c0"}
    assert b"guidance_scale" in written["sweep-abc-1"] and b"71" in written["sweep-abc-1"]
    assert b"samples" in written["sweep-abc-1"] and b"fashion_mnist" in written["c0"]
    assert list(root.glob("wandb/offline-run-*sweep-abc-1/files/media/images/*.png"))


def test_a_logger_that_fails_is_named_once_and_harms_nothing(root, monkeypatch, caplog):
    caplog.set_level("INFO", "raysd")

    def refuse(*_):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("raysd.tracking.sweep_log.write_run", refuse)
    log = SweepLog(experiment(root, "mlflow"))
    for fingerprint in ("00", "10"):
        log.add(fingerprint)
    log.finish(ANSWER)
    assert [record.getMessage() for record in caplog.records] == [
        "the sweep is no longer logged to mlflow: no route to host; its results are in the storage root"
    ]


def test_tune_tells_of_each_rung_result_as_it_comes():
    from raysd.progress import Progress
    from raysd.sweep.trials import Ended, _watch

    seen, ended, errors = [], Ended(), []
    watch = _watch(ended, errors, Progress("measured", 2, "trials"), seen.append, None)
    watch.on_trial_result(1, [], None, {"score": 50.0, "rung_result": "00"})
    watch.on_trial_result(1, [], None, {"score": 60.0, "label": "real"})  # a baseline
    assert seen == ["00"] and ended.taken == {"00"} and not errors


def test_without_a_logger_nothing_is_written(root):
    log = SweepLog(experiment(root, "none"))
    log.add("00")
    log.finish(ANSWER)
    log_evaluation("none", Location(str(root)), ROWS)
    assert not (root / "logs").exists()
