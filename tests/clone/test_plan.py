import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import SPEC, TABLE, plan_of, spec_of

from raysd.clone.plan import ImageCounts, Plan, counts_from_array, image_seed, resolve_counts
from raysd.errors import UserError

equal = st.integers(1, 400)
unequal = st.lists(st.integers(0, 120), min_size=len(TABLE), max_size=len(TABLE)).filter(any)


@given(equal, st.integers(1, 700))
def test_shards_cover_each_planned_image_exactly_once(images_per_class, images_per_shard):
    plan = plan_of(images_per_class, images_per_shard)
    positions = [position for shard in range(plan.num_shards) for position in plan.positions(shard)]
    assert positions == list(range(len(plan)))
    assert (plan.shard_sizes()[:-1] == images_per_shard).all() and plan.shard_sizes().sum() == len(plan)


@given(unequal, st.integers(1, 300))
def test_unequal_counts_are_met_exactly(counts, images_per_shard):
    plan = Plan(SPEC, counts_from_array(np.array(counts)), images_per_shard)
    images = [plan.image(position) for shard in range(plan.num_shards) for position in plan.positions(shard)]
    assert len(images) == len(plan) == sum(counts)
    assert sorted((image.label, image.index) for image in images) == [
        (label, index) for label, count in enumerate(counts) for index in range(count)
    ]
    assert plan.shard_sizes().tolist() == [len(plan.positions(shard)) for shard in range(plan.num_shards)]


@given(unequal, unequal, st.integers(1, 300))
def test_images_keep_their_shard_when_classes_grow(counts, more, images_per_shard):
    small = Plan(SPEC, counts_from_array(np.array(counts)), images_per_shard)
    large = Plan(SPEC, counts_from_array(np.array(counts) + np.array(more)), images_per_shard)
    for shard in range(small.num_shards):
        assert set(small.positions(shard)) <= set(large.positions(shard))


@given(unequal)
def test_counts_survive_their_record(counts):
    value = counts_from_array(np.array(counts))
    assert ImageCounts.from_json(len(TABLE), json.loads(json.dumps(value.to_json()))) == value
    assert value.array.tolist() == counts


def test_counts_of_an_unknown_class_are_refused():
    assert resolve_counts(5, {"dress": 9, "bag": 0}, TABLE).total == 5 * 8 + 9
    with pytest.raises(UserError, match=r"generation.class_counts = 'hat': is no key of the class table"):
        resolve_counts(5, {"hat": 9}, TABLE)


@given(st.integers(0, 50))
def test_every_prefix_is_class_balanced(rounds):
    plan = plan_of(100, 64)
    prefix = [plan.image(position) for position in range(rounds * len(TABLE))]
    assert sorted((image.label, image.index) for image in prefix) == [
        (label, index) for label in range(len(TABLE)) for index in range(rounds)
    ]


@given(st.integers(0, 999), st.integers(1, 50))
def test_10x_contains_1x(position, images_per_shard):
    small, large = plan_of(100, images_per_shard), plan_of(1000, images_per_shard)
    assert small.image(position) == large.image(position)


def test_a_hundred_million_images_cost_nothing_to_plan():
    plan = plan_of(10_000_000, 256)
    assert plan.num_shards == 390_625
    assert plan.image(len(plan) - 1).index == 9_999_999


@given(st.integers(0, 10**6), st.sampled_from(TABLE.keys), st.integers(0, 10**7))
def test_seeds_fit_a_signed_column_and_depend_on_each_part(seed, key, index):
    value = image_seed(seed, key, index)
    assert 0 <= value < 2**63
    assert value != image_seed(seed + 1, key, index)
    assert value != image_seed(seed, key + "x", index)
    assert value != image_seed(seed, key, index + 1)


def test_a_seed_is_the_same_on_every_machine():
    assert image_seed(0, "t_shirt", 0) == 2120648549695314147


def test_variants_and_guidance_scales_share_their_noise():
    others = [spec_of(guidance_scale=7.5), spec_of(variant="attributes"), spec_of(num_inference_steps=7)]
    for position in (0, 7, 123):
        assert len({plan_of(100, 64, spec).image(position).seed for spec in [SPEC, *others]}) == 1


def test_the_fingerprint_sees_what_shapes_an_image_and_nothing_else():
    base = SPEC.fingerprint
    for change in (
        {"guidance_scale": 3},
        {"variant": "multiple"},
        {"num_inference_steps": 7},
        {"seed": 1},
        {"sampler": "paper"},
        {"codec": "jpeg"},
        {"color": "rgb"},
        {"codec": "webp"},
        {"stored_size": 16},
        {"guidance_interval": (0.2, 0.8)},
        {"scheduler": "UniPCMultistepScheduler"},
        {"scheduler_options": {"algorithm_type": "sde-dpmsolver++"}},
        {"flagged": "keep"},
        {"max_redraws": 5},
    ):
        assert spec_of(**change).fingerprint != base, change
    for change in (
        {"images_per_class": 7},
        {"batch_size": 7},
        {"num_actors": 1},
        {"min_actors": 1},
        {"guidance_scale": 2},
        {"images_per_shard": 9},
        {"class_counts": {"bag": 3}},
    ):
        assert spec_of(**change).fingerprint == base, change
    assert replace(SPEC, variant_name="another name").fingerprint == base


def test_a_redraw_has_a_seed_of_its_own_and_the_same_prompt():
    plan = plan_of(10, 16, spec_of(variant="attributes"))
    images = [plan.image(17, redraw) for redraw in range(4)]
    assert len({image.seed for image in images}) == 4
    assert len({image.prompt for image in images}) == 1
