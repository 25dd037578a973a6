import csv
from pathlib import Path

import pytest
from timm.data import ImageNetInfo
from tiny_wordnet import NOUNS, SYNSETS, write_tiny_wordnet

from raysd.errors import UserError
from raysd.prompts.table import ClassTable, fill_from_wordnet, load_class_table, split_cell
from raysd.prompts.wordnet import PLACES, WordNet, find_wordnet

SHARED = Path(__file__).parents[3] / "shared" / "data" / "imagenet1k_wordnet.tsv"


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordnet")
    write_tiny_wordnet(folder)
    return folder


@pytest.fixture
def wordnet(tiny_folder, monkeypatch):
    """The tiny WordNet, in the place of any other."""
    monkeypatch.setenv("WNHOME", str(tiny_folder))
    find_wordnet.cache_clear()
    yield find_wordnet()
    find_wordnet.cache_clear()


@pytest.fixture(scope="module")
def whole_wordnet():
    try:
        return find_wordnet()
    except UserError:
        pytest.skip("needs WordNet 3.0 (Debian package wordnet-base)")


def rows_of(name):
    return load_class_table(name).rows


def test_imagenet_has_the_order_the_names_and_the_definitions_of_timm():
    rows, info = rows_of("imagenet1k"), ImageNetInfo("imagenet-1k")
    assert [row["key"] for row in rows] == info.label_names()
    for row in rows:
        assert (
            info.label_name_to_description(row["key"], detailed=True)
            == ", ".join([row["name"], *split_cell(row["synonyms"])]) + f": {row['definition']}"
        )


def test_the_known_traps_of_imagenets_names_are_there():
    rows = rows_of("imagenet1k")
    assert len(rows) == 1000 and all(row["definition"] and row["hypernym"] for row in rows)
    assert sum(len(split_cell(row["hypernym"])) > 1 for row in rows) == 38
    assert sum(int(row["senses"]) > 1 for row in rows) == 310
    assert [row["key"] for row in rows if row["name"] == "crane"] == ["n02012849", "n03126707"]
    lemmas = [lemma for row in rows for lemma in {row["name"].lower(), *map(str.lower, split_cell(row["synonyms"]))}]
    assert len({lemma for lemma in lemmas if lemmas.count(lemma) > 1}) == 19


def test_the_hundred_classes_are_rows_of_the_thousand():
    thousand = {row["key"]: row for row in rows_of("imagenet1k")}
    hundred = rows_of("imagenet100")
    assert len(hundred) == 100 and [row["key"] for row in hundred] == sorted(row["key"] for row in hundred)
    assert all({**thousand[row["key"]], "label": ""} == {**row, "label": ""} for row in hundred)


