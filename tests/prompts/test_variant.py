from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raysd.errors import UserError
from raysd.prompts.resolve import built_in_variants, resolve_variant
from raysd.prompts.settings import TextTable, VariantSettings
from raysd.prompts.table import ClassTable, load_class_table
from raysd.prompts.variant import PromptVariant
from raysd.storage.fingerprint import fingerprint

TABLE = load_class_table("fashion_mnist")
ROW = TABLE.rows[5]
EARLIER = {  # fingerprints of the variants in clones that were sampled with the first release
    "name": "616a6d4ece663f46",
    "name_hypernym": "65dd8c7342e2b910",
    "name_definition": "07189908f75cf314",
    "multiple": "eae95e6d8d7b98bd",
    "attributes": "8d9f9c240c7efeeb",
}


def resolve(table=TABLE, **settings):
    return resolve_variant("mine", {"mine": VariantSettings(**settings)}, table)


def test_every_built_in_variant_fits_the_embedded_table():
    for name in built_in_variants():
        assert ROW["name"] in resolve_variant(name, {}, TABLE).prompt(ROW, seed=1)


@pytest.mark.parametrize("name", EARLIER)
def test_clones_of_earlier_variants_keep_their_fingerprints(name):
    assert fingerprint(resolve_variant(name, {}, TABLE).identity()) == EARLIER[name]


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("name", "accordion"),
        ("name_hypernym", "accordion, free-reed instrument"),
        (
            "name_definition",
            (
                "accordion, a portable box-shaped free-reed instrument; the reeds are made to vibrate by air "
                "from the bellows"
            ),
        ),
        ("multiple", "multiple accordion, free-reed instrument"),
        ("multiple_different", "multiple different accordion, free-reed instrument"),
    ],
)
def test_the_papers_families(name, prompt):
    table = load_class_table("imagenet1k")
    (row,) = [row for row in table.rows if row["name"] == "accordion"]
    assert resolve_variant(name, {}, table).prompt(row, 0).startswith(prompt)


def test_backgrounds_and_clip_templates_are_chosen_per_image():
    backgrounds = {resolve_variant("background", {}, TABLE).prompt(ROW, seed) for seed in range(60)}
    assert len(backgrounds) > 50 and all(prompt.startswith("sandal, open shoe inside ") for prompt in backgrounds)
    templates = resolve_variant("clip_templates", {}, TABLE)
    assert len(templates.templates) == 80 and len({templates.prompt(ROW, seed) for seed in range(2000)}) == 80
    assert len(resolve_variant("background", {}, TABLE).fields["background"]) == 365


def test_columns_are_filled_in():
    assert PromptVariant(templates=["{name}, {hypernym}"]).prompt(ROW, 0) == "sandal, open shoe"


@pytest.mark.parametrize(("which", "shown"), [("first", "a"), ("last", "c"), ("all", "a, b, c")])
def test_of_several_hypernyms_one_or_all_are_used(which, shown):
    row = {"label": "0", "key": "k", "name": "n", "hypernym": "a|b|c"}
    assert resolve(ClassTable([row]), templates=["{hypernym}"], hypernym=which).prompt(row, 0) == shown


def test_the_name_may_bring_its_synonyms():
    assert resolve(templates=["{name}"], names="all").prompt(ROW, 0) == "sandal, sandals, flip-flop"


@given(st.integers(0, 2**63 - 1), st.sampled_from(["attributes", "background", "clip_templates"]))
def test_a_prompt_depends_on_the_seed_alone(seed, name):
    variant = resolve_variant(name, {}, TABLE)
    assert variant.prompt(ROW, seed) == variant.model_copy(deep=True).prompt(dict(ROW), seed)


def test_fields_and_templates_are_chosen_evenly_and_independently():
    variant = PromptVariant(
        templates=["a {color} {name}", "the {color} {name}"], fields={"color": ["red", "blue", "green"]}
    )
    counts = Counter(variant.prompt({"name": "cat", "key": "cat"}, seed) for seed in range(6000))
    assert len(counts) == 6
    assert all(850 < count < 1150 for count in counts.values())


def test_weights_are_kept():
    variant = resolve(
        templates=["a {color}", "b {color}"],
        fields={"color": ["x", "y"]},
        weights={"templates": [3, 1], "color": [1, 9]},
    )
    counts = Counter(variant.prompt(ROW, seed) for seed in range(8000))
    assert 0.72 < sum(count for prompt, count in counts.items() if prompt[0] == "a") / 8000 < 0.78
    assert 0.88 < sum(count for prompt, count in counts.items() if prompt[-1] == "y") / 8000 < 0.92


