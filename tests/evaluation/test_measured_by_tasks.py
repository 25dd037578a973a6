"""Classifiers that are measured with what the workers of a trial held."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from raysd.evaluation.evaluate import Evaluation
from raysd.evaluation.settings import EvaluationSettings, ProbeSettings, TransferSet
from raysd.evaluation.shares import Share, divided, measure_by_tasks, measure_here
from raysd.prompts.table import load_class_table
from raysd.storage.location import Location
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers

TABLE = load_class_table([str(digit) for digit in range(10)])
KNN = ProbeSettings(kind="knn")
SETTINGS = EvaluationSettings(
    test_set="digits", transfer_sets=[TransferSet(name="digits", shots=shots, probe=KNN) for shots in (2, 5)]
)


def classifiers_in(root):
    settings = TrainingSettings(
        backbone_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, image_size=16, seeds=[0, 1]
    )
    return train_classifiers(TrainingRun(root, (), 10, settings))


@pytest.mark.slow
def test_tasks_that_need_the_whole_cluster_find_what_one_process_finds_though_their_trial_holds_little(
    ray_cluster, tmp_path
):
    import ray
    from ray.util import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    here = Location(str(tmp_path / "here"))
    classifiers = classifiers_in(here)
    evaluation = Evaluation(here, SETTINGS, TABLE, "")
    shutil.copytree(tmp_path / "here", tmp_path / "tasks")
    expected = measure_here(evaluation, classifiers, 1)
    trial = placement_group([{"CPU": 0.1}])
    there = Evaluation(Location(str(tmp_path / "tasks")), SETTINGS, TABLE, "")
    share = Share(2, int(ray.cluster_resources()["CPU"]) - 0.1, 0.0)

    @ray.remote(
        num_cpus=0.1,
        scheduling_strategy=PlacementGroupSchedulingStrategy(trial, placement_group_capture_child_tasks=True),
    )
    def measure():
        from raysd.evaluation import shares

        shares.PARALLEL_IMAGES = 0
        return shares.measure_by_tasks(there, classifiers, share)

    rows = ray.get(measure.remote())
    remove_placement_group(trial)
    assert [(row["fingerprint"], row["value"]) for row in rows] == [
        (row["fingerprint"], row["value"]) for row in expected
    ]


def test_few_images_are_measured_in_the_process_itself(tmp_path):
    root = Location(str(tmp_path))
    classifiers = classifiers_in(root)
    rows = measure_by_tasks(Evaluation(root, SETTINGS, TABLE, ""), classifiers, Share(2, 1.0, 0.0))
    assert len(rows) == 6


def test_a_process_measures_on_as_many_threads_as_it_holds_cpus(tmp_path):
    before, evaluation = torch.get_num_threads(), Evaluation(Location(str(tmp_path)), EvaluationSettings(), TABLE, "")
    try:
        for cpus, threads in ((0.3, 1), (3.5, 3)):
            measure_here(evaluation, [], cpus)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("num_tasks", "sizes"), [(1, [2, 2]), (2, [2, 2]), (4, [1, 1, 1, 1]), (9, [1, 1, 1, 1])])
def test_sets_with_the_same_images_stay_together_and_classifiers_are_divided_among_the_tasks_left(num_tasks, sizes):
    first, second, other = (SimpleNamespace(images=SimpleNamespace(fingerprint=name)) for name in "aab")
    parts = divided([first, other, second], ["x", "y"], num_tasks)
    assert [len(classifiers) for _, classifiers in parts] == sizes
    assert all(sets in ([first, second], [other]) for sets, _ in parts)