def test_the_table_is_what_was_derived_from_wordnet_elsewhere():
    if not SHARED.is_file():
        pytest.skip(f"needs {SHARED.name}")
    with SHARED.open(encoding="utf-8") as file:
        reference = {row["wnid"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    for row in rows_of("imagenet1k"):
        other = reference[row["key"]]
        assert (row["name"], row["definition"], row["hypernym"]) == (
            other["name"],
            other["definition"],
            other["hypernym"],
        )


def test_the_tool_makes_the_tables_that_ship(whole_wordnet, tmp_path):
    import subprocess
    import sys

    subprocess.run([sys.executable, "tools/make_class_tables.py", str(tmp_path)], check=True, timeout=120)
    for name in ("imagenet1k", "imagenet100", "cifar10", "cifar100", "pets", "flowers102", "dtd", "eurosat", "food101"):
        assert (tmp_path / f"{name}.csv").read_bytes() == (Path("raysd/prompts/tables") / f"{name}.csv").read_bytes()


def test_the_tiny_wordnet_is_read_as_the_whole_one(wordnet, whole_wordnet):
    assert whole_wordnet.senses("entity") and not wordnet.senses("entity")
    for noun in NOUNS:
        assert wordnet.senses(noun) == whole_wordnet.senses(noun) != []
    for wnid, *_ in SYNSETS:
        assert wordnet.synset(wnid) == whole_wordnet.synset(wnid)


def test_a_synset_has_its_lemmas_definition_and_hypernyms(wordnet):
    crane = wordnet.synset("n02012849")
    assert (
        crane.lemmas == ("crane",)
        and crane.definition.startswith("large long-necked wading bird")
        and wordnet.hypernym_names(crane) == ["wading bird"]
    )
    assert len(wordnet.senses("Crane")) == 5 and wordnet.senses("no such thing") == []
    with pytest.raises(KeyError):
        wordnet.synset("n02012850")


def test_a_definition_has_no_examples_and_hypernyms_may_be_several_or_those_of_an_instance(wordnet):
    bus, writer = wordnet.synset("n02924554"), wordnet.senses("crane")[0]
    assert bus.definition == "a car that is old and unreliable" and wordnet.hypernym_names(bus) == ["car", "dysphemism"]
    assert writer.lemmas == ("Crane", "Stephen Crane") and wordnet.hypernym_names(writer) == ["writer"]
    assert len(wordnet.senses("bus")[0].lemmas) == 10  # WordNet counts them in base 16


def test_names_are_filled_in_and_cells_that_are_there_stay(wordnet, tmp_path):
    (tmp_path / "t.csv").write_text(
        "key,name,wnid,sense,definition\nbird,crane,n02012849,,\nmachine,crane,,4,\ndog,papillon,,,my own "
        "words\nx,blorptron,,,\n"
    )
    table = fill_from_wordnet(load_class_table(str(tmp_path / "t.csv")))
    bird, machine, dog, unknown = table.rows
    assert (
        bird["hypernym"] == "wading bird" and machine["hypernym"] == "lifting device" and machine["wnid"] == "n03126707"
    )
    assert dog["definition"] == "my own words" and dog["hypernym"] == "toy spaniel"
    assert unknown["senses"] == "0" and unknown["definition"] == ""


def test_a_meaning_that_was_guessed_is_said(wordnet):
    from raysd.prompts.lint import lint_prompts
    from raysd.prompts.resolve import resolve_variant

    table = fill_from_wordnet(load_class_table(["crane", "tench"]))
    (guessed,) = [
        finding
        for finding in lint_prompts(resolve_variant("name_definition", {}, table), table)
        if finding.kind == "guessed"
    ]
    assert guessed.keys == ("crane",) and "United States writer" in str(guessed)
    own = fill_from_wordnet(
        ClassTable([{"label": "0", "key": "c", "name": "crane", "definition": "a bird", "hypernym": "bird"}])
    )
    assert "guessed" not in {finding.kind for finding in lint_prompts(resolve_variant("name_definition", {}, own), own)}


@pytest.mark.parametrize(
    ("name", "wnid"),
    [
        ("waffles", "n07641699"),
        ("lawn-mower", "n03649909"),
        ("hot  dog", "n10187710"),
        ("vases", "n04522168"),
        ("buses", "n02924116"),
        ("hooves", None),
    ],
)
def test_plurals_and_hyphens_are_understood(wordnet, name, wnid):
    assert (wordnet.senses(name) or [None])[0] == (wnid and wordnet.synset(wnid))


def test_a_name_that_wordnet_does_not_know_is_said_where_a_prompt_needs_it(wordnet):
    from raysd.prompts.resolve import resolve_variant

    with pytest.raises(UserError, match="class 'blorptron' has no definition; WordNet does not know its name"):
        resolve_variant("name_definition", {}, fill_from_wordnet(load_class_table(["blorptron"])))


@pytest.mark.parametrize(
    ("column", "value"), [("wnid", "n00000001"), ("sense", "9"), ("sense", "0"), ("sense", "-1"), ("sense", "first")]
)
def test_a_meaning_that_is_not_there_is_refused(wordnet, column, value):
    with pytest.raises(UserError, match=rf"classes\.{column} = '{value}': is no meaning of 'crane'"):
        fill_from_wordnet(ClassTable([{"label": "0", "key": "c", "name": "crane", column: value}]))


def test_the_folder_of_nltk_is_found(tiny_folder, monkeypatch, tmp_path):
    monkeypatch.delenv("WNHOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("raysd.prompts.wordnet.PLACES", [place for place in PLACES if place.startswith("~")])
    (tmp_path / "nltk_data" / "corpora").mkdir(parents=True)
    (tmp_path / "nltk_data" / "corpora" / "wordnet").symlink_to(tiny_folder)
    find_wordnet.cache_clear()
    assert find_wordnet().senses("crane")
    find_wordnet.cache_clear()


def test_another_version_and_no_wordnet_are_said_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "data.noun").write_text("  1 WordNet 3.1 Copyright\n")
    (tmp_path / "index.noun").write_text("")
    with pytest.raises(UserError, match=r"is not WordNet 3\.0"):
        WordNet(tmp_path)
    monkeypatch.setattr("raysd.prompts.wordnet.PLACES", ())
    monkeypatch.delenv("WNHOME", raising=False)
    find_wordnet.cache_clear()
    with pytest.raises(UserError, match=r"package wordnet-base, or unpack nltk's .*, or set WNHOME"):
        find_wordnet()
    find_wordnet.cache_clear()