def test_a_mixture_chooses_its_variants_by_weight_and_shares_their_choices():
    variants = {
        "mine": VariantSettings(mixture={"name": 1, "attributes": 3}),
        "deep": VariantSettings(mixture={"mine": 1, "name_hypernym": 1}),
    }
    mixture, attributes = resolve_variant("mine", variants, TABLE), resolve_variant("attributes", {}, TABLE)
    prompts = [mixture.prompt(ROW, seed) for seed in range(4000)]
    assert 0.22 < prompts.count("sandal") / 4000 < 0.28
    assert all(prompt in ("sandal", attributes.prompt(ROW, seed)) for seed, prompt in enumerate(prompts))
    assert "sandal, open shoe" in {resolve_variant("deep", variants, TABLE).prompt(ROW, seed) for seed in range(40)}


CAPTIONS = "key,caption,score\nsandal,a sandal on sand,3\nsandal,a sandal on a foot,1\n"


def captions(tmp_path, rows=None, name="captions.csv"):
    others = "".join(f"{row['key']},a {row['name']},1\n" for row in TABLE.rows if row["key"] != "sandal")
    (tmp_path / name).write_text(CAPTIONS + others if rows is None else rows)
    return {
        "templates": ["{caption}"],
        "fields": {"caption": {"table": str(tmp_path / name), "column": "caption", "weight": "score"}},
    }


def test_captions_are_chosen_among_the_rows_of_the_class(tmp_path):
    variant = resolve(**captions(tmp_path))
    counts = Counter(variant.prompt(ROW, seed) for seed in range(4000))
    assert set(counts) == {"a sandal on sand", "a sandal on a foot"} and 0.72 < counts["a sandal on sand"] / 4000 < 0.78
    assert variant.prompt(TABLE.rows[8], 0) == "a bag"


def test_the_content_of_a_table_shapes_the_fingerprint_and_its_place_does_not(tmp_path):
    first, moved = resolve(**captions(tmp_path)), resolve(**captions(tmp_path, name="moved.csv"))
    assert first.identity() == moved.identity()
    changed = captions(tmp_path)
    (tmp_path / "captions.csv").write_text((tmp_path / "captions.csv").read_text().replace("on sand,", "on rock,"))
    assert resolve(**changed).identity() != first.identity()


def test_a_list_of_captions_in_a_cell_is_several_texts(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"key": row["key"], "caption": [f"a {row['name']}", f"one {row['name']}"]} for row in TABLE.rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    variant = resolve(
        templates=["{caption}"], fields={"caption": TextTable(table=str(tmp_path / "t.parquet"), column="caption")}
    )
    assert {variant.prompt(ROW, seed) for seed in range(50)} == {"a sandal", "one sandal"}


def test_parquet_tables_and_class_names_do_too(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"class": row["name"], "scene": f"scene of {row['key']}"} for row in TABLE.rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    field = TextTable(table=str(tmp_path / "t.parquet"), column="scene", key="class")
    assert (
        resolve(templates=["{name} in {scene}"], fields={"scene": field}).prompt(ROW, 0) == "sandal in scene of sandal"
    )


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        ("key,caption,score\nsandal,x,1\n", {}, r"has no text for 9 classes, as 't_shirt'"),
        ("key,caption,score\n", {}, "the table is empty"),
        ("key,caption,score\nsandal,x,-1\n", {}, "in row 1 of .* is no number from 0 on"),
        ("key,caption,score\nsandal,x, or y,1\n", {}, "row 1 has more cells than the header"),
        ("key,caption,score\nsandal,,1\n", {}, "row 1 has no caption"),
        (
            "key,caption,score\nsandal,x,1\n",
            {"column": "text"},
            r"fields\.caption = 'text': .* has no such column; it has key, caption, score",
        ),
        ("key,caption,score\nsandal,x,1\n", {"table": "nowhere.csv"}, r"no such file; give the path of a \.csv"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, rows, change, message):
    settings = captions(tmp_path, rows)
    settings["fields"]["caption"] |= change
    with pytest.raises(UserError, match=message) as caught:
        resolve(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"templates": ["{color} {name}"]}, r"unknown variable \{color\}.*name, synonyms"),
        ({"templates": "no_such_list"}, "no such list; use one of clip_templates, places365"),
        ({"templates": ["{name}"], "weights": {"templates": [1, 2]}}, "give 1 weights"),
        ({"templates": ["{name}"], "weights": {"color": [1]}}, "has no choices to weigh"),
        ({"extends": "no_such_variant"}, "unknown; use one of name"),
        ({"extends": "mine"}, "leads back to itself"),
        ({"mixture": {"mine": 1}}, "contains itself"),
        ({}, "give at least one template"),
        ({"extends": "mixed", "negative_prompt": "blurry"}, "mixed is a mixture, which takes all from its variants"),
        ({"mixture": {"nothing": 1}}, r"variants\.mine\.mixture = 'nothing': unknown"),
    ],
)
def test_bad_variants_are_refused_in_one_line(settings, message):
    variants = {"mine": VariantSettings(**settings), "mixed": VariantSettings(mixture={"name": 1})}
    with pytest.raises(UserError, match=message) as caught:
        resolve_variant("mine", variants, TABLE)
    assert "\n" not in str(caught.value)


