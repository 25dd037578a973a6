import pytest
from rung_rows import rung_result

from raysd.sweep.analysis.cost import sweep_cost

RUNGS = [(25, 2), (100, 3)]


def seconds(generate=0.0, train=0.0, measure=0.0):
    return {"generate": generate, "train": train, "measure": measure}


def halved():
    """Four settings of ten classes, one of which goes on."""
    low = [rung_result(number, [60, 61], num_generated=250, seconds=seconds(50.0, 10.0, 4.0)) for number in range(4)]
    return [*low, rung_result(0, [70, 71, 72], rung=1, num_generated=750, seconds=seconds(150.0, 60.0, 6.0))]


def test_each_clone_counts_once_at_its_last_rung():
    cost = sweep_cost(halved(), 4, RUNGS, 10)
    assert (cost["num_images"], cost["num_generated"], cost["trainings"]) == (1000 + 3 * 250, 1750, 4 * 2 + 3)
    assert sweep_cost(halved()[::-1], 4, RUNGS, 10) == cost
    assert (cost["generate_seconds"], cost["train_seconds"], cost["measure_seconds"]) == (350.0, 100.0, 22.0)


def test_the_grid_is_all_settings_at_the_last_rung_by_this_sweeps_rates():
    grid = sweep_cost(halved(), 4, RUNGS, 10)["grid"]
    assert (grid["settings"], grid["num_images"], grid["trainings"]) == (4, 4000, 12)
    assert grid["generate_seconds"] == pytest.approx(4000 * 350 / 1750)
    assert grid["train_seconds"] == pytest.approx(12 * 1000 * 100 / (4 * 250 * 2 + 1000 * 3))
    assert grid["measure_seconds"] == pytest.approx(12 * 22 / 11)


def test_a_grid_that_was_run_in_full_costs_what_it_cost():
    results = [
        rung_result(number, [60, 61], num_generated=250, seconds=seconds(50.0, 10.0 + number, 4.0))
        for number in range(3)
    ]
    cost = sweep_cost(results, 3, [(25, 2)], 10)
    assert cost["grid"]["settings"] == 3
    for part in ("num_images", "trainings", "generate_seconds", "train_seconds", "measure_seconds"):
        assert cost["grid"][part] == pytest.approx(cost[part])


def test_settings_that_share_a_clone_generate_it_once():
    results = [
        rung_result(
            number,
            [60, 61],
            clone="c",
            num_generated=250 * (number == 0),
            seconds=seconds(50.0 * (number == 0), 10.0, 4.0),
        )
        for number in range(3)
    ]
    cost = sweep_cost(results, 3, [(25, 2)], 10)
    assert (cost["num_images"], cost["grid"]["num_images"]) == (250, 250)
    assert (cost["trainings"], cost["grid"]["trainings"]) == (6, 6)
    assert cost["grid"]["generate_seconds"] == pytest.approx(50)


def test_what_was_there_already_gives_no_rate():
    cost = sweep_cost([rung_result(0, [60, 61])], 1, RUNGS, 10)
    assert (cost["num_images"], cost["num_generated"], cost["generate_seconds"], cost["train_seconds"]) == (
        250,
        0,
        0.0,
        0.0,
    )
    assert [cost["grid"][f"{part}_seconds"] for part in ("generate", "train", "measure")] == [None] * 3
    assert sweep_cost([], 4, RUNGS, 10)["grid"]["num_images"] == 4000


def test_steps_that_found_their_work_done_do_not_lower_the_rates():
    cached = rung_result(9, [60, 61])
    assert sweep_cost([*halved(), cached], 5, RUNGS, 10)["grid"]["train_seconds"] == pytest.approx(
        sweep_cost(halved(), 5, RUNGS, 10)["grid"]["train_seconds"],
    )


def test_all_clones_of_a_setting_count():
    low = [rung_result(number, [60], clone=f"c{number}", num_generated=250) for number in range(4)]
    high = rung_result(0, [70, 71, 72], rung=1, clone="c0", clones=["c0", "d0", "e0"], num_generated=2750)
    cost = sweep_cost([*low, high], 4, [(25, 1), (100, 3)], 10)
    assert cost["num_images"] == 3 * 1000 + 3 * 250
    assert cost["grid"]["num_images"] == 4 * 3 * 1000
