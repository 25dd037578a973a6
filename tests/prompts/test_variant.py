from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raysd.errors import UserError
from raysd.prompts.table import load_class_table
from raysd.prompts.variant import PromptVariant, built_in_variants

TABLE = load_class_table("fashion_mnist")
ROW = TABLE.rows[5]


def test_every_built_in_variant_fits_the_embedded_table():
    for name, variant in built_in_variants().items():
        variant.check(name, TABLE)
        assert ROW["name"] in variant.prompt(ROW, seed=1)


def test_columns_are_filled_in():
    assert PromptVariant(templates=["{name}, {hypernym}"]).prompt(ROW, 0) == "sandal, open shoe"


@given(st.integers(0, 2**63 - 1))
def test_a_prompt_depends_on_the_seed_alone(seed):
    variant = built_in_variants()["attributes"]
    assert variant.prompt(ROW, seed) == variant.prompt(dict(ROW), seed)


def test_fields_and_templates_are_drawn_evenly_and_apart():
    variant = PromptVariant(templates=["a {color} {name}", "the {color} {name}"], fields={"color": ["red", "blue", "green"]})
    counts = Counter(variant.prompt({"name": "cat"}, seed) for seed in range(6000))
    assert len(counts) == 6
    assert all(850 < count < 1150 for count in counts.values())


def test_nothing_but_variables_is_replaced():
    variant = PromptVariant(templates=["{name} {0} {name.__class__} {{}} %s"])
    assert variant.prompt({"name": "cat"}, 0) == "cat {0} {name.__class__} {{}} %s"


def test_a_class_name_with_braces_is_not_a_template():
    assert PromptVariant(templates=["{name}"]).prompt({"name": "{key}", "key": "x"}, 0) == "{key}"


def test_an_unknown_variable_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"unknown variable \{colour\}.*name, synonyms"):
        PromptVariant(templates=["{colour} {name}"]).check("mine", TABLE)


def test_an_empty_column_is_refused_with_its_class():
    with pytest.raises(UserError, match="'dog' has no hypernym"):
        built_in_variants()["name_hypernym"].check("name_hypernym", _table_without_hypernym())


def _table_without_hypernym():
    from raysd.prompts.table import ClassTable

    return ClassTable([{"label": "0", "key": "cat", "name": "cat", "hypernym": "feline"}, {"label": "1", "key": "dog", "name": "dog", "hypernym": ""}])


def test_a_variant_without_templates_is_refused():
    with pytest.raises(ValidationError):
        PromptVariant(templates=[])
