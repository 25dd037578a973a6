"""What a command prints to be run next works when it is pasted, also with names that a shell would take apart."""

import json
import re
import subprocess
import sys

import pytest

from raysd.cli import _load, _read_words
from raysd.config import CommandLine

CLASSES = ["tench, Tinca tinca", "St. Bernard", "a/b {c}", "it's", 'a "bag"', "$HOME", "#1", "café", "x=y: z"]
PRINT = "raysd() { " + sys.executable + " -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"; }\n"


def pasted(line):
    """The words of a command as a shell takes them apart."""
    finished = subprocess.run(["bash", "-c", PRINT + line], capture_output=True, text=True, check=True)
    return [json.loads(words) for words in finished.stdout.splitlines()]


def next_commands(output):
    return [words for line in re.findall(r"^next: (.*)$", output, re.MULTILINE) for words in pasted(line)]


def experiment_of(words):
    return _load(_read_words([word for word in words[1:] if not word.startswith("--")]))


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """A folder whose name looks like a pattern, an override and a comment, with an experiment of odd names."""
    folder = tmp_path_factory.mktemp("x") / "lr=0.1 [1] #2 'a'"
    folder.mkdir()
    settings = {"model": "dummy", "images_per_class": 2, "image_size": 8, "num_actors": 1, "num_inference_steps": 1}
    experiment = {"classes": CLASSES, "storage": str(folder / "runs [1]"), "generation": settings}
    (folder / "my experiment.yaml").write_text(json.dumps(experiment))
    return folder


@pytest.mark.slow
def test_each_printed_command_names_the_same_experiment(odd_folder, run_here):
    path = str(odd_folder / "my experiment.yaml")
    first = run_here("generate", path, "lint=off")
    assert first.returncode == 0, first.stderr
    (train,) = next_commands(first.stdout)
    assert train[:1] == ["train"] and experiment_of(train) == experiment_of(["generate", path, "lint=off"])
    (line,) = re.findall(r"^open it with (.*)$", first.stdout, re.MULTILINE)
    import datasets

    assert len(eval(line, {"datasets": datasets})["train"]) == 2 * len(CLASSES)

    grown = run_here("grow", path, "lint=off", "--to", "3", "--classes", '"tench, Tinca tinca",St. Bernard, a/b {c}')
    assert grown.returncode == 0, grown.stderr
    (train,) = next_commands(grown.stdout)
    assert experiment_of(train).generation.class_counts == dict.fromkeys(CLASSES[:3], 3)
    again = run_here(*["generate", *train[1:]])
    assert again.returncode == 0 and f"{2 * len(CLASSES) + 3} images, 0 generated now" in again.stdout


@pytest.mark.parametrize(
    "word", ["a b", "it's", "$HOME", "#1", "a=b c", 'x="y"', "generation.negative_prompt=a #b, 'c'"]
)
def test_a_command_line_comes_through_a_shell(word):
    line = CommandLine("a [1].yaml", (word,))
    assert pasted(line.command("train", "--to", "3")) == [["train", "a [1].yaml", word, "--to", "3"]]


def test_a_file_in_a_folder_with_an_equals_sign_is_the_experiment(odd_folder, monkeypatch):
    path = str(odd_folder / "my experiment.yaml")
    assert _read_words([path, "lint=off"]) == CommandLine(path, ("lint=off",))
    monkeypatch.chdir(odd_folder.parent)
    assert _read_words([f"{odd_folder.name}/my experiment.yaml"]).overrides == ()
