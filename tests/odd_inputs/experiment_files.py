"""Experiment files: what YAML, editors and spreadsheets make of them."""

from odd_inputs.doing import experiment, planned
from odd_inputs.row import accepted, refused

from raysd.config import load_experiment

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MANY_COUNTS = "classes:\n" + "".join(f"- class {i}\n" for i in range(2_000))
MANY_COUNTS += "generation:\n  class_counts:\n" + "".join(f"    class {i}: {i % 7}\n" for i in range(2_000))

ROWS = [
    refused("an empty file", experiment(""), "configuration", "x.yaml", "must hold keys and values"),
    refused("comments alone", experiment("# name: x\n"), "x.yaml", "must hold keys and values"),
    refused("a list at the top", experiment("- name: x\n"), "x.yaml", "must hold keys and values"),
    refused("a text at the top", experiment("fashion_mnist\n"), "x.yaml", "must hold keys and values"),
    refused("two documents", experiment("name: a\n---\nname: b\n"), "x.yaml", "line 2", "another document"),
    accepted("one document with its marks", experiment("%YAML 1.2\n---\nname: a\n...\n"), lambda x: x.name == "a"),
    refused("tabs for blanks", experiment("generation:\n\tseed: 3\n"), "x.yaml", "line 2", "'\\t'"),
    accepted("a byte order mark", experiment(b"\xef\xbb\xbfname: a\n"), lambda x: x.name == "a"),
    accepted(
        "lines of Windows", experiment(b"name: a\r\ngeneration:\r\n  seed: 3\r\n"), lambda x: x.generation.seed == 3
    ),
    accepted("lines of old Macs", experiment(b"name: a\rlint: off\r"), lambda x: (x.name, x.lint) == ("a", "off")),
    accepted(
        "UTF-16, as Notepad writes it",
        experiment("classes: [Größe, cat]\n".encode("utf-16")),
        lambda x: x.classes == ["Größe", "cat"],
    ),
    refused("Latin-1", experiment("classes: [Größe]\n".encode("latin-1")), "x.yaml", "UTF-8"),
    refused("a zero byte", experiment(b"name: a\x00b\n"), "x.yaml", "no valid YAML"),
    accepted(
        "a section without values",
        experiment("generation:\ntraining:\n  # num_epochs: 3\nname: a\n"),
        lambda x: x.generation.seed == 0 and x.training.num_epochs == 20,
    ),
    accepted(
        "mappings and lists without values",
        experiment("variants:\nlint_ignore:\nclasses: [a, b]\n"),
        lambda x: x.variants == {} and x.lint_ignore == [],
    ),
    accepted(
        "anchors and merged keys",
        experiment("generation: {seeds: &s [1, 2]}\ntraining: {seeds: *s}\n"),
        lambda x: x.training.seeds == [1, 2],
    ),
    accepted(
        "a merge from an anchor, with one value of its own",
        experiment(
            "variants:\n  a: &a {templates: ['{name}'], negative_prompt: dark}\n  b: {<<: *a, negative_prompt: b}\n"
        ),
        lambda x: x.variants["b"].templates == ["{name}"] and x.variants["b"].negative_prompt == "b",
    ),
    refused("an alias without an anchor", experiment("name: *x\n"), "x.yaml", "line 1", "undefined alias"),
    refused("lists of lists of aliases, a billion texts", experiment(LAUGHS), "x.yaml", "values"),
    refused("a key twice in a section", experiment("generation: {seed: 1, seed: 2}\n"), "'seed' stands twice"),
    refused("a number of 5,000 digits", experiment(f"generation: {{seed: {'9' * 5000}}}\n"), "generation.seed"),
    refused("a number beyond all floats", experiment("generation: {guidance_scale: 1e999}\n"), "guidance_scale"),
    refused("a number with a decimal comma", experiment("generation: {guidance_scale: '7,5'}\n"), "'7,5'", "number"),
    refused("a number with a unit", experiment("generation: {image_size: 512px}\n"), "'512px'", "whole number"),
    refused("a number with thousands' commas", experiment("generation: {images_per_class: '1,000'}\n"), "'1,000'"),
    accepted(
        "a whole number with an exponent",
        experiment("generation: {images_per_class: 1e3}\n"),
        lambda x: x.generation.images_per_class == 1000,
    ),
    refused(
        "half an image", experiment("generation: {images_per_class: 1.5}\n"), "images_per_class", "1.5", "whole number"
    ),
    refused("true for a number", experiment("generation: {images_per_class: yes please}\n"), "'yes please'"),
    refused("a list for a number", experiment("generation: {guidance_scale: [1, 2]}\n"), "guidance_scale", "[1, 2]"),
    refused("a number for a list", experiment("training: {seeds: 3}\n"), "training.seeds = 3", "list"),
    refused("a text for a section", experiment("generation: sd15\n"), "generation = 'sd15'"),
    refused(
        "a list of mappings for a section", experiment("generation:\n- seed: 3\n"), "generation = [", "{key: value}"
    ),
    refused("a section a level too deep", experiment("raysd:\n  generation: {seed: 3}\n"), "raysd = ", "unknown key"),
    refused("a key of another section", experiment("generation: {num_epochs: 3}\n"), "generation.num_epochs = 3"),
    refused(
        "keys with dots, as on the command line", experiment("generation.seed: 3\n"), "generation.seed = 3", "sections"
    ),
    refused("a key in capitals", experiment("Generation: {seed: 3}\n"), "Generation = ", "unknown key"),
    refused("a key without a colon", experiment("name a\nlint: off\n"), "x.yaml", "line 2"),
    refused("a colon without a blank", experiment("name:a\n"), "x.yaml", "must hold keys and values"),
    refused("a brace that is never closed", experiment("generation: {seed: 3\n"), "x.yaml", "line 2"),
    refused("a template of Jinja", experiment("generation: {seed: {{ seed }}}\n"), "x.yaml", "YAML"),
    refused("a template of Jinja at the top", experiment("{% set x = 1 %}\nname: a\n"), "x.yaml", "line 1"),
    refused("a tag of Python", experiment("classes: !!python/tuple [a, b]\n"), "x.yaml", "not allowed"),
    refused(
        "another file included",
        experiment("generation: !include g.yaml\n", files={"g.yaml": "seed: 3\n"}),
        "x.yaml",
        "!include",
    ),
    refused("JSON with a comma at the end of a list", experiment('{"classes": ["a",, "b"]}'), "x.yaml", "line 1"),
    accepted("JSON", experiment('{"name": "a", "generation": {"seed": 3}}'), lambda x: x.generation.seed == 3),
    accepted(
        "a text over several lines",
        experiment("generation:\n  negative_prompt: >-\n    blurry,\n    dark\n"),
        lambda x: x.generation.negative_prompt == "blurry, dark",
    ),
    refused("a name in another script", experiment("name: ロケット\n"), "name = 'ロケット'", "[A-Za-z0-9]"),
    refused("a name with blanks", experiment("name: my run\n"), "name = 'my run'"),
    accepted(
        "a variable of the environment with a default",
        experiment("name: ${oc.env:NOT_SET_ANYWHERE,a}\n"),
        lambda x: x.name == "a",
    ),
    refused(
        "a variable that is not set", experiment("name: ${oc.env:NOT_SET_ANYWHERE}\n"), "name = ", "NOT_SET_ANYWHERE"
    ),
    refused("a key that refers to itself", experiment("name: ${name}\n"), "name = "),
    refused("a resolver that does not exist", experiment("name: ${env:HOME}\n"), "name = ", "env"),
    refused(
        "a variable as a shell writes it",
        experiment("storage: $HOME/runs\n"),
        "storage = '$HOME/runs'",
        "${oc.env:HOME}",
    ),
    refused(
        "a variable as Windows writes it",
        experiment("storage: '%USERPROFILE%/runs'\n"),
        "storage = ",
        "${oc.env:USERPROFILE}",
    ),
    accepted("a dollar sign within a name", experiment("storage: /tmp/a$b\n"), lambda x: x.storage == "/tmp/a$b"),
    accepted(
        "a count for each of 2,000 classes",
        experiment(MANY_COUNTS),
        lambda x: len(x.generation.class_counts) == 2_000,
    ),
    refused(
        "a count of a class that is none",
        planned(classes=["cat"], generation={"class_counts": {"Cat": 3}}),
        "generation.class_counts",
        "'Cat'",
        "cat",
    ),
    refused("a folder for a file", lambda folder: load_experiment(folder), "configuration", "is a folder"),
    refused(
        "classes by number, as other tools have them", experiment("classes: {0: cat, 1: dog}\n"), "classes = {", "list"
    ),
    refused("a class that is a list", experiment("classes: [[cat, kitten], dog]\n"), "classes.0", "give a text"),
    refused("a class that is empty", planned(classes=["cat", ""]), "classes.name", "row 2"),
    refused("a class that YAML takes for nothing", planned(classes=["cat", None]), "classes.1", "give a text"),
    refused("a path that only another system has", experiment("storage: 'C:\\runs'\n"), "storage = ", "C:"),
    refused(
        "a bucket with one slash", experiment("storage: s3:/bucket/runs\n"), "storage = 's3:/bucket/runs'", "s3://"
    ),
    refused(
        "the home of nobody", experiment("storage: ~nobody_of_this_name/runs\n"), "storage = ", "~nobody_of_this_name"
    ),
    refused("a zero byte in a path", experiment('storage: "a\\0b"\n'), "storage = "),
    refused("names of a storage that is empty", experiment("storage: ''\n"), "storage = ''"),
    accepted(
        "a value from another one", experiment("name: a\nstorage: /tmp/${name}\n"), lambda x: x.storage == "/tmp/a"
    ),
]
