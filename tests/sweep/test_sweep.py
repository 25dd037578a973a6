import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from raysd.storage.location import Location
from raysd.storage.results import read_results
from raysd.sweep.result import score_of

pytestmark = pytest.mark.slow
EXPERIMENT = {
    "name": "tiny",
    "generation": {"num_inference_steps": 2, "images_per_class": 6, "images_per_shard": 20, "batch_size": 10},
    "training": {"backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, "num_epochs": 2, "batch_size": 30, "seeds": [0, 1], "num_workers": 1},
    "evaluation": {
        "validation_set": "fashion_mnist",
        "validation_images_per_class": 5,
        "test_set": "fashion_mnist",
        "transfer_sets": [{"name": "digits", "shots": 4}],
    },
    "sweep": {"guidance_scales": [1, 7.5], "variants": ["name"], "real": "fashion_mnist"},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A tiny sweep whose driver was killed in the middle of drawing, then run to its end, then run again."""
    folder = tmp_path_factory.mktemp("sweep")
    config, root = folder / "tiny.yaml", folder / "runs"
    config.write_text(yaml.safe_dump({**EXPERIMENT, "storage": "runs"}))
    command = [sys.executable, "-m", "raysd.cli", "sweep", str(config)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    deadline = time.monotonic() + 240
    while not list(root.glob("clones/*/data/*.parquet")):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, cwd=folder) for _ in range(2)]
    return root, runs


def test_a_killed_sweep_goes_on_and_ends_with_a_report(swept):
    root, (first, _) = swept
    assert first.returncode == 0, first.stderr[-3000:]
    assert len(list(root.glob("reports/*/report.html"))) == 1
    assert "report:" in first.stdout


def test_every_cell_and_both_baselines_are_measured_on_every_set(swept):
    root, _ = swept
    rows = read_results(Location(str(root)), "accuracy")
    cells = {(row["trained_on"]["kind"], row["trained_on"].get("guidance_scale")) for row in rows}
    assert cells == {("clone", 1.0), ("clone", 7.5), ("real", None), ("random", None)}
    assert len(rows) == 4 * 2 * 3  # cells x seeds x sets


def test_the_best_setting_is_the_one_with_the_highest_objective(swept):
    root, _ = swept
    (row,) = read_results(Location(str(root)), "sweep")
    scores = {clone["guidance_scale"]: clone["score"] for clone in row["clones"]}
    assert row["best"]["guidance_scale"] == max(scores, key=scores.get)


def test_the_best_setting_is_compared_with_each_other_one_picture_by_picture(swept):
    root, _ = swept
    (row,) = read_results(Location(str(root)), "sweep")
    others = {clone["fingerprint"] for clone in row["clones"]} - {row["best"]["clone"]} | {"real", "random"}
    assert {(found["with"], found["role"]) for found in row["comparisons"]} == {(name, role) for name in others for role in ("validation", "test", "transfer")}
    assert {found["verdict"] for found in row["comparisons"]} <= {"better", "worse", "within noise"}
    assert row["failed"] == [] and row["skipped_sets"] == {}


def test_a_setting_that_lacks_a_value_has_no_score():
    rows = [{"role": "transfer", "value": 70.0}, {"role": "transfer", "value": None}, {"role": "test", "value": 10.0}]
    assert score_of(rows[:1] + rows[2:], "transfer", 1) == 70.0
    assert score_of(rows, "transfer", 2) is None and score_of([], "transfer", 0) is None


def test_a_second_run_draws_and_trains_nothing(swept):
    _, (_, second) = swept
    assert second.returncode == 0, second.stderr[-3000:]
    assert "drawing" not in second.stdout
    assert "all 4 trials are there" in second.stdout
