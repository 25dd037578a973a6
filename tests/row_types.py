"""Checks that made-up rows are what the code reads and writes."""

from pydantic import TypeAdapter


def checked(row, row_type):
    """The row, with every key and value that its type wants."""
    TypeAdapter(row_type).validate_python(row, strict=True)
    return row