def test_texts_by_the_name_of_two_classes_are_refused(tmp_path):
    table = ClassTable([{"label": str(i), "key": key, "name": "crane"} for i, key in enumerate(("bird", "machine"))])
    (tmp_path / "t.csv").write_text("key,caption\ncrane,a crane\n")
    with pytest.raises(UserError, match="is the name of 2 classes; write their keys, bird and machine"):
        resolve(
            table, templates=["{caption}"], fields={"caption": {"table": str(tmp_path / "t.csv"), "column": "caption"}}
        )


def test_a_table_without_keys_is_for_all_classes_and_weights_of_zero_drop_a_text(tmp_path):
    (tmp_path / "t.csv").write_text("scene,weight\nbeach,1\ncity,0\n")
    field = {"table": str(tmp_path / "t.csv"), "column": "scene", "key": None, "weight": "weight"}
    variant = resolve(templates=["{name} at the {scene}"], fields={"scene": field})
    assert (
        variant.fields == {"scene": ["beach"]} and not variant.class_fields
    )  # held once, however many classes there are
    assert {variant.prompt(row, seed) for row in TABLE.rows for seed in range(20)} == {
        f"{row['name']} at the beach" for row in TABLE.rows
    }


def test_a_mixture_with_templates_beside_it_is_refused():
    with pytest.raises(ValidationError, match="leave out templates"):
        VariantSettings(mixture={"name": 1}, templates=["x"])


def test_nothing_but_variables_is_replaced():
    variant = PromptVariant(templates=["{name} {0} {name.__class__} {{}} %s"])
    assert variant.prompt({"name": "cat", "key": "cat"}, 0) == "cat {0} {name.__class__} {{}} %s"


def test_a_class_name_with_braces_is_not_a_template():
    assert PromptVariant(templates=["{name}"]).prompt({"name": "{key}", "key": "x"}, 0) == "{key}"


@pytest.mark.parametrize("empty", ["", "|"])
def test_an_empty_column_is_refused_with_its_class(empty):
    rows = [
        {"label": "0", "key": "cat", "name": "cat", "hypernym": "feline"},
        {"label": "1", "key": "dog", "name": "dog", "hypernym": empty},
    ]
    with pytest.raises(UserError, match="'dog' has no hypernym"):
        resolve_variant("name_hypernym", {}, ClassTable(rows))


def test_a_variant_of_a_built_in_name_changes_that_one():
    table = load_class_table("imagenet1k")
    cranes = [row for row in table.rows if row["name"] == "crane"]
    plain = resolve_variant("name", {}, table)
    apart = resolve_variant("name", {"name": VariantSettings(disambiguate="hypernym")}, table)
    assert [plain.prompt(row, 0) for row in cranes] == ["crane", "crane"]
    assert [apart.prompt(row, 0) for row in cranes] == ["crane, wading bird", "crane, lifting device"]
    before = resolve_variant("clip_templates", {"clip_templates": VariantSettings(disambiguate="hypernym")}, table)
    assert "crane, wading bird" in before.prompt(cranes[0], 0) and not before.prompt(cranes[0], 0).endswith("bird")
    twice = resolve_variant(
        "name_hypernym",
        {"name_hypernym": VariantSettings(disambiguate="hypernym", disambiguate_classes="ambiguous")},
        table,
    )
    assert twice.prompt(cranes[0], 0) == "crane, wading bird"
    assert len(apart.added) == 6 and apart.prompt(table.rows[0], 0) == "tench"
    ambiguous = resolve_variant(
        "name", {"name": VariantSettings(disambiguate="definition", disambiguate_classes="ambiguous")}, table
    )
    assert len(ambiguous.added) == 310 + len(
        {key for key in apart.added if next(row for row in table.rows if row["key"] == key)["senses"] == "1"}
    )
