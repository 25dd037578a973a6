"""The tutorial's notebook is its page, and its cells run in their order, with the embedded generator in the place of
Stable Diffusion."""

import ast
import json
from pathlib import Path

import pytest

import raysd
from raysd.config import load_experiment

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
SMALL = {
    "generation": {"model": "embedded", "images_per_class": 6, "num_inference_steps": 2},
    "training": {
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
        "image_size": 32,
        "batch_size": 6,
        "num_epochs": 1,
        "logger": "none",
    },
    "evaluation": {"generated_images_per_class": 4},
}


def code_cells():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cell(code, names):
    """As IPython does: returns the value of the last line if it is an expression."""
    *lines, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        lines, last = [*lines, last], None
    exec(compile(ast.Module(lines, []), "<cell>", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


def test_the_notebook_is_what_its_tool_makes_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    from make_notebook import PAGE, notebook

    text = notebook(PAGE.read_text(encoding="utf-8"))
    assert NOTEBOOK.read_text(encoding="utf-8").strip() == text, "run python tools/make_notebook.py"
    assert "](../" not in text and "](speed" not in text, "links of a notebook lead to the site"


def test_the_settings_of_the_tutorial_are_accepted_as_they_are():
    names = {}
    run_cell(code_cells()[0], names)
    experiment = load_experiment(names["settings"])
    assert (len(experiment.table), experiment.generation.images_per_class) == (3, 50)


@pytest.mark.soak
def test_all_cells_of_the_notebook_run_with_the_embedded_generator(tmp_path, monkeypatch, capsys, ray_cluster):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    first, *rest = code_cells()
    names = {}
    run_cell(first, names)
    for section, changes in SMALL.items():
        names["settings"][section] |= changes
    shown = [value for code in rest if (value := run_cell(code, names)) is not None]
    assert names["plan"].num_images == names["clone"].num_images == len(names["images"]) == 18
    assert isinstance(names["clone"], raysd.commands.answers.clone.GeneratedClone)
    (table,) = shown
    assert list(table["role"]) == ["generated"] and 0 <= table["value"][0] <= 100
    assert "18 images in runs/clones/" in capsys.readouterr().out.replace(f"{tmp_path}/", "")
    assert sum(map(float, names["scores"])) == pytest.approx(1)
