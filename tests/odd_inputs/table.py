"""Odd inputs that people bring, and what must come of each: a table, one module for each kind of input.

A row is a name, what is done, and what must come of it:

    refused("a class twice", classes("cat", "dog", "cat"), "classes.key = 'cat'", "twice")
    accepted("one class", classes("cat"), names("cat"))

`refused` takes pieces of the one line that names the field, the value and the remedy; `accepted` a fact that holds of
the answer. What can be done is in `doing.py`. To add a row, write it into the `ROWS` of its module.
"""

from odd_inputs import (
    checkpoints,
    class_lists,
    command_lines,
    environments,
    experiment_files,
    image_folders,
    measuring,
    numbers,
    parquet_sets,
    prompt_tables,
    storages,
)

KINDS = [
    experiment_files,
    command_lines,
    class_lists,
    prompt_tables,
    image_folders,
    parquet_sets,
    storages,
    checkpoints,
    numbers,
    measuring,
    environments,
]
TABLE = {module.__name__.rpartition(".")[2]: module.ROWS for module in KINDS}
"""The rows of each kind of input."""
