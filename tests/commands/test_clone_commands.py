"""`grow` ends at its target, however often it is run and wherever it was killed."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from raysd import commands
from raysd.config import load_experiment
from raysd.errors import UserError
from raysd.generation import generate
from raysd.generation.actor import GenerationActor

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """Stands for a kill: nothing but the shards and the record is left."""


@pytest.fixture
def words(tmp_path):
    """Overrides of a clone with shards of 10."""
    return [
        f"storage={tmp_path}",
        "generation.model=dummy",
        "generation.images_per_class=4",
        "generation.images_per_shard=10",
    ]


@pytest.fixture
def experiment(words):
    """The same as an experiment."""
    return load_experiment(None, words)


@pytest.fixture(autouse=True)
def generating(monkeypatch):
    """Shards are generated in this process; `left` is how many before it is killed."""
    state = SimpleNamespace(left=None, num_generated=0)

    def generate_here(jobs, shards):
        actor = GenerationActor(jobs[0].spec, 32, 1)
        for number in shards[0].tolist():
            if state.left == 0:
                raise Killed
            state.left = None if state.left is None else state.left - 1
            row = actor.generate_shard(jobs[0], number)
            state.num_generated += row["generated"]
            yield {**row, "clone": 0}

    monkeypatch.setattr(generate, "generate_clones", partial(generate.generate_clones, generate=generate_here))
    return state


def images_of(tmp_path):
    """How many images each class has, and that none is there twice."""
    tables = [pq.read_table(path, columns=["key", "index"]) for path in tmp_path.glob("clones/*/data/*.parquet")]
    rows = [(row["key"], row["index"]) for table in tables for row in table.to_pylist()]
    assert len(rows) == len(set(rows))
    return {key: sum(each == key for each, _ in rows) for key, _ in rows}


def test_a_second_growth_to_the_same_target_generates_nothing(experiment, tmp_path, generating):
    commands.generate(experiment)
    commands.grow(experiment, to=6, classes=["dress", "bag"])
    assert generating.num_generated == 44
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    again = commands.grow(experiment, to=6, classes=["dress", "bag"])
    assert generating.num_generated == 44 and (again.num_images, again.num_generated) == (44, 0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == files


@pytest.mark.parametrize("num_shards", [0, 1, 2])
def test_a_growth_that_is_killed_and_retried_ends_at_its_target(experiment, tmp_path, generating, num_shards):
    commands.generate(experiment)
    generating.left = num_shards
    with pytest.raises(Killed):
        commands.grow(experiment, to=8)
    generating.left = None
    for _ in range(2):  # a job is also retried after its last write
        commands.grow(experiment, to=8)
    assert set(images_of(tmp_path).values()) == {8} and generating.num_generated == 80
    (record,) = tmp_path.glob("clones/*/clone.json")
    assert json.loads(record.read_text())["num_images"] == 80


def test_classes_that_have_more_or_are_not_named_keep_what_they_have(experiment, tmp_path):
    commands.generate(experiment)
    commands.grow(experiment, to=9, classes=["bag"])
    commands.grow(experiment, to=6, classes=["dress", "bag"])
    counts = images_of(tmp_path)
    assert counts.pop("bag") == 9 and counts.pop("dress") == 6 and set(counts.values()) == {4}


def test_more_images_are_counted_from_what_is_there(experiment):
    assert commands.growth_target(experiment, 3) == 7  # a clone that is not begun has what the experiment asks for
    commands.generate(experiment)
    commands.grow(experiment, to=6, classes=["bag"])
    assert commands.growth_target(experiment, 3, ["bag"]) == 9
    with pytest.raises(
        UserError, match=r"images = 3: the classes have from 4 to 6 images; give what each is to have in all, as --to 9"
    ):
        commands.growth_target(experiment, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "to = None: say what each class has in the end"),
        (["--to", "8", "--images", "4"], "to = 8: say what each class has in the end"),
        (["--to", "0"], "to = 0: give the images that each class is to have in all, at least 1"),
        (["--images", "4"], "images = 4: would be added again by a job that is retried"),
        (["--to", "8", "--classes", "hat"], "classes = 'hat': is no key of the class table"),
    ],
)
def test_a_command_that_would_not_end_at_one_target_is_refused(run_here, words, tmp_path, options, message):
    finished = run_here("grow", *words, *options)
    assert finished.returncode == 2 and message in finished.stderr and finished.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_person_at_a_terminal_may_ask_for_more_and_is_told_the_target(run_here, words, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert run_here("generate", *words).returncode == 0
    grown = run_here("grow", *words, "--images", "2", "--classes", "dress, bag")
    assert "44 images, 4 generated now" in grown.stdout, grown.stderr
    command = f"raysd grow {' '.join(words)} --to 6 --classes 'dress, bag'"
    assert f"the same, safe to run again: {command}" in grown.stdout.splitlines()
    assert "44 images, 0 generated now" in run_here("grow", *words, "--to", "6", "--classes", "dress, bag").stdout


def test_a_job_takes_the_target_alone_even_at_a_terminal(words):
    script = (
        "import runpy, sys; sys.stdin.isatty = lambda: True; sys.argv = ['grow.py', *sys.argv[1:]]; "
        "runpy.run_path('jobs/grow.py', run_name='__main__')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, *words, "--images", "4"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    assert finished.stderr == (
        "error: images = 4: would be added again by a job that is retried; say what each class has in the "
        "end, as --to 300\n"
    )
