import pytest

from raysd.diffusion.checkpoint import find_model
from raysd.diffusion.tokenizers import prompt_tokenizers
from raysd.prompts.lint import lint_prompts
from raysd.prompts.resolve import resolve_variant
from raysd.prompts.settings import VariantSettings
from raysd.prompts.table import ClassTable, load_class_table

IMAGENET = load_class_table("imagenet1k")


class Words:
    """A tokenizer that counts words."""

    limit, encoder = 12, "text_encoder_2 (Words)"

    def count(self, prompts):
        return [len(prompt.split()) for prompt in prompts]

    def unknown(self, prompts):
        return [[word for word in prompt.replace(",", "").split() if word == "tench"] for prompt in prompts]


def found(name, table=IMAGENET, tokenizers=(), **settings):
    variant = resolve_variant(name, {name: VariantSettings(**settings)} if settings else {}, table)
    return {finding.kind: finding for finding in lint_prompts(variant, table, tokenizers)}


def lint_kinds(name, variants, table=IMAGENET):
    variant = resolve_variant(name, {key: VariantSettings(**settings) for key, settings in variants.items()}, table)
    return {finding.kind for finding in lint_prompts(variant, table)}


def table_of(**columns):
    keys = [f"k{i}" for i in range(len(columns["name"]))]
    return ClassTable(
        [
            {"label": str(i), "key": key, **{name: values[i] for name, values in columns.items()}}
            for i, key in enumerate(keys)
        ]
    )


def test_both_cranes_are_found_and_the_offered_fix_works():
    finding = found("name")["identical"]
    assert {"n02012849", "n03126707"} <= set(finding.keys) and finding.fix == "variants.name.disambiguate=hypernym"
    assert "identical" not in found("name", disambiguate="hypernym")


def test_names_of_several_meanings_are_found_where_nothing_explains_them():
    assert len(found("name")["polysemous"].keys) == 310
    assert "polysemous" not in found("name_definition") and "polysemous" not in found("background")
    fixed = found("name", disambiguate="hypernym", disambiguate_classes="ambiguous")
    assert "polysemous" not in fixed
    assert "polysemous" in found("mine", mixture={"name": 1, "name_definition": 1})


def test_several_hypernyms_are_found_where_one_is_used():
    assert len(found("name_hypernym")["several-hypernyms"].keys) == 38
    assert "several-hypernyms" not in found("name")
    for chosen in ("first", "all"):
        assert "several-hypernyms" not in found("name_hypernym", hypernym=chosen)


def test_shared_synonyms_are_found_where_synonyms_are_used():
    assert "shared-synonyms" not in found("name")
    finding = found("name", names="all")["shared-synonyms"]
    assert {"n03710637", "n03710721"} <= set(finding.keys)


def test_long_prompts_and_unknown_words_are_found_with_the_models_tokenizer():
    findings = found("name_definition", tokenizers=[Words()])
    assert "n01440764" in findings["too-long"].keys
    count = len(findings["too-long"].keys)
    assert f"{count} prompts over the 12 tokens of text_encoder_2 (Words), cut off at the end" in str(
        findings["too-long"]
    )
    assert findings["unknown-words"].keys == ("n01440764",)
    assert "too-long" not in found("name", tokenizers=[Words()])


def test_a_prompt_is_counted_for_each_encoder_and_a_negative_prompt_too():
    first, third = Words(), Words()
    first.encoder, third.encoder, third.limit = "text_encoder", "text_encoder_3", 30
    words = {"templates": ["{name}" + " a" * 20, "{name}", "{name}" + " b" * 40], "negative_prompt": "c " * 13}
    table = table_of(name=["cat", "dog"])
    variant = resolve_variant("x", {"x": VariantSettings(**words)}, table)
    long = [str(finding) for finding in lint_prompts(variant, table, [first, third])]
    assert len(long) == 3 and "k1 (41 tokens: 'dog b b" in long[0]
    assert "4 prompts over the 12 tokens of text_encoder, cut off at the end in 2 classes: " in long[0]
    assert "a negative prompt over the 12 tokens of text_encoder, cut off at the end: 13 tokens" in long[1]
    assert "2 prompts over the 30 tokens of text_encoder_3, cut off at the end in 2 classes: " in long[2]


def test_the_embedded_model_knows_its_own_classes_and_few_others():
    tokenizers = prompt_tokenizers(find_model("embedded"))
    assert tokenizers[0].limit == 32
    assert not found("name", load_class_table("fashion_mnist"), tokenizers) and not found(
        "attributes", load_class_table("fashion_mnist"), tokenizers
    )
    assert len(found("name", IMAGENET, tokenizers)["unknown-words"].keys) > 900


@pytest.mark.parametrize(
    ("columns", "kind", "text"),
    [
        ({"name": ["cat", "Cat"]}, "identical", "k0 and k1"),
        ({"name": ["cat", "dog"], "definition": ["a pet", "dog"]}, "implausible", "the definition repeats the name"),
        (
            {"name": ["cat", "dog"], "definition": ["a <b>pet</b>", "a pet too"]},
            "implausible",
            "definition holds 'a <b>pet</b>'",
        ),
        ({"name": ["cat", "d" * 70], "definition": ["x", "y"]}, "implausible", "a name of 70 characters"),
        ({"name": ["cat", "{dog}"], "definition": ["x", "y"]}, "implausible", "name holds"),
        ({"name": ["cat", "dog"], "definition": ["n/a", "a pet"]}, "implausible", "definition holds 'n/a'"),
    ],
)
def test_traps_in_your_own_table_are_found(columns, kind, text):
    assert text in str(found("name_definition" if "definition" in columns else "name", table_of(**columns))[kind])


