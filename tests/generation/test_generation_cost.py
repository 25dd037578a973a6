"""What a clone will cost, from known and measured rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import spec_of

from raysd.clone.clone import Clone, DeviceSeconds
from raysd.clone.plan import ImageCounts, Plan
from raysd.clone.record import add_seconds
from raysd.generation.cost import (
    Pool,
    Rate,
    clones_cost,
    device_seconds,
    devices_per_actor,
    estimate_cost,
    find_rates,
    guided_steps,
    num_bytes,
    num_generated,
    runs_on,
    same_device,
)
from raysd.storage.location import Location

ROW = {
    "device": "CPU core, AMD EPYC",
    "image_size": 32,
    "num_inference_steps": 20,
    "guided_steps": 20.0,
    "guidance_scale": 2.0,
    "device_seconds_per_image": 0.05,
    "start_seconds": 6.0,
    "date": "2026-01-01",
}


def plan_of(images_per_class=100, images_per_shard=256, **settings):
    spec = spec_of(**settings)
    return Plan(spec, ImageCounts(len(spec.table), images_per_class), images_per_shard)


def own_row(spec, **different):
    return {**ROW, "pipeline_key": spec.pipeline_key, **different}


def test_the_table_is_used_for_a_model_that_nobody_measured():
    (rate,) = find_rates(spec_of(), [])
    assert rate.device == "CPU core" and rate.seconds_per_image(spec_of()) == pytest.approx(20 * 0.0028)


def test_your_own_measurement_of_the_device_comes_before_the_table():
    spec = spec_of()
    (rate,) = find_rates(spec, [own_row(spec)])
    assert (
        rate.device == "CPU core, AMD EPYC"
        and rate.seconds_per_image(spec) == pytest.approx(0.05)
        and rate.start_seconds == 6
    )


def test_a_measurement_of_another_device_stands_beside_the_table():
    spec = spec_of()
    assert [rate.device for rate in find_rates(spec, [own_row(spec, device="NVIDIA H100")])] == [
        "NVIDIA H100",
        "CPU core",
    ]


def test_of_several_measurements_the_nearest_in_steps_counts_and_is_scaled():
    spec = spec_of(num_inference_steps=22)
    far = own_row(spec, num_inference_steps=100, guided_steps=100.0, device_seconds_per_image=99.0)
    for rows in ([far, own_row(spec)], [own_row(spec), far]):
        (rate,) = find_rates(spec, rows)
        assert rate.seconds_per_image(spec) == pytest.approx(0.05 * 22 / 20)


def test_of_equal_steps_the_nearest_batch_size_counts():
    spec = spec_of()
    rows = [own_row(spec, batch_size=size, device_seconds_per_image=1 / size) for size in (8, 64, 32)]
    for found in (rows, rows[::-1]):
        (rate,) = find_rates(spec, found, 50)
        assert rate.seconds_per_image(spec) == pytest.approx(1 / 64)


@pytest.mark.parametrize("different", [{"pipeline_key": "another"}, {"image_size": 64}])
def test_a_measurement_of_another_model_or_size_does_not_count(different):
    spec = spec_of()
    (rate,) = find_rates(spec, [own_row(spec, **different)])
    assert rate.device == "CPU core"


def test_unguided_steps_cost_less_and_an_interval_costs_something_in_between():
    guided, interval, unguided = (
        guided_steps(spec_of(**each)) for each in ({}, {"guidance_interval": (0.2, 0.8)}, {"guidance_scale": 1})
    )
    assert guided == 20 and unguided == pytest.approx(11.6) and unguided < interval < guided


def test_cached_steps_cost_a_part_and_deeper_caches_more():
    plain, shallow, deep, often = (
        guided_steps(spec_of(step_cache=cache))
        for cache in (None, {"interval": 4}, {"interval": 4, "depth": 3}, {"interval": 2})
    )
    assert 20 / 4 < shallow < deep < plain == 20 and shallow < often < plain
    assert guided_steps(spec_of(step_cache={"interval": 1})) == 20


def clone_of(folder, *runs, **settings):
    plan = plan_of(10, **settings)
    clone = Clone.of(plan, Location(str(folder)).child(plan.spec.fingerprint))
    for device, num_images, seconds in runs:
        add_seconds(clone, {device: DeviceSeconds(num_images=num_images, seconds=seconds)})
    return clone


def test_a_clone_cost_what_its_runs_noted_and_else_what_a_measured_rate_says(tmp_path):
    noted = clone_of(tmp_path, ("A100", 60, 6.0), ("A100", 20, 4.0))
    cost = clones_cost([noted], [])
    assert cost == {"num_images": 100, "device": "A100", "seconds_per_image": 0.125, "seconds": 12.5, "source": "clone"}
    other = clone_of(tmp_path, guidance_scale=4)
    rate = own_row(other.spec, device="A100")
    both = clones_cost([noted, other], [rate])
    assert both["seconds"] == pytest.approx(12.5 + 100 * 0.05) and both["num_images"] == 200
    assert (both["device"], both["source"]) == ("A100", "rate")


def test_what_nobody_measured_is_unknown_though_the_table_knows_a_rate(tmp_path):
    noted, unknown = clone_of(tmp_path, ("A100", 60, 6.0)), clone_of(tmp_path, guidance_scale=4)
    for clones in ([unknown], [noted, unknown]):
        cost = clones_cost(clones, [])
        assert cost["num_images"] == 100 * len(clones)
        assert cost["seconds"] is cost["seconds_per_image"] is cost["device"] is cost["source"] is None


def test_seconds_on_several_devices_are_named_as_such(tmp_path):
    cost = clones_cost([clone_of(tmp_path, ("V100", 50, 10.0), ("A100", 50, 5.0))], [])
    assert (cost["device"], cost["seconds"]) == ("A100 + V100", 15.0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("CPU core", "CPU core, AMD EPYC", True),
        ("A100", "NVIDIA A10", False),
        ("V100", "NVIDIA H100 80GB HBM3", False),
        ("Tesla V100-SXM2-16GB", "v100", True),
    ],
)
def test_devices_are_known_by_their_words(one, other, same):
    assert same_device(one, other) == same_device(other, one) == same


@given(num_actors=st.integers(1, 256), images=st.integers(1, 5000))
def test_time_is_start_up_plus_images_over_rate_times_actors(num_actors, images):
    plan = plan_of(images, images_per_shard=10)
    rate = Rate("A100", 0.01, 32, "", start_seconds=30)
    cost = estimate_cost(plan, rate, 10)
    assert cost.device_seconds == pytest.approx(10 * images * 20 * 0.01)
    assert cost.wall_seconds(Pool(num_actors, 1)) == pytest.approx(30 + cost.device_seconds / num_actors)


def test_images_that_fill_up_a_batch_count():
    assert num_generated(plan_of(100, images_per_shard=256), batch_size=50) == 3 * 300 + 250
    assert num_generated(plan_of(100, images_per_shard=250), batch_size=50) == 1000


def test_a_price_is_named_only_for_a_device_that_has_one():
    rate = Rate("NVIDIA A100-SXM4-80GB", 3.6, 32, "")
    assert estimate_cost(plan_of(), rate, 250).price is None
    assert estimate_cost(plan_of(), rate, 250, {"V100": 1.0}).price is None
    cost = estimate_cost(plan_of(images_per_shard=250), rate, 250, {"A100": 2.0})
    assert cost.price == pytest.approx(cost.device_seconds / 3600 * 2)


def test_bytes_are_those_of_what_is_to_be_written():
    plan = plan_of()
    assert num_bytes(plan) == pytest.approx(1000 * 32 * 32 * 0.85)
    assert num_bytes(plan, [3]) == pytest.approx(232 * 32 * 32 * 0.85)


def test_an_actor_holds_its_share_of_a_gpu_or_its_cores():
    assert [devices_per_actor(*held) for held in ((1, 0.5), (4, 0), (0.5, 0), (1.5, 0))] == [0.5, 4, 0.5, 1]
    assert [devices_per_actor(1, gpus) for gpus in (0.6, 0.3, 1, 2)] == [
        1,
        1 / 3,
        1,
        2,
    ]  # what is left of a GPU is of no use to another actor


def test_gpus_count_by_the_clock_and_cpu_cores_as_they_computed():
    row = {"generation_seconds": 10.0, "cpu_seconds": 3.0}
    assert [device_seconds(row, 4, gpus) for gpus in (0, 0.5, 2)] == [3.0, 5.0, 20.0]


def test_only_the_devices_of_the_cluster_fit_it():
    core, gpu = Rate("CPU core, AMD EPYC", 1, 32, ""), Rate("NVIDIA A100-SXM4-80GB", 1, 32, "")
    assert runs_on(core, set(), 0) and not runs_on(gpu, set(), 0)
    assert runs_on(gpu, {"A100"}, 1) and not runs_on(core, {"A100"}, 1) and not runs_on(gpu, {"H100"}, 1)
