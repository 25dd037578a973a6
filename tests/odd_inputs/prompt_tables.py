"""Tables of captions, and prompt variants."""

import gzip
import io
import zipfile

import pyarrow as pa
from odd_inputs.doing import captions, linted, parquet, planned
from odd_inputs.row import accepted, refused

FIELD = "variants.x.fields.c"
BOTH = {"key": ["cat", "dog"]}
CATS = {"cat": {"a cat"}, "dog": {"a dog"}}


def csv(*rows, head="key,caption"):
    return "\n".join([head, *rows]) + "\n"


def are(wanted):
    return lambda prompts: prompts == wanted


def zipped(text):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("c.csv", text)
    return buffer.getvalue()


def variant(**values):
    """Plan a clone of cats with this variant."""
    return planned(classes=["cat", "dog"], variants={"x": values}, generation={"variant": "x"}, lint="off")


GOOD = csv("cat,a cat", "dog,a dog")
WEIGHTED = {"weight": "weight"}

ROWS = [
    accepted("a plain table", captions("c.csv", GOOD), are(CATS)),
    accepted(
        "columns that nobody asked for",
        captions("c.csv", csv("cat,a cat,7", "dog,a dog,8", head="key,caption,x")),
        are(CATS),
    ),
    refused("no such column", captions("c.csv", csv("cat,a", head="key,text")), "'caption'", "no such column", "text"),
    refused("a column in capitals", captions("c.csv", csv("cat,a", head="key,Caption")), "'caption'", "Caption"),
    refused("no column with keys", captions("c.csv", csv("a cat", head="caption")), "'key'", "no such column"),
    refused("a header alone", captions("c.csv", csv()), FIELD, "empty"),
    refused("a class without a caption", captions("c.csv", csv("cat,a cat")), FIELD, "'dog'"),
    refused("a cell without a caption", captions("c.csv", csv("cat,a cat", "dog,")), FIELD, "row 2"),
    accepted("a row without a key", captions("c.csv", csv("cat,a cat", "dog,a dog", ",a bird")), are(CATS)),
    refused(
        "nothing for a key in Parquet, and a class None",
        captions("c.parquet", parquet(key=["cat", None], caption=["a cat", "a bird"]), of=("cat", "None")),
        FIELD,
        "no text",
        "'None'",
    ),
    accepted(
        "commas within quotes",
        captions("c.csv", csv('cat,"a cat, black"', "dog,a dog")),
        are(CATS | {"cat": {"a cat, black"}}),
    ),
    refused("commas without quotes", captions("c.csv", csv("cat,a cat, black", "dog,a dog")), "row 1", "more cells"),
    accepted("a caption over two lines", captions("c.csv", csv('cat,"a\ncat"', "dog,a dog")), are(CATS)),
    accepted("semicolons", captions("c.csv", GOOD.replace(",", ";")), are(CATS)),
    accepted("tabs", captions("c.tsv", GOOD.replace(",", "\t")), are(CATS)),
    accepted(
        "braces in captions", captions("c.csv", csv("cat,a {cat}", "dog,a dog")), are(CATS | {"cat": {"a {cat}"}})
    ),
    accepted(
        "lines that lack a key of others",
        captions(
            "c.jsonl",
            '{"key": "cat", "caption": "a cat", "weight": 1}\n{"key": "dog", "caption": "a dog", "weight": 2}\n',
            **WEIGHTED,
        ),
        are(CATS),
    ),
    refused(
        "a line of JSON without its weight",
        captions(
            "c.jsonl",
            '{"key": "cat", "caption": "a cat", "weight": 1}\n{"key": "dog", "caption": "a dog"}\n',
            **WEIGHTED,
        ),
        FIELD,
        "row 2",
        "weight",
    ),
    refused(
        "a line of JSON without its key",
        captions("c.jsonl", '{"key": "cat", "caption": "a cat"}\n{"caption": "a dog"}\n'),
        FIELD,
        "no text",
        "'dog'",
    ),
    refused(
        "a line of JSON without its caption",
        captions("c.jsonl", '{"key": "cat", "caption": "a cat"}\n{"key": "dog"}\n'),
        FIELD,
        "row 2",
        "caption",
    ),
    refused("a line that is no JSON object", captions("c.jsonl", '"a cat"\n"a dog"\n'), FIELD, "no such column"),
    refused("a line that is cut off", captions("c.jsonl", '{"key": "cat", "caption": "a'), FIELD, "line 1"),
    accepted(
        "several captions for an image",
        captions("c.parquet", parquet(**BOTH, caption=[["a cat", "one cat"], ["a dog"]])),
        are(CATS | {"cat": {"a cat", "one cat"}}),
    ),
    refused("an empty list of captions", captions("c.parquet", parquet(**BOTH, caption=[["a cat"], []])), "row 2"),
    refused(
        "captions that are structs",
        captions("c.parquet", parquet(**BOTH, caption=[{"raw": "a cat"}, {"raw": "a dog"}])),
        FIELD,
        "row 1",
        "text",
    ),
    accepted("captions as bytes", captions("c.parquet", parquet(**BOTH, caption=[b"a cat", b"a dog"])), are(CATS)),
    refused(
        "captions that are not a number",
        captions("c.parquet", parquet(**BOTH, caption=[1.5, float("nan")])),
        FIELD,
        "caption",
    ),
    refused(
        "vectors for captions",
        captions("c.parquet", parquet(**BOTH, caption=[[0.1, 0.2], [0.3, 0.4]])),
        FIELD,
        "row 1",
        "text",
    ),
    accepted(
        "captions as a dictionary of Arrow",
        captions("c.parquet", parquet(**BOTH, caption=pa.array(["a cat", "a dog"]).dictionary_encode())),
        are(CATS),
    ),
    accepted(
        "keys as categories",
        captions("c.parquet", parquet(key=pa.array(["cat", "dog"]).dictionary_encode(), caption=["a cat", "a dog"])),
        are(CATS),
    ),
    refused("labels for keys", captions("c.parquet", parquet(key=[0, 1], caption=["a cat", "a dog"])), FIELD, "'cat'"),
    refused("a column twice", captions("c.csv", csv("cat,a,b", head="key,caption,caption")), "two columns 'caption'"),
    refused(
        "a column twice in Parquet",
        captions("c.parquet", parquet(("key", ["cat"]), ("caption", ["a"]), ("caption", ["b"]))),
        "c.parquet",
        "caption",
    ),
    refused(
        "weights that add up to 0",
        captions("c.csv", csv("cat,a,0", "dog,b,0", head="key,caption,weight"), **WEIGHTED),
        FIELD,
        "'cat'",
    ),
    refused(
        "weights for all classes that add up to 0",
        captions("c.csv", csv("a,0", "b,0", head="caption,weight"), key=None, **WEIGHTED),
        FIELD,
        "weights are 0",
    ),
    refused(
        "a negative weight",
        captions("c.csv", csv("cat,a,-1", "dog,b,1", head="key,caption,weight"), **WEIGHTED),
        FIELD,
        "'-1'",
        "row 1",
    ),
    refused(
        "a weight that is not a number",
        captions("c.csv", csv("cat,a,nan", "dog,b,1", head="key,caption,weight"), **WEIGHTED),
        FIELD,
        "'nan'",
    ),
    refused(
        "a weight without end",
        captions("c.csv", csv("cat,a,inf", "dog,b,1", head="key,caption,weight"), **WEIGHTED),
        FIELD,
        "'inf'",
    ),
    refused(
        "a weight in words",
        captions("c.csv", csv("cat,a,high", "dog,b,1", head="key,caption,weight"), **WEIGHTED),
        FIELD,
        "'high'",
    ),
    refused(
        "a weight that is missing",
        captions("c.csv", csv("cat,a,", "dog,b,1", head="key,caption,weight"), **WEIGHTED),
        FIELD,
        "row 1",
    ),
    accepted(
        "weights beside which others vanish",
        captions(
            "c.csv", csv("cat,a cat,1e90", "cat,one cat,1e-90", "dog,a dog,1", head="key,caption,weight"), **WEIGHTED
        ),
        are(CATS),
    ),
    refused(
        "weights whose sum no float holds",
        captions(
            "c.csv", csv("cat,a cat,1e308", "cat,one cat,1e308", "dog,a dog,1", head="key,caption,weight"), **WEIGHTED
        ),
        FIELD,
        "weight",
    ),
    refused("a packed table", captions("c.csv.gz", gzip.compress(GOOD.encode())), "c.csv.gz", ".csv"),
    refused("a zipped table", captions("c.zip", zipped(GOOD)), "c.zip", ".csv"),
    refused("a workbook", captions("c.xlsx", zipped("")), "c.xlsx", ".csv"),
    refused("a table of pickles", captions("c.pkl", b"\x80\x04."), "c.pkl", ".csv"),
    refused("a folder for a table", captions("x", None), "no such file", ".csv"),
    refused("a home that is nobody's", captions("c.csv", GOOD, table="~nobody_of_this_name/c.csv"), FIELD, "~nobody"),
    refused("a table that is not there", captions("c.csv", GOOD, table="d.csv"), FIELD, "'d.csv'", "no such file"),
    refused("no template", variant(templates=[]), "variants.x.templates", "at least 1"),
    refused("a template without a letter", variant(templates=[""]), "variants.x.templates"),
    refused("a template that is a text", variant(templates="a photo of a {name}"), "variants.x.templates", "list"),
    refused("a variable that is none", variant(templates=["a {nmae}"]), "{nmae}", "name"),
    refused("numbers for variables, as Python formats", linted(templates=["a {0}"]), "a {0}", "braces"),
    refused("a variable without a name", linted(templates=["a {}"]), "a {}", "braces"),
    refused("a form of a variable", linted(templates=["a {name:>9}"]), "{name:>9}", "braces"),
    refused("two braces, as Jinja has them", linted(templates=["a {{name}}"]), "{{name}}", "braces"),
    accepted(
        "a template without a variable, but for classes alike",
        variant(templates=["a photo"]),
        lambda plan: plan.prompts[0] == "a photo",
    ),
    refused(
        "a weight too many",
        variant(templates=["{name}"], weights={"templates": [1, 2]}),
        "weights.templates",
        "1 weight",
    ),
    refused("a weight of nothing", variant(templates=["{name}"], weights={"templates": [0]}), "weights.templates"),
    refused("a mixture of itself", variant(mixture={"x": 1}), "variants.x.mixture", "itself"),
    refused("a mixture of variants that are none", variant(mixture={"nmae": 1}), "'nmae'", "unknown"),
    refused("an extension of itself", variant(extends="x"), "variants.x.extends", "itself"),
    refused(
        "a list of words that is none",
        variant(templates=["{p} {name}"], fields={"p": "places"}),
        "'places'",
        "no such list",
    ),
    accepted(
        "a field under the name of a column",
        variant(templates=["{name}"], fields={"name": ["x"]}),
        lambda plan: plan.prompts[0] == "x",
    ),
    accepted(
        "a field that no template uses, as an extension may have",
        variant(templates=["{name}"], fields={"place": ["x"]}),
        lambda plan: plan.prompts[0] == "cat",
    ),
]
