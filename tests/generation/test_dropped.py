"""A clone that comes out empty, or with many images dropped, is a failure and says so early."""

import numpy as np
from plans import spec_of
from stand_in import StandIn, actor_of

from raysd.clone.clone import plan_clone
from raysd.clone.settings import GenerationSettings
from raysd.errors import UserError
from raysd.generation.generate import generate_clones
from raysd.storage.location import Location

SIZES = {"images_per_class": 6, "images_per_shard": 15}  # 60 images in 4 shards


class NanIn(StandIn):
    """A pipeline whose images are NaN."""

    def generate(self, spec, images):
        batch = super().generate(spec, images)
        return type(batch)(batch.pixels, ["nan"] * len(images))


def run(root, stand_in, **changes):
    """Generate with a stand-in for the pipeline; returns the summary and how many shards were generated."""
    settings = GenerationSettings(**SIZES, **changes)
    clone, done = plan_clone(Location(str(root)), spec_of(flagged="drop"), settings), []

    def generate(clones, shards):
        actor = actor_of(clone, stand_in)
        for shard in shards[0]:
            done.append(int(shard))
            yield {**actor.generate_shard(clone, int(shard)), "clone": 0}

    try:
        return generate_clones([clone], settings, generate)[0], done
    except UserError as error:
        return error, done


def test_a_model_that_gives_nan_ends_the_job_after_its_first_shard_and_again_when_it_is_run_again(tmp_path):
    error, done = run(tmp_path, NanIn())
    assert str(error) == (
        "generation.max_dropped_share = 0.05: 15 of the first 15 images were dropped, the last ones since they are "
        "NaN; set generation.dtype=float32, or use another checkpoint"
    )
    assert done == [0]
    for _ in range(3):
        error, _ = run(tmp_path, NanIn())
    error, done = run(tmp_path, NanIn())
    assert "60 of 60 images were dropped" in str(error) and done == [], "what is stored is whole, and still empty"


def test_some_dropped_images_are_no_failure_and_the_limit_can_be_raised(tmp_path):
    few = dict.fromkeys((3, 17), 1)
    summary, _ = run(tmp_path / "few", StandIn(few))
    assert summary.num_images == 58
    many = dict.fromkeys(range(0, 60, 8), 1)
    error, done = run(tmp_path / "many", StandIn(many))
    assert str(error).startswith("generation.max_dropped_share = 0.05: ") and "images were dropped" in str(error)
    assert done and "raise the limit" in str(error)
    summary, _ = run(tmp_path / "many", StandIn(many), max_dropped_share=0.2)
    assert summary.num_images == 52


def test_a_class_that_lacks_most_of_its_images_is_named_though_the_clone_has_enough(tmp_path):
    settings = GenerationSettings(**SIZES)
    clone = plan_clone(Location(str(tmp_path)), spec_of(flagged="drop"), settings)
    labels = np.array([clone.image(position).label for position in range(60)])
    one_class = {int(position): 1 for position in np.flatnonzero(labels == 3)[:4]}
    error, _ = run(tmp_path, StandIn(one_class), max_dropped_share=0.1)
    assert "class dress lacks 4 of 6 images" in str(error)
    summary, _ = run(tmp_path, StandIn(one_class), max_dropped_share=1)
    assert summary.short_classes == {"dress": 4}


def test_even_without_a_limit_an_empty_clone_is_a_failure(tmp_path):
    error, done = run(tmp_path, NanIn(), max_dropped_share=1)
    assert "60 of 60 images were dropped" in str(error) and len(done) == 4
