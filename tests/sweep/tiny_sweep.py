"""A tiny sweep, run in the tests' own process, and the check that it leaves nothing held."""

import time

from living_actors import living_actors

from raysd.config import validate_experiment
from raysd.storage.location import Location
from raysd.storage.rows import RUNG_RESULT, read_rows

EXPERIMENT = {
    "name": "tiny",
    "generation": {"model": "dummy", "num_inference_steps": 2, "images_per_shard": 20, "batch_size": 10},
    "training": {
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
        "stem_stride": 2,
        "num_epochs": 2,
        "batch_size": 20,
        "seeds": [0, 1],
        "num_workers": 1,
        "logger": "none",
    },
    "evaluation": {
        "validation_set": "fashion_mnist",
        "validation_images_per_class": 5,
        "test_set": "fashion_mnist",
        "transfer_sets": [{"name": "digits", "shots": 4}],
    },
    "sweep": {
        "space": {"generation": {"guidance_scale": [1, 7.5], "variant": ["name", "attributes"]}},
        "scheduler": "halving",
        "keep": 0.5,
        "rungs": [{"images_per_class": 4, "num_seeds": 1}, 8, 12],
        "objective": {"transfer": 0.5, "validation": 0.5},
        "real": "fashion_mnist",
        "proxies": True,
        "max_concurrent_trials": 2,
    },
}


def sweep_here(root, training=(), **changes):
    """A sweep in this process, on the tests' cluster: its row and its rung results."""
    from raysd import commands

    evaluation = {"transfer_sets": [{"name": "digits", "shots": 4}]}
    own = {"objective": "transfer", "random": False, "max_concurrent_trials": 1, **changes}
    values = {
        **EXPERIMENT,
        "storage": str(root),
        "evaluation": evaluation,
        "training": {**EXPERIMENT["training"], **dict(training)},
        "sweep": own,
    }
    row = commands.sweep(validate_experiment(values)).row
    return row, sorted(
        read_rows(Location(str(root)), RUNG_RESULT), key=lambda result: (result["number"], result["rung"])
    )


def assert_nothing_is_held():
    """Every placement group is gone, every CPU is free, and no generation actor is left."""
    import ray
    from ray.util import placement_group_table

    for _ in range(200):
        states = {group["state"] for group in placement_group_table().values()}
        names = {actor.class_name for actor in living_actors()}
        free = ray.available_resources().get("CPU", 0) == ray.cluster_resources()["CPU"]
        if states <= {"REMOVED"} and free and not names & {"GenerationActor", "GenerationQueue"}:
            return
        time.sleep(0.05)  # Ray takes a moment to note what ended
    raise AssertionError((states, names, ray.available_resources()))
