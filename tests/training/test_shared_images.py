"""The workers of a node share one copy of the images that are held in memory."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
NUM_IMAGES = 50


def train(config):
    """What each worker does: it gets the images twice, once with more bytes than any object store has, and then as if
    the store took none, and notes what it saw."""
    from contextlib import redirect_stdout, suppress
    from io import StringIO
    from unittest.mock import patch

    import numpy as np
    from ray.exceptions import ObjectStoreFullError

    from raysd.data.images import ImageArrays
    from raysd.training.workers import RayTrainWorkers

    workers, num_read = RayTrainWorkers(), 0

    def read():
        nonlocal num_read
        num_read += 1
        numbers = np.arange(NUM_IMAGES)
        images = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 3, 64, 64), dtype=np.uint8)
        return [ImageArrays(images, numbers % 10, numbers)]

    seen = []
    full = patch("ray.put", side_effect=ObjectStoreFullError("full"))
    for num_bytes, context in ((1, suppress()), (2**60, suppress()), (1, full)):
        num_read = 0
        with context, redirect_stdout(StringIO()):
            (found,) = workers.read_once(read, num_bytes)
        same = all(
            np.array_equal(getattr(found, name), getattr(read()[0], name)) for name in ("images", "labels", "order")
        )
        seen.append([same, bool(found.images.flags.writeable), num_read - 3])
    Path(config["folder"], f"{workers.rank}.json").write_text(json.dumps(seen))


def test_one_worker_reads_and_both_see_its_bytes_or_each_its_own_where_there_is_no_room(ray_cluster, tmp_path):
    import sys

    from ray import cloudpickle
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    TorchTrainer(
        train,
        train_loop_config={"folder": str(tmp_path)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.1}),
        run_config=RunConfig(name="shared", storage_path=str(tmp_path / "runs")),
    ).fit()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    own = [True, True, 1]
    assert first == [[True, False, 1], own, own]
    assert second == [[True, False, 0], own, own]
