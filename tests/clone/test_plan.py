from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from raysd.clone.plan import Plan, image_seed
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import resolve_clone_spec
from raysd.prompts.table import load_class_table
from raysd.prompts.variant import built_in_variants

TABLE = load_class_table("fashion_mnist")


def spec_of(**changes):
    return resolve_clone_spec(GenerationSettings(**changes), TABLE, built_in_variants())


SPEC = spec_of()
counts = st.integers(1, 400)


@given(counts, st.integers(1, 700))
def test_shards_cover_each_planned_image_exactly_once(images_per_class, images_per_shard):
    plan = Plan(SPEC, images_per_class, images_per_shard)
    positions = [position for shard in range(plan.num_shards) for position in plan.shard_range(shard)]
    assert positions == list(range(len(plan)))
    assert all(len(plan.shard_range(shard)) == images_per_shard for shard in range(plan.num_shards - 1))


@given(st.integers(0, 50))
def test_every_prefix_is_class_balanced(rounds):
    plan = Plan(SPEC, 100, 64)
    prefix = [plan.image(position) for position in range(rounds * len(TABLE))]
    assert sorted((image.label, image.index) for image in prefix) == [(label, index) for label in range(len(TABLE)) for index in range(rounds)]


@given(st.integers(0, 999), st.integers(1, 50))
def test_10x_contains_1x(position, images_per_shard):
    small, large = Plan(SPEC, 100, images_per_shard), Plan(SPEC, 1000, images_per_shard)
    assert small.image(position) == large.image(position)


def test_a_hundred_million_images_cost_nothing_to_plan():
    plan = Plan(SPEC, 10_000_000, 256)
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
        assert len({Plan(spec, 100, 64).image(position).seed for spec in [SPEC, *others]}) == 1


def test_the_fingerprint_sees_what_shapes_a_picture_and_nothing_else():
    base = SPEC.fingerprint
    for change in (
        {"guidance_scale": 3},
        {"variant": "multiple"},
        {"num_inference_steps": 7},
        {"seed": 1},
        {"sampler": "paper"},
        {"codec": "jpeg"},
        {"color": "rgb"},
    ):
        assert spec_of(**change).fingerprint != base, change
    for change in ({"images_per_class": 7}, {"batch_size": 7}, {"num_actors": 1}, {"guidance_scale": 2}, {"images_per_shard": 9}):
        assert spec_of(**change).fingerprint == base, change
    assert replace(SPEC, variant_name="another name").fingerprint == base
