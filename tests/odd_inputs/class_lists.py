"""Class lists and class tables."""

import io

import numpy as np
from odd_inputs.doing import class_file, classes, parquet, planned
from odd_inputs.row import accepted, refused

NFC, NFD = "caf\u00e9", "cafe\u0301"


def names(*wanted):
    return lambda table: table.names == list(wanted)


def prompts(*wanted):
    return lambda plan: list(plan.prompts) == list(wanted)


def archive():
    buffer = io.BytesIO()
    np.savez(buffer, names=np.array(["cat"]))
    return buffer.getvalue()


ROWS = [
    refused("a class twice", classes("cat", "dog", "cat"), "classes.key = 'cat'", "twice"),
    refused("a class twice but for blanks", classes("cat", " cat "), "classes.key = 'cat'", "twice"),
    refused("a class twice in two forms of Unicode", classes(NFC, NFD), "classes.key", "twice"),
    refused(
        "a class twice but for a character of no width", classes("cat", "cat\u200b"), "classes.name", "ZERO WIDTH SPACE"
    ),
    accepted("a no-break space is a blank", classes("polar\u00a0bear"), names("polar bear")),
    accepted("classes that differ in case alone", classes("Turkey", "turkey"), names("Turkey", "turkey")),
    refused("a blank class", classes("cat", "  "), "classes.name", "row 2"),
    refused("a class of characters without width", classes("cat", "\u200b"), "classes", "row 2"),
    refused("a zero byte in a class", classes("ca\x00t"), "classes", "'ca\\x00t'"),
    refused("a code of a terminal in a class", classes("\x1b[31mred\x1b[0m"), "classes", "\\x1b"),
    accepted("no class but one", classes("cat"), names("cat")),
    accepted("20,000 classes", classes(*(f"class {i}" for i in range(20_000))), lambda table: len(table) == 20_000),
    accepted(
        "a plan of 1,000 classes",
        planned(classes=[f"class {i}" for i in range(1_000)], lint="off"),
        lambda plan: len(plan.clone.spec.table) == 1_000,
    ),
    accepted("an emoji of several characters", classes("👩‍🚀", "🐈"), names("👩‍🚀", "🐈")),
    accepted("writing from right to left", classes("חתול", "قطة"), names("חתול", "قطة")),
    accepted("slashes, dots and backslashes", classes("a/b", "..", "a\\b", "."), lambda table: len(table) == 4),
    accepted("names that devices have", classes("CON", "nul", "com1.txt"), names("CON", "nul", "com1.txt")),
    accepted("HTML", classes("<script>alert(1)</script>", "&amp;"), names("<script>alert(1)</script>", "&amp;")),
    accepted(
        "braces, which templates use",
        planned(classes=["{name}", "a}b{"], lint="off"),
        lambda plan: "{name}" in plan.prompts[0],
    ),
    accepted("a name of 5,000 letters", classes("x" * 5000), lambda table: len(table.names[0]) == 5000),
    accepted(
        "words that YAML knows",
        planned(classes=["null", "true", "on"], lint="off"),
        lambda plan: "null" in plan.prompts[0],
    ),
    accepted(
        "classes that look like options",
        planned(classes=["--to", "-1"], lint="off"),
        lambda plan: "--to" in plan.prompts[0],
    ),
    refused("a text file of blank lines", class_file("c.txt", "\n \n\n"), "c.txt", "empty"),
    accepted(
        "a text file with lines of Windows and a mark",
        class_file("c.txt", b"\xef\xbb\xbfcat\r\ndog\r\n"),
        names("cat", "dog"),
    ),
    refused("a text file with a class twice", class_file("c.txt", "cat\ndog\ncat\n"), "'cat'", "twice", "c.txt"),
    refused("a table with a header alone", class_file("c.csv", "name,key\n"), "c.csv", "empty"),
    refused("a table without a header", class_file("c.csv", "cat\ndog\n"), "c.csv", "no column name", "cat"),
    refused("a column twice", class_file("c.csv", "name,name\ncat,dog\n"), "c.csv", "two columns 'name'"),
    refused("rows longer than the header", class_file("c.csv", "name\ncat,kitten\n"), "row 1", "more cells"),
    accepted("rows shorter than the header", class_file("c.csv", "name,definition\ncat\n"), names("cat")),
    accepted(
        "labels with a decimal point, as pandas writes them",
        class_file("c.csv", "label,name\n1.0,dog\n0.0,cat\n"),
        names("cat", "dog"),
    ),
    accepted("labels with zeros in front", class_file("c.csv", "label,name\n01,dog\n00,cat\n"), names("cat", "dog")),
    refused("labels with a gap", class_file("c.csv", "label,name\n0,cat\n2,dog\n"), "classes.label", "0 to 1"),
    refused("labels for some rows alone", class_file("c.csv", "label,name\n0,cat\n,dog\n"), "classes.label"),
    refused("negative labels", class_file("c.csv", "label,name\n-1,cat\n0,dog\n"), "classes.label", "0 to 1"),
    accepted("an index of pandas without a name", class_file("c.csv", ",name\n0,cat\n1,dog\n"), names("cat", "dog")),
    accepted("names as bytes in Parquet", class_file("c.parquet", parquet(name=[b"cat", b"dog"])), names("cat", "dog")),
    refused(
        "names as numbers with nothing among them", class_file("c.parquet", parquet(name=[1.5, float("nan")])), "row 2"
    ),
    refused(
        "a column twice in Parquet",
        class_file("c.parquet", parquet(("name", ["a"]), ("name", ["b"]))),
        "c.parquet",
        "name",
    ),
    accepted(
        "labels as floats in Parquet",
        class_file("c.parquet", parquet(label=[1.0, 0.0], name=["dog", "cat"])),
        names("cat", "dog"),
    ),
    refused("names that are structs", class_file("c.parquet", parquet(name=[{"en": "cat"}])), "classes.name", "row 1"),
    refused("no Parquet inside", class_file("c.parquet", "name\ncat\n"), "c.parquet", "cannot be read"),
    refused("no rows in Parquet", class_file("c.parquet", parquet(name=np.array([], dtype=str))), "c.parquet", "empty"),
    refused("a workbook", class_file("c.xlsx", b"PK\x03\x04"), "c.xlsx", ".csv"),
    refused("a packed table", class_file("c.csv.gz", b"\x1f\x8b"), "c.csv.gz", ".csv"),
    refused("a JSON file", class_file("c.json", '["cat"]'), "c.json", ".jsonl"),
    refused("arrays of numpy", class_file("c.npz", archive()), "c.npz", ".csv"),
    refused("a workbook under a name of another", class_file("c.csv", b"PK\x03\x04\x14\x00\x06\x00\xff\xfe"), "c.csv"),
    refused("zero bytes in a table", class_file("c.csv", b"name\nca\x00t\n"), "c.csv"),
    refused("lines that are no JSON", class_file("c.jsonl", "cat\ndog\n"), "c.jsonl", "line 1"),
    refused(
        "JSON whose names are lists", class_file("c.jsonl", '{"name": ["cat", "kitten"]}\n'), "classes.name", "row 1"
    ),
    refused("JSON lines that are lists", class_file("c.jsonl", "[0, 1]\n"), "c.jsonl", "row"),
    refused(
        "the classes file of a detector", class_file("c.yaml", "names: {0: cat, 1: dog}\n"), "c.yaml", "list of names"
    ),
    refused("YAML that is empty", class_file("c.yaml", ""), "c.yaml", "list of names"),
    refused("a file that is empty", class_file("c.csv", ""), "c.csv", "empty"),
]
