"""What may be done with an odd input. Each function returns one that does it in an empty folder."""

import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import run_main
from PIL import Image

from raysd.commands import checks, plan
from raysd.commands.clones import growth_target
from raysd.config import load_experiment
from raysd.data.images import class_names, decode_all, read_labels
from raysd.data.real_datasets import real_dataset
from raysd.prompts.resolve import resolve_variant
from raysd.prompts.table import load_class_table
from raysd.resolve import clone_spec_of
from raysd.storage.location import Location

HERE = "{here}"
"""Stands for the folder in texts."""


def put(folder, files):
    """Write files by name: bytes, texts, or a function that makes the file at a path."""
    for name, content in files.items():
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + (name if isinstance(name, bytes) else name.encode())))
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        elif content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def here(value, folder):
    """Fill in the folder in all texts of a value."""
    if isinstance(value, str):
        return value.replace(HERE, str(folder))
    if isinstance(value, dict):
        return {key: here(each, folder) for key, each in value.items()}
    return [here(each, folder) for each in value] if isinstance(value, list) else value


def experiment(text, *overrides, files=None):
    """Read an experiment file with this text or bytes."""

    def do(folder):
        put(folder, {"x.yaml": text, **(files or {})})
        return load_experiment(folder / "x.yaml", [here(each, folder) for each in overrides])

    return do


def overrides(*words):
    """Read the defaults with these overrides."""
    return lambda folder: load_experiment(None, [here(word, folder) for word in words])


def classes(*names):
    """Read a list of class names."""
    return lambda folder: load_class_table(list(names))


def class_file(name, content):
    """Read a class table from a file."""
    return lambda folder: load_class_table(str(put(folder, {name: content}) / name))


def captions(name, content, of=("cat", "dog"), **table):
    """Read a table of captions for these classes; returns the prompts of each, all that there are."""

    def do(folder):
        put(folder, {name: content})
        settings = {"table": str(folder / name), "column": "caption", **table}
        values = {"classes": list(of), "variants": {"x": {"templates": ["{c}"], "fields": {"c": settings}}}}
        read = load_experiment(values)
        variant = resolve_variant("x", read.all_variants, read.table)
        return {row["key"]: {variant.prompt(row, seed) for seed in range(50)} for row in read.table.rows}

    return do


def linted(**variant):
    """Lint the prompts of a variant, and refuse what is suspect."""

    def do(folder):
        values = {"storage": str(folder), "lint": "error", "lint_ignore": ["unknown-words", "identical"]}
        read = load_experiment({**values, "generation": {"variant": "x"}, "variants": {"x": variant}})
        checks.check_prompts(read, [clone_spec_of(read)])

    return do


def planned(files=None, **values):
    """Plan a clone."""
    return lambda folder: plan({"storage": str(folder / "runs"), **here(values, put(folder, files or {}))})


def checked(name, files=None, **values):
    """Check an experiment before anything is generated, as `train`, `sweep` and others do."""

    def do(folder):
        read = load_experiment({"storage": str(folder / "runs"), **here(values, put(folder, files or {}))})
        return getattr(checks, name)(read)

    return do


def grown(more, keys, **values):
    """Return the total that each class grows to."""
    return lambda folder: growth_target(load_experiment({"storage": str(folder / "runs"), **values}), more, keys)


def command(*words, files=None):
    """Run a command in the folder."""
    return lambda folder: run_main(put(folder, files or {}), *here(list(words), folder))


def with_environment(do, **changes):
    """Do the same with variables of the environment set, or unset where None."""

    def changed(folder):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in changes.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, here(value, folder))
            return do(folder)

    return changed


def within(do):
    """Do the same from the folder as the working folder."""

    def changed(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return do(folder)

    return changed


def real(files, name="set", split="test", table=("cat", "dog"), **options):
    """Bring in a real data set made of these files; returns its labels, its images as arrays, and its classes."""

    def do(folder):
        (folder / "set").mkdir()
        put(folder / "set", files)
        root = Location(str(folder / "runs"))
        known = None if table is None else load_class_table(list(table))
        images = real_dataset(here(f"{HERE}/{name}", folder), split, root, table=known, **here(options, folder))
        pixels = decode_all(images, 16) if options.get("images_per_class", 1) else []
        labels = images.to_labels(read_labels(images)).tolist()
        return SimpleNamespace(labels=labels, pixels=pixels, names=class_names(images))

    return do


def named(name, table=("cat", "dog")):
    """Bring in a real data set by a name."""
    return within(
        lambda folder: real_dataset(name, "test", Location(f"{folder}/runs"), table=load_class_table([*table]))
    )


def image(value=50, size=(8, 8), mode="RGB", form="PNG", **options):
    """Return an encoded image of one color."""
    buffer, bands = io.BytesIO(), len(Image.new(mode, (1, 1)).getbands())
    color = value if bands == 1 or isinstance(value, tuple) else (value,) * bands
    Image.new(mode, size, color).save(buffer, form, **options)
    return buffer.getvalue()


def both(**options):
    """Return a good image each of cat and dog."""
    return {"cat/1.png": image(40, **options), "dog/1.png": image(200, **options)}


def parquet(*columns, **named):
    """Return the bytes of a Parquet file with columns by name, or given as (name, values) pairs."""
    pairs = [*columns, *named.items()]
    arrays = [each if isinstance(each, pa.Array) else pa.array(each) for _, each in pairs]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, names=[name for name, _ in pairs]), buffer)
    return buffer.getvalue()


def image_parquet(labels, **options):
    """Return the bytes of a Parquet file with good images and these labels."""
    count = len(labels)
    return parquet(image=[image(20 + number % 200) for number in range(count)], label=labels, **options)


def link(target):
    """Return a function that makes a link to a target."""
    return lambda path: path.symlink_to(target)


def noise(size, form="PNG", **options):
    """Return an encoded image of noise."""
    buffer = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, form, **options)
    return buffer.getvalue()
