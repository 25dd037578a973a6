"""Real images in Parquet files, Arrow and data sets as the hub has them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from odd_inputs.doing import image, image_parquet, named, parquet, real
from odd_inputs.row import accepted, refused

FILE = "set/s.parquet"


def one(data, **options):
    """Bring in one Parquet file."""
    return real({"s.parquet": data}, name=FILE, **options)


def labels(*wanted):
    return lambda found: found.labels == list(wanted)


def with_names(names, values=(0, 1)):
    """Return a file whose metadata name its classes, as `datasets` writes them."""
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
    table = pa.table({"image": [image() for _ in values], "label": list(values)})
    return _written(table.replace_schema_metadata({"huggingface": json.dumps(features)}))


def with_metadata(text):
    table = pa.table({"image": [image(), image()], "label": ["cat", "dog"]})
    return _written(table.replace_schema_metadata({"huggingface": text}))


def _written(table, **options):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def many_groups():
    table = pa.table({"image": [image(20 + i % 100) for i in range(300)], "label": ["cat", "dog"] * 150})
    return _written(table, row_group_size=1)


def arrow():
    buffer = io.BytesIO()
    feather.write_feather(pa.table({"image": [image()], "label": ["cat"]}), buffer)
    return buffer.getvalue()


def structs(**changes):
    rows = [{"bytes": image(40), "path": "1.png"}, {"bytes": image(200), "path": None}]
    return parquet(image=[rows[0] | changes, rows[1]], label=["cat", "dog"])


GOOD = image_parquet(["cat", "dog"])
TWO = [image(), image()]

ROWS = [
    accepted("bytes and names", one(GOOD), labels(0, 1)),
    accepted("structs of bytes and path", one(structs()), labels(0, 1)),
    refused("a struct with the path alone", one(structs(bytes=None)), "s.parquet", "row 0", "path"),
    refused("a struct without anything", one(structs(bytes=None, path=None)), "s.parquet", "row 0", "no image"),
    refused(
        "paths for images", one(parquet(image=["1.png", "2.png"], label=["cat", "dog"])), "s.parquet", "row 0", "str"
    ),
    refused(
        "numbers of pixels for images",
        one(parquet(image=[[1, 2, 3], [4, 5, 6]], label=["cat", "dog"])),
        "row 0",
        "encoded",
    ),
    refused(
        "arrays of numpy, pickled",
        one(parquet(image=[b"\x80\x04K\x01.", image()], label=["cat", "dog"])),
        "row 0",
        "no format",
    ),
    refused(
        "images as text of base 64",
        one(parquet(image=["iVBORw0KGgo=", "iVBORw0KGgo="], label=["cat", "dog"])),
        "row 0",
        "encoded",
    ),
    refused("several images a row", one(parquet(image=[TWO, TWO], label=["cat", "dog"])), "row 0", "list"),
    refused("a row without an image", one(parquet(image=[image(), None], label=["cat", "dog"])), "row 1", "no image"),
    refused("a row without a label", one(image_parquet(["cat", None])), "row 1", "None", "label it"),
    refused("a label that is not a number", one(image_parquet([0.0, float("nan")])), "row 1", "label it"),
    refused("a label between two classes", one(image_parquet([0.0, 0.5])), "row 1", "0.5"),
    accepted("labels as floats", one(image_parquet([0.0, 1.0])), labels(0, 1)),
    refused("labels of a test that nobody knows", one(image_parquet([-1, -1])), "row 0", "-1"),
    refused("labels from 1", one(image_parquet([1, 2])), "s.parquet", "2"),
    refused("labels with a gap, more than the table has", one(image_parquet([0, 5])), "s.parquet", "5"),
    refused("truth values for labels", one(image_parquet([True, False])), "bool", "whole numbers"),
    refused("lists for labels", one(image_parquet([[0], [1]])), "list", "whole numbers"),
    refused("bytes for labels that are no class", one(image_parquet([b"cow", b"dog"])), "cow"),
    accepted("bytes for labels", one(image_parquet([b"cat", b"dog"])), labels(0, 1)),
    accepted(
        "labels as a dictionary of Arrow",
        one(image_parquet(pa.array(["dog", "cat"]).dictionary_encode())),
        lambda found: found.pixels.images[0].max() == 21,
    ),
    accepted("labels of 8 bits without sign", one(image_parquet(pa.array([0, 1], pa.uint8()))), labels(0, 1)),
    accepted(
        "numbers as text for a table of such keys", one(image_parquet(["0", "1"]), table=("0", "1")), labels(0, 1)
    ),
    accepted("names of classes in the metadata", one(with_names(["dog", "cat"])), labels(1, 0)),
    refused("a label beyond the names in the metadata", one(with_names(["cat", "dog"], (0, 2))), "row 1", "0 to 1"),
    refused("a name twice in the metadata", one(with_names(["cat", "cat"])), "'cat'"),
    refused("names in the metadata that are numbers of JSON", one(with_names([0, 1])), "0"),
    accepted("metadata that are no JSON", one(with_metadata("{")), labels(0, 1)),
    accepted("metadata that are a list", one(with_metadata("[]")), labels(0, 1)),
    accepted("metadata of an unknown form", one(with_metadata('{"info": {"features": null}}')), labels(0, 1)),
    accepted("a row group for each image", one(many_groups()), lambda found: found.labels == [0, 1] * 150),
    refused("no rows", one(parquet(image=pa.array([], pa.binary()), label=pa.array([], pa.string()))), "no images"),
    refused("no columns that are wanted", one(parquet(img=TWO, fine_label=[0, 1])), "image=img", "label=fine_label"),
    accepted(
        "columns by option",
        real({"s.parquet": parquet(img=TWO, fine_label=["cat", "dog"])}, name=f"{FILE}?image=img&label=fine_label"),
        labels(0, 1),
    ),
    refused("a file of no byte", one(b""), "s.parquet", "Parquet"),
    refused("a file cut off", one(GOOD[:-20]), "s.parquet", "Parquet"),
    refused("a file with a damaged page", one(GOOD[:20] + b"\xff" * 40 + GOOD[60:]), "s.parquet"),
    refused("a file of Feather", real({"s.arrow": arrow()}, name="set/s.arrow"), "s.arrow", "Parquet"),
    refused("a table of text", real({"s.csv": "image,label\n1.png,cat\n"}, name="set/s.csv"), "s.csv", "Parquet"),
    refused("arrays of numpy", real({"s.npz": b"PK\x03\x04"}, name="set/s.npz"), "s.npz", "Parquet"),
    accepted(
        "a folder of parts",
        real({"a.parquet": image_parquet(["cat"]), "b.parquet": image_parquet(["dog"])}),
        labels(0, 1),
    ),
    refused("a part that is damaged", real({"a.parquet": GOOD, "b.parquet": GOOD[:-20]}), "set", "opened"),
    refused("a part of no byte", real({"a.parquet": GOOD, "b.parquet": b""}), "set", "opened"),
    refused(
        "parts of different columns",
        real({"a.parquet": GOOD, "b.parquet": parquet(img=TWO, cls=[0, 1])}),
        "set",
        "opened",
    ),
    refused(
        "parts with labels of different types", real({"a.parquet": GOOD, "b.parquet": image_parquet([0, 1])}), "set"
    ),
    accepted(
        "parts in folders named by label",
        real({"label=cat/a.parquet": parquet(image=[image()]), "label=dog/a.parquet": parquet(image=[image()])}),
        labels(0, 1),
    ),
    refused(
        "folders by label, one of nothing",
        real(
            {
                "label=cat/a.parquet": parquet(image=[image()]),
                "label=__HIVE_DEFAULT_PARTITION__/a.parquet": parquet(image=[image()]),
            }
        ),
        "None",
        "label it",
    ),
    refused(
        "folders by label, one with another type",
        real({"label=cat/a.parquet": parquet(image=[image()]), "label=dog/a.parquet": parquet(image=["x"])}),
        "set",
    ),
    refused(
        "folders by label, one damaged",
        real({"label=cat/a.parquet": parquet(image=[image()]), "label=dog/a.parquet": b"PAR1"}),
        "set",
        "Parquet",
    ),
    refused("images that are numbers", one(parquet(image=np.array([1, 2]), label=["cat", "dog"])), "row 0", "int"),
    refused("a name of the hub without an owner", named("hf://datasets/cifar10"), "hf://datasets/<owner>/<name>"),
    refused(
        "a page of the hub", named("https://huggingface.co/datasets/uoft-cs/cifar10"), "hf://datasets/uoft-cs/cifar10"
    ),
    refused("a name of the hub without its scheme", named("uoft-cs/cifar10"), "hf://datasets/uoft-cs/cifar10"),
]
