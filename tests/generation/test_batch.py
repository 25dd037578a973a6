"""A batch that the GPU has no memory for, with a stand-in whose memory holds some images."""

import json

import numpy as np
import pytest
import torch
from plans import plan_of, spec_of
from stand_in import StandIn, actor_of, job_of

from raysd.errors import UserError
from raysd.generation.batch import generate_batch

SPEC = spec_of()
IMAGES = [plan_of(4, 40).image(position) for position in range(32)]


class SmallMemory(StandIn):
    """Has room for so many images at a time; `taken` of the first calls find it full."""

    def __init__(self, room, taken=0):
        super().__init__()
        self.room, self.taken, self.sizes = room, taken, []

    def generate(self, spec, images):
        self.sizes.append(len(images))
        if len(self.sizes) <= self.taken or len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 96.00 GiB")
        return super().generate(spec, images)


@pytest.mark.parametrize(
    ("room", "fits", "sizes"), [(31, 16, [32, 32, 16]), (9, 8, [32, 32, 16, 8]), (1, 1, [32, 32, 16, 8, 4, 2, 1])]
)
def test_a_batch_that_does_not_fit_is_refused_with_the_size_that_does(room, fits, sizes):
    stand_in = SmallMemory(room)
    with pytest.raises(UserError) as refused:
        generate_batch(stand_in, SPEC, IMAGES)
    assert stand_in.sizes == sizes
    line = (
        f"generation.batch_size = 32: does not fit into the device with images of 32 px; set it to {fits}, which "
        "does, or use larger GPUs"
    )
    assert str(refused.value) == line


def test_not_even_one_image_fits():
    with pytest.raises(
        UserError,
        match=(
            r"generation.batch_size = 3: not even one image of 32 px fits into the device; lower "
            r"generation.image_size"
        ),
    ):
        generate_batch(SmallMemory(0), SPEC, IMAGES[:3])


def test_memory_that_was_taken_for_a_moment_changes_nothing():
    stand_in = SmallMemory(32, taken=1)
    batch = generate_batch(stand_in, SPEC, IMAGES)
    assert stand_in.sizes == [32, 32]
    assert np.array_equal(batch.pixels, StandIn().generate(SPEC, IMAGES).pixels)


def test_other_errors_are_raised_as_they_are():
    class Broken(StandIn):
        def generate(self, spec, images):
            raise RuntimeError("CUDA error: an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        generate_batch(Broken(), SPEC, IMAGES)


def test_a_refused_shard_is_not_written_and_the_next_run_with_the_size_that_fits_ends_as_any(tmp_path):
    job, at_once = job_of(tmp_path / "small"), job_of(tmp_path / "large")
    row = actor_of(job, SmallMemory(2), batch_size=8).try_shard(job, 0)
    assert json.loads(row["error"])[:2] == ["generation.batch_size", 8] and row["generated"] == 0
    assert not list((tmp_path / "small").rglob("*.parquet"))
    assert actor_of(job, SmallMemory(2), batch_size=2).try_shard(job, 0)["error"] == ""
    actor_of(at_once, StandIn()).generate_shard(at_once, 0)
    (small,), (large,) = list((tmp_path / "small").rglob("*.parquet")), list((tmp_path / "large").rglob("*.parquet"))
    assert small.read_bytes() == large.read_bytes()
