"""A measured rate is stored, and `plan` then knows it."""

import pytest

from raysd.storage.location import Location
from raysd.storage.rows import RATE, read_rows

FAST = ["generation.num_inference_steps=2", "generation.batch_size=8", "generation.num_actors=1"]


@pytest.mark.slow
def test_a_few_batches_are_generated_and_plan_prefers_what_they_took(ray_cluster, run_here, tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.generation.throughput.measure_rate.__defaults__", (0.0, 2))
    finished = run_here("benchmark", *FAST)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (row,) = read_rows(Location(str(tmp_path / "runs")), RATE)
    assert row["num_images"] == 16 and row["images_per_second"] > 0 and row["start_seconds"] >= 0
    assert (
        row["device"].startswith("CPU core, ")
        and f"{row['images_per_second']:.3g} images/s an actor" in finished.stdout
    )
    assert not list(tmp_path.rglob("*.parquet"))
    (line,) = [line for line in run_here("plan", *FAST).stdout.splitlines() if line.startswith("cost ")]
    assert row["device"] in line and "measured" in line and "with 1 actors" in line


@pytest.mark.slow
def test_more_than_the_cluster_holds_is_not_measured(ray_cluster, run_here):
    finished = run_here("benchmark", "generation.cpus_per_actor=999")
    assert finished.returncode == 2 and "there is room for 0" in finished.stderr and finished.stderr.count("\n") == 1
