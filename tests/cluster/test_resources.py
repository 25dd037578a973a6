"""What a job starts is counted node by node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.cluster.resources import Node, ResourceRequest, check_room, describe, room_for, wait_for_nodes
from raysd.errors import UserError

SIZES = st.lists(st.tuples(st.integers(0, 64), st.integers(0, 8)), min_size=1, max_size=8)


def nodes_of(*sizes):
    return [Node(str(number), f"node-{number}", *size) for number, size in enumerate(sizes)]


@given(
    sizes=SIZES,
    cpus=st.sampled_from([0.1, 0.25, 0.5, 1, 2, 4]),
    gpus=st.sampled_from([0, 0.1, 0.3, 0.3333, 0.5, 0.6, 0.7, 1, 2, 3]),
)
def test_as_many_fit_as_can_be_taken_from_the_devices_one_by_one(sizes, cpus, gpus):
    taken = 0
    for cpus_left, num_gpus in sizes:
        devices = [1.0] * num_gpus
        while cpus_left >= cpus - 1e-6:
            fitting = [
                number for number, left in enumerate(devices) if left >= min(gpus, 1) - 1e-6
            ]  # a whole one for each of several
            if len(fitting) < gpus:
                break
            for number in fitting[: max(1, int(gpus))] if gpus else []:
                devices[number] -= min(gpus, 1)
            cpus_left, taken = cpus_left - cpus, taken + 1
    assert room_for(nodes_of(*sizes), cpus, gpus) == taken


def test_no_worker_has_parts_of_two_gpus():
    assert room_for(nodes_of((8, 2)), 1, 0.6) == 2
    with pytest.raises(
        UserError,
        match=r"3 generation actors x 1 CPUs and 0\.6 GPUs, and there is room for 2 on 1 node of 8 CPUs and 2 GPUs",
    ):
        check_room(nodes_of((8, 2)), [ResourceRequest("generation.num_actors", 3, "generation actors", 3, 1, 0.6)])


def test_an_actor_of_4_cpus_fits_no_node_of_2_though_the_cluster_has_8():
    nodes = nodes_of((2, 0), (2, 0), (2, 0), (2, 0))
    with pytest.raises(UserError) as raised:
        check_room(nodes, [ResourceRequest("generation.num_actors", None, "generation actors", 1, 4)])
    assert str(raised.value).startswith(
        "generation.num_actors = None: 1 generation actors x 4 CPUs, and there is room for 0 on 4 nodes of 2 CPUs;"
    )


def test_kinds_that_fit_alone_but_not_together_are_refused_with_the_sum():
    nodes = nodes_of((4, 1), (4, 1))
    actors = ResourceRequest("generation.num_actors", 2, "generation actors", 2, 1, 1)
    check_room(nodes, [actors])
    with pytest.raises(
        UserError,
        match=(
            r"2 generation actors x 1 CPUs and 1 GPUs \+ 1 trials x 1 CPUs and 1 GPUs = 3 GPUs, and there are 2 "
            r"on 2 nodes"
        ),
    ):
        check_room(nodes, [actors, ResourceRequest("sweep.max_concurrent_trials", 1, "trials", 1, 1, 1)])


def test_kinds_whose_parts_leave_no_whole_gpu_are_refused():
    nodes, trial = nodes_of((8, 2)), ResourceRequest("sweep.max_concurrent_trials", 1, "trials", 1, 1, 1)
    check_room(nodes, [ResourceRequest("generation.num_actors", 1, "generation actors", 1, 1, 0.6), trial])
    check_room(nodes, [ResourceRequest("generation.num_actors", 2, "generation actors", 2, 1, 0.5), trial])
    with pytest.raises(
        UserError,
        match=r"2 generation actors x 1 CPUs and 0.6 GPUs \+ 1 trials x 1 CPUs and 1 GPUs = 3 GPUs, and there are 2",
    ):
        check_room(nodes, [ResourceRequest("generation.num_actors", 2, "generation actors", 2, 1, 0.6), trial])


def test_halves_of_two_kinds_share_a_gpu():
    check_room(
        nodes_of((8, 1)),
        [
            ResourceRequest("generation.num_actors", 1, "generation actors", 1, 1, 0.5),
            ResourceRequest("sweep", 1, "trials", 1, 1, 0.5),
        ],
    )


def test_rounding_does_not_keep_the_last_tenth_of_a_cpu_from_fitting():
    check_room(nodes_of((1, 0)), [ResourceRequest("field", 10, "trials", 10, 0.1)])


def test_nodes_are_described_by_kind():
    assert describe(nodes_of((4, 1), (8, 0), (4, 1))) == "2 nodes of 4 CPUs and 1 GPUs, 1 node of 8 CPUs"
    assert describe([]) == "no node"


@pytest.mark.slow
def test_nodes_that_do_not_come_end_the_wait_and_nothing_stays_asked_for(ray_cluster):
    from ray.util import placement_group_table

    wait_for_nodes(1, 0, minutes=1)  # are there
    with pytest.raises(
        UserError, match=r"cluster\.gpus = 3: after 0.01 minutes there is 1 node of .*raise cluster\.wait_minutes"
    ):
        wait_for_nodes(1, 3, minutes=0.01)
    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}
