"""Specs and plans for tests: the embedded generator and its ten classes."""

from raysd.clone.plan import ImageCounts, Plan
from raysd.clone.settings import GenerationSettings
from raysd.clone.spec import resolve_clone_spec
from raysd.prompts.resolve import built_in_variants
from raysd.prompts.table import load_class_table

TABLE = load_class_table("fashion_mnist")


def spec_of(**changes):
    return resolve_clone_spec(GenerationSettings(**changes), TABLE, built_in_variants())


SPEC = spec_of()


def plan_of(images_per_class, images_per_shard, spec=SPEC):
    return Plan(spec, ImageCounts(len(TABLE), images_per_class), images_per_shard)
