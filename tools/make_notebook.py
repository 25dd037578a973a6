"""Write docs/tutorial.ipynb from docs/tutorial.md: `python tools/make_notebook.py`.

Each block of Python becomes a cell of code; what is between them, a cell of text.
"""

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")
SITE = "https://github.com/raysd/raysd/blob/main/docs/"
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SELF = "This page is also a notebook,\n[tutorial.ipynb](tutorial.ipynb): open it in Jupyter and run its cells in order."


def cells(page: str) -> list[tuple[str, str]]:
    """Return the kind and the text of each cell: `markdown` and `code` in turn."""
    parts = PYTHON.split(page)
    kinds = ("markdown" if number % 2 == 0 else "code" for number in range(len(parts)))
    return [(kind, part.strip()) for kind, part in zip(kinds, parts, strict=True) if part.strip()]


def notebook(page: str) -> str:
    """Return the notebook of a page, as JSON. Links of the page lead to the site from there."""
    page = page.replace(SELF, "Run the cells in order.")
    page = re.sub(r"\]\((?!https?:)([^)]+)\)", lambda link: f"]({SITE}{link[1]})".replace("docs/../", ""), page)
    return json.dumps(
        {
            "cells": [_cell(f"cell-{number}", *cell) for number, cell in enumerate(cells(page))],
            "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        },
        indent=1,
        ensure_ascii=False,
    )


def _cell(name: str, kind: str, text: str) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": name, "metadata": {}, "source": text.splitlines(keepends=True)}
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(PAGE.read_text(encoding="utf-8")) + "\n", encoding="utf-8")