def test_texts_that_belong_to_no_class_are_counted(tmp_path):
    (tmp_path / "t.csv").write_text("key,caption\nk0,a\nk1,b\nk7,c\n")
    field = {"table": str(tmp_path / "t.csv"), "column": "caption"}
    finding = found("mine", table_of(name=["cat", "dog"]), templates=["{caption}"], fields={"caption": field})[
        "unmatched-rows"
    ]
    assert str(finding).startswith("unmatched-rows: texts that belong to no class: 1 rows of the field 'caption'")


def test_a_fix_is_one_that_the_table_allows():
    table = table_of(name=["crane", "crane", "x"], hypernym=["bird", "machine", ""])
    assert found("name", table)["identical"].fix == "variants.name.disambiguate=hypernym"
    assert "tell these classes apart" in found("name", table_of(name=["crane", "crane"]))["identical"].fix
    same = table_of(name=["crane", "crane"], hypernym=["bird", "bird"], definition=["tall", "small"])
    assert found("name", same)["identical"].fix == "variants.name.disambiguate=definition"
    assert "identical" not in found("name", same, disambiguate="definition")
    mixed = found("mixed", mixture={"name": 1, "name_definition": 30})
    assert mixed["identical"].fix == "variants.name.disambiguate=hypernym"
    assert "identical" not in lint_kinds(
        "mixed", {"mixed": {"mixture": {"name": 1, "name_definition": 30}}, "name": {"disambiguate": "hypernym"}}
    )


def test_digits_alone_are_no_prompt():
    assert "the prompt is '3' alone" in str(found("name", table_of(name=["3", "4"]))["implausible"])


@pytest.mark.parametrize("templates", [["{name}"], ["a photo of a {}"], ["a thing"]])
def test_a_finding_is_one_short_line(templates):
    for finding in found("mine", templates=templates).values():
        assert "\n" not in str(finding) and len(str(finding)) < 450


def test_every_text_of_a_class_is_looked_at(tmp_path):
    lines = [f"k{i},{animal} number {number},1" for i, animal in enumerate(("cat", "dog")) for number in range(50)]
    lines += ["k0,a cat " + "and so on " * 20 + ",0.01", "k1,a <b>dog</b>,0.01", "k0,nobody,1", "k1,nobody,1"]
    (tmp_path / "t.csv").write_text("\n".join(["key,caption,weight", *lines]))
    field = {"table": str(tmp_path / "t.csv"), "column": "caption", "weight": "weight"}
    findings = found(
        "mine", table_of(name=["cat", "dog"]), [Words()], templates=["{caption}"], fields={"caption": field}
    )
    assert findings["identical"].examples == ("k0 and k1 ('nobody')",) and findings["too-long"].keys == ("k0",)
    assert "caption holds 'a <b>dog</b>'" in str(findings["implausible"])


def test_words_of_short_templates_and_choices_are_looked_at_too():
    table = load_class_table("fashion_mnist")
    findings = lint_prompts(
        resolve_variant(
            "x",
            {
                "x": VariantSettings(
                    templates=["dark plain slim {name}", "xylo {name}", "{tone} {name}"],
                    fields={"tone": ["light", "xq"]},
                )
            },
            table,
        ),
        table,
        prompt_tokenizers(find_model("embedded")),
    )
    assert [(finding.kind, len(finding.keys)) for finding in findings] == [("unknown-words", 10), ("unknown-words", 0)]


def test_a_fix_that_would_be_refused_is_not_offered():
    cranes = table_of(
        name=["crane", "crane", "crane"], hypernym=["bird", "bird", "machine"], definition=["tall", "small", ""]
    )
    for settings in ({}, {"disambiguate": "hypernym"}):
        assert "tell these classes apart" in found("name", cranes, **settings)["identical"].fix
    assert (
        "tell these classes apart"
        in found("name", table_of(name=["crane", "crane"], hypernym=["bird", "|"]))["identical"].fix
    )


def test_texts_that_say_nothing_of_the_name_are_not_asked_what_it_means():
    assert "polysemous" not in found("mine", templates=["{definition}"])
    assert "polysemous" not in found("mine", templates=["image {key}"])


def test_fields_may_have_the_names_of_columns():
    assert not found(
        "mine",
        table_of(name=["cat", "dog"]),
        templates=["{name}, {definition}"],
        fields={"definition": ["sunny", "dark"]},
    )


def test_braces_that_are_no_variable_are_found():
    assert "a {name} in {the place}" in str(found("mine", templates=["a {name} in {the place}"])["braces"])


def test_names_of_small_sets_are_known_to_mean_several_things():
    assert {"mouse", "ray", "seal"} <= set(found("name", load_class_table("cifar100"))["polysemous"].keys)
    assert "'Boxer' (4 meanings)" in str(found("name", load_class_table("pets"))["polysemous"])
