"""How many actors a job begins with, and how many it may grow to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.clone.settings import GenerationSettings
from raysd.cluster.resources import Node
from raysd.config import load_experiment
from raysd.errors import UserError
from raysd.generation import placement as actor_pool

COUNTS = st.none() | st.integers(1, 50)


def size_of(num_cpus, num_items, **settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actor_pool, "cluster_nodes", lambda: [Node("0", "node", num_cpus)])
        return actor_pool.pool_size(GenerationSettings(**settings), num_items)


@given(num_cpus=st.integers(1, 50), num_items=st.integers(1, 10_000), least=COUNTS, most=COUNTS)
def test_a_pool_begins_with_what_fits_and_grows_to_what_is_asked_for(num_cpus, num_items, least, most):
    if least is not None and most is not None and least > most:
        least, most = most, least
    needed = least or most or 1
    if needed > num_cpus:
        with pytest.raises(UserError, match="and there is room for"):
            size_of(num_cpus, num_items, min_actors=least, num_actors=most)
        return
    bounds = size_of(num_cpus, num_items, min_actors=least, num_actors=most).bounds(num_items)
    assert bounds == {
        "min_size": min(num_cpus, num_items, most or num_items),
        "max_size": min(num_items, most or num_items),
    }


def test_a_pool_that_must_be_whole_is_refused_where_one_that_may_grow_begins():
    with pytest.raises(UserError, match=r"generation\.num_actors = 4"):
        size_of(2, 100, num_actors=4)
    assert str(size_of(2, 100, num_actors=4, min_actors=1)) == "2 of 4 actors"
    assert str(size_of(2, 100)) == "2 actors"


@pytest.mark.parametrize(("gpus", "room"), [(0.6, 2), (0.3, 6), (2, 1), (0, 8), (None, 2)])
def test_a_pool_begins_with_the_actors_that_fit_on_each_gpu(monkeypatch, gpus, room):
    monkeypatch.setattr(actor_pool, "cluster_nodes", lambda: [Node("0", "node", 8, 2)])
    assert actor_pool.pool_size(GenerationSettings(gpus_per_actor=gpus), 100).first == room
    with pytest.raises(
        UserError,
        match=rf"generation\.num_actors = {room + 1}: .*and there is room for {room} on 1 node of 8 CPUs and 2 GPUs",
    ):
        actor_pool.pool_size(GenerationSettings(gpus_per_actor=gpus, num_actors=room + 1), 100)


def test_large_pools_get_large_waves():
    assert size_of(2, 10**6).wave_shards == 4096
    assert size_of(1000, 10**6).wave_shards == 64_000


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("gpus_per_actor=1.5", "an actor has a part of one GPU or whole ones; use 1 or 2"),
        ("gpus_per_actor=0.00001", "is less than 0.0001 of a GPU"),
        ("gpus_per_actor=.inf", "finite number"),
        ("cpus_per_actor=0.00001", "greater than or equal to 0.0001"),
    ],
)
def test_what_ray_cannot_hand_out_is_refused_by_the_settings(setting, remedy):
    with pytest.raises(UserError) as raised:
        load_experiment(None, [f"generation.{setting}"])
    assert str(raised.value).startswith(f"generation.{setting.partition('=')[0]} = ") and remedy in str(raised.value)


@pytest.mark.parametrize("gpus", [0, 0.0001, 0.6, 1, 1.0, 4])
def test_parts_of_one_gpu_and_whole_ones_are_accepted(gpus):
    assert load_experiment(None, [f"generation.gpus_per_actor={gpus}"]).generation.gpus_per_actor == gpus


def test_more_actors_to_begin_with_than_at_most_are_refused():
    with pytest.raises(UserError, match=r"min_actors = 3 is more than num_actors = 2; lower it"):
        load_experiment(None, ["generation.min_actors=3", "generation.num_actors=2"])
