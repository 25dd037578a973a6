"""Generating and training share a cluster so that both always have room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.clone.settings import GenerationSettings
from raysd.cluster.resources import Node, check_room
from raysd.errors import UserError
from raysd.sweep.placement import place
from raysd.training.placement import MIN_WORKER_CPUS, SPARE_CPUS
from raysd.training.settings import TrainingSettings


@given(
    cpus=st.integers(2, 256),
    gpus=st.integers(0, 128),
    num_workers=st.integers(1, 8),
    num_trials=st.integers(1, 16),
    num_actors=st.none() | st.integers(1, 64),
    gpus_per_actor=st.none() | st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.6, 1.0, 2.0]),
    num_pipelines=st.integers(1, 4),
    spare_gpus=st.integers(0, 1),
)
def test_what_is_held_fits_into_the_cluster(
    cpus, gpus, num_workers, num_trials, num_actors, gpus_per_actor, num_pipelines, spare_gpus
):
    training = TrainingSettings(num_workers=num_workers, batch_size=840)
    generation = GenerationSettings(num_actors=num_actors, gpus_per_actor=gpus_per_actor)
    try:
        placement = place(cpus, gpus, generation, training, num_trials, num_pipelines, spare_gpus)
    except UserError as error:
        assert "\n" not in str(error)
        return
    pool = placement.pool
    assert pool.num_actors >= 1 and placement.trial_cpus >= MIN_WORKER_CPUS
    per_trial = placement.trial_cpus if placement.trains_here else placement.trial_cpus + num_workers * MIN_WORKER_CPUS
    assert num_pipelines * pool.num_actors * pool.num_cpus + num_trials * per_trial + SPARE_CPUS <= cpus + 1e-6
    training_gpus = num_trials * (placement.trial_gpus if placement.trains_here else num_workers * bool(gpus))
    assert num_pipelines * pool.num_actors * pool.num_gpus + training_gpus + spare_gpus * bool(gpus) <= gpus + 1e-6
    assert not gpus or pool.num_gpus > 0 or gpus_per_actor == 0
    one_large_node = [Node("a", "a", cpus, gpus)]
    check_room(one_large_node, placement.requests(training, num_trials, num_pipelines, one_large_node))


@given(
    cpus=st.integers(4, 256),
    gpus=st.integers(0, 64),
    num_trials=st.integers(1, 8),
    extra=st.integers(0, 32),
    num_pipelines=st.integers(1, 3),
    spare_gpus=st.integers(0, 1),
)
def test_extra_trials_leave_room_for_an_actor_of_each_generator(
    cpus, gpus, num_trials, extra, num_pipelines, spare_gpus
):
    training = TrainingSettings(num_workers=1)
    try:
        placement = place(cpus, gpus, GenerationSettings(), training, num_trials, num_pipelines, spare_gpus)
    except UserError:
        return
    found = placement.with_extra_trials(extra, cpus, gpus, num_pipelines, spare_gpus)
    assert found.most_trials == num_trials + found.extra_trials <= num_trials + extra
    actors, trials = num_pipelines, found.most_trials
    if found.extra_trials:
        assert actors * found.pool.num_cpus + trials * found.trial_cpus + SPARE_CPUS <= cpus + 1e-6
        assert actors * found.pool.num_gpus + trials * found.trial_gpus + spare_gpus * bool(gpus) <= gpus + 1e-6


def test_as_many_trials_run_beside_the_last_actor_as_there_are_gpus_left():
    placement = place(64, 8, GenerationSettings(), TrainingSettings(num_workers=1), 2)
    assert placement.with_extra_trials(9, 64, 8, 1, 0).most_trials == 7
    assert placement.with_extra_trials(9, 64, 8, 1, 0).actors_each == 1


def test_several_generators_share_the_gpus_that_generate():
    placement = place(64, 8, GenerationSettings(), TrainingSettings(num_workers=1), 2, num_pipelines=3)
    assert placement.pool.num_actors == 2
    with pytest.raises(UserError, match="5 generators"):
        place(64, 6, GenerationSettings(), TrainingSettings(num_workers=1), 2, num_pipelines=5)


def test_one_gpu_and_two_cpus_are_enough():
    placement = place(2, 1, GenerationSettings(), TrainingSettings(num_workers=1), 1)
    assert placement.trial_gpus == 0.5 and placement.pool.num_actors == 1


def test_a_laptop_generates_on_every_core_and_trains_two_at_a_time():
    placement = place(2, 0, GenerationSettings(), TrainingSettings(num_workers=1), 2)
    assert placement.pool.num_actors == 2 and placement.trains_here and placement.trial_cpus >= MIN_WORKER_CPUS


def test_one_gpu_is_shared_by_halves():
    placement = place(8, 1, GenerationSettings(), TrainingSettings(num_workers=1), 1)
    assert (placement.pool.num_actors, placement.pool.num_gpus, placement.trial_gpus) == (1, 0.5, 0.5)


def test_parts_of_gpus_are_counted_on_each_gpu_by_itself():
    placement = place(64, 4, GenerationSettings(gpus_per_actor=0.6), TrainingSettings(num_workers=1), 2)
    assert (placement.pool.num_actors, placement.pool.num_gpus) == (2, 0.6)


def test_actors_that_are_to_generate_on_cpus_take_no_half_of_a_gpu():
    placement = place(8, 1, GenerationSettings(gpus_per_actor=0), TrainingSettings(num_workers=1), 1)
    assert (placement.pool.num_gpus, placement.trial_gpus) == (0, 1)


def test_trainings_take_their_gpus_and_the_rest_generates():
    placement = place(64, 8, GenerationSettings(), TrainingSettings(num_workers=1), 2)
    assert (placement.pool.num_actors, placement.pool.num_gpus, placement.trial_gpus) == (6, 1, 1)
    placement = place(64, 8, GenerationSettings(), TrainingSettings(num_workers=2, batch_size=128), 2)
    assert (placement.pool.num_actors, placement.trains_here, placement.trial_gpus) == (4, False, 0)


def test_no_gpu_left_to_generate_with_is_said():
    with pytest.raises(UserError, match=r"sweep\.max_concurrent_trials"):
        place(64, 8, GenerationSettings(), TrainingSettings(num_workers=4, batch_size=128), 2)
