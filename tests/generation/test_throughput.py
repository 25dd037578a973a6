"""A measured rate is stored, and `plan` then knows it."""

import pytest

from raysd.errors import UserError
from raysd.generation.throughput import Measured, search_sizes
from raysd.storage.location import Location
from raysd.storage.rows import RATE, read_rows

FAST = ["generation.num_inference_steps=2", "generation.batch_size=8", "generation.num_actors=1"]


@pytest.mark.slow
def test_a_few_batches_are_generated_and_plan_prefers_what_they_took(ray_cluster, run_here, tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.generation.throughput.measure_rates.__defaults__", (0.0, 2, False))
    finished = run_here("benchmark", "--search", *FAST)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (row,) = read_rows(Location(str(tmp_path / "runs")), RATE)
    assert row["num_images"] == 2 * row["batch_size"] and row["images_per_second"] > 0 and row["start_seconds"] >= 0
    assert f"generation.batch_size={row['batch_size']}," in finished.stdout and "batches of 8:" in finished.stdout
    assert (
        row["device"].startswith("CPU core, ")
        and f"{row['images_per_second']:.3g} images/s an actor" in finished.stdout
    )
    assert not list(tmp_path.rglob("*.parquet"))
    (line,) = [line for line in run_here("plan", *FAST).stdout.splitlines() if line.startswith("cost ")]
    assert row["device"] in line and "measured" in line and "with 1 actors" in line


def searched(first, seconds, room=4096):
    """The sizes that a search tries on a device that takes `seconds(size)` for a batch and holds `room` images."""

    def measure(size):
        if size > room:
            raise UserError("generation.batch_size", size, "does not fit")
        return Measured(size, "GPU", size, size / seconds(size), 1.0)

    return [each.batch_size for each in search_sizes(measure, first)]


def test_a_search_doubles_the_batch_as_long_as_it_fits_and_helps():
    assert searched(2, lambda size: 1, room=20) == [2, 4, 8, 16]
    assert searched(1, lambda size: 1) == [2**power for power in range(13)]
    assert searched(2, lambda size: max(size, 8)) == [2, 4, 8, 16], "the last one showed that more do not help"
    assert searched(4096, lambda size: 1) == [4096]
    with pytest.raises(UserError, match="does not fit"):
        searched(32, lambda size: 1, room=20)


@pytest.mark.slow
def test_more_than_the_cluster_holds_is_not_measured(ray_cluster, run_here):
    finished = run_here("benchmark", "generation.cpus_per_actor=999")
    assert finished.returncode == 2 and "there is room for 0" in finished.stderr and finished.stderr.count("\n") == 1
