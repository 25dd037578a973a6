"""`raysd init`: an experiment file for one's classes, and the experiments that ship with raysd."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from raysd.commands.start import init, shipped_experiments
from raysd.config import load_experiment
from raysd.errors import UserError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_as_words_become_an_experiment_that_keeps_its_comments(run_here, folder):
    names = ["crane bird", "no: yes #1", "été", "${x}"]
    finished = run_here("init", *names, "--out", "my exp.yaml")
    assert finished.returncode == 0 and finished.stdout.endswith("next: raysd plan 'my exp.yaml'\n")
    experiment = load_experiment("my exp.yaml")
    assert (experiment.table.names, experiment.name) == (names, "my_exp")
    shipped = load_experiment(ROOT / "configs" / "own_classes.yaml")
    assert experiment.model_copy(update={"name": shipped.name, "classes": shipped.classes}) == shipped
    comments = [line for line in Path("my exp.yaml").read_text().splitlines() if "#" in line]
    assert len(comments) > 12 and comments[0].startswith("# 4 classes with Stable Diffusion")


def test_a_file_or_a_built_in_table_is_named_and_real_images_are_measured_on(folder):
    (folder / "classes.txt").write_text("red fox\ngray wolf\n")
    (folder / "photos").mkdir()
    init(["classes.txt"], "a.yaml", real="photos")
    init(["imagenet100"], "b.yaml")
    a, b = load_experiment("a.yaml"), load_experiment("b.yaml")
    assert (a.classes, a.table.names, a.evaluation.test_set.name) == ("classes.txt", ["red fox", "gray wolf"], "photos")
    assert (b.classes, len(b.table)) == ("imagenet100", 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "classes = '': name your classes, as raysd init"),
        ({"classes": ["none.csv"]}, "classes = 'none.csv': no such built-in table or file"),
        ({"classes": ["fox", "fox"]}, "stands twice"),
        ({"classes": ["fox"], "real": "none"}, "real = 'none': no such folder"),
        ({"shipped": "none"}, "from = 'none': no such experiment; use one of adapt_8_gpus, fashion_mnist"),
        ({"classes": ["fox"], "shipped": "fashion_mnist"}, "is a whole experiment"),
        ({"classes": ["fox"], "out": "no/x.yaml"}, "out = 'no/x.yaml': cannot be written"),
    ],
)
def test_what_cannot_be_begun_is_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        init(**arguments)
    assert not list(Path().glob("*.yaml"))


def test_a_file_that_is_there_is_never_overwritten(folder):
    (folder / "experiment.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"out = 'experiment.yaml': is there"):
        init(["fox", "wolf"])
    assert (folder / "experiment.yaml").read_text() == "mine"


def test_each_shipped_experiment_is_listed_and_copied_as_it_is(run_here):
    listed = run_here("init", "--list").stdout
    files = {path.stem: path for path in (ROOT / "configs").glob("*.yaml")}
    assert set(shipped_experiments()) == set(files)
    for name, file in files.items():
        assert f"{name} " in listed
        assert shipped_experiments()[name].endswith("."), f"the first line of {file} is no whole sentence"
        assert Path(init(shipped=name).path).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_the_wheel_holds_the_experiments_as_they_are_in_the_repository(tmp_path):
    code = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    source = tmp_path / "source"
    source.mkdir()
    for name in (
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "raysd",
        "configs",
    ):  # so that nothing is built in the repository
        (source / name).symlink_to(ROOT / name)
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        for file in (ROOT / "configs").glob("*.yaml"):
            assert opened.read(f"raysd/assets/experiments/{file.name}") == file.read_bytes()
