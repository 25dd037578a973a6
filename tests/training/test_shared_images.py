"""The workers of a node share one copy of the images that are held in memory."""

import json
from pathlib import Path

import pytest

from raysd.data.real_datasets import real_dataset
from raysd.storage.location import Location
from raysd.training.loader import Ingest, Pool

pytestmark = pytest.mark.slow


def no_room(*_):
    raise OSError("no space left")


def train(config):
    """What each worker does: it gets the images as they come, as if the first worker had no room to share, and as if
    the others might not look; it notes whether they are right, its own, and how often it read."""
    from contextlib import nullcontext
    from unittest.mock import patch

    import numpy as np

    from raysd.data import shared_memory
    from raysd.training.workers import RayTrainWorkers

    ingest, read = config["ingest"], Ingest.read_into_memory
    expected, seen = read(ingest, by_tasks=False), []
    for context in (nullcontext(), *(patch.object(shared_memory, name, no_room) for name in ("create", "attach"))):
        with context, patch.object(Ingest, "read_into_memory", autospec=True, side_effect=read) as reading:
            found = RayTrainWorkers().read_once(ingest)
        same = all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for one, other in zip(found, expected, strict=True)
            for name in ("images", "labels", "order")
        )
        seen.append([same, bool(found[0].images.flags.writeable), reading.call_count])
    rank = RayTrainWorkers().rank
    Path(config["folder"], f"{rank}.json").write_text(json.dumps(seen))


@pytest.mark.soak
def test_one_worker_reads_and_both_see_its_bytes_or_each_its_own_where_they_cannot_share(ray_cluster, tmp_path):
    import sys

    from ray import cloudpickle
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    root = Location(str(tmp_path))
    pools = tuple(Pool((real_dataset("digits", split, root),), 0.5) for split in ("train", "test"))
    TorchTrainer(
        train,
        train_loop_config={"folder": str(tmp_path), "ingest": Ingest(pools, 8, 20, True)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.1}),
        run_config=RunConfig(name="shared", storage_path=str(tmp_path / "runs")),
    ).fit()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    own = [True, True, 1]
    assert first == [own, own, own]
    assert second == [[True, False, 0], own, own]
