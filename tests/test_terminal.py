"""The options that all commands have, answers as JSON, and the shell's completion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raysd
from raysd.cli import main
from raysd.errors import UserError
from raysd.progress import Progress, say
from raysd.terminal import complete_word

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script(tmp_path):
    """A folder with the installed command, as a name on the path."""
    (tmp_path / "bin").mkdir()
    file = tmp_path / "bin" / "raysd"
    file.write_text(f"#!{sys.executable}\nfrom raysd.cli import main\nmain()\n")
    file.chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_the_module_and_the_script_say_the_version(script):
    for command in ([sys.executable, "-m", "raysd"], ["raysd"]):
        found = subprocess.run([*command, "--version"], env={**os.environ, **script}, capture_output=True, text=True)
        assert (found.returncode, found.stdout) == (0, f"raysd {raysd.__version__}\n")


def test_an_answer_as_json_is_one_document_and_all_else_goes_to_the_error_stream(run_here, monkeypatch):
    from raysd.commands import clones

    original = clones.plan

    def plan(*arguments, **options):
        say("a notice")
        print("printed by a library")
        return original(*arguments, **options)

    monkeypatch.setattr("raysd.commands.plan", plan)
    seeds = ["generation.seeds=[0,1]", "training.seeds=[0,1]"]
    finished = run_here("plan", "--json", "generation.images_per_class=300", *seeds)
    document = json.loads(finished.stdout)
    assert [clone["num_images"] for clone in document["clones"]] == [3000, 3000]
    assert document["guidance_scale"] == 2.0 and document["classes"][0] == "T-shirt"
    assert finished.stderr.splitlines() == ["a notice", "printed by a library"]
    assert "a notice" in run_here("plan").stdout


def test_an_error_as_json_names_its_parts_and_keeps_the_exit_code(run_here):
    finished = run_here("plan", "--json", "generation.variant=none")
    error = json.loads(finished.stdout)
    assert finished.returncode == error["exit_code"] == 2
    assert (error["error"]["field"], error["error"]["value"]) == ("generation.variant", "none")
    assert finished.stderr == f"error: {error['error']['message']}\n"


def test_bad_options_are_an_error_as_json_too(run_here):
    finished = run_here("evaluate", "--json", "--foo")
    assert (finished.returncode, json.loads(finished.stdout)["exit_code"]) == (2, 2)
    assert "--foo" in json.loads(finished.stdout)["error"]["message"]


def test_a_failure_that_nobody_foresaw_is_an_error_as_json_and_keeps_its_traceback(monkeypatch, capsys):
    monkeypatch.setattr("raysd.commands.plan", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("sys.argv", ["raysd", "plan", "--json"])
    with pytest.raises(ZeroDivisionError):
        main()
    assert json.loads(capsys.readouterr().out) == {"error": {"message": "division by zero"}, "exit_code": 1}


def test_an_interrupted_command_says_how_to_go_on(run_here, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("raysd.commands.plan", interrupted)
    for words in (["plan"], ["plan", "--json"]):
        finished = run_here(*words)
        assert finished.returncode == 130
        assert finished.stderr == "interrupted; the same command continues\n"
    assert json.loads(finished.stdout)["exit_code"] == 130


def test_failed_checks_and_missing_parts_keep_their_exit_codes(run_here, monkeypatch):
    from raysd.commands.answers.rows import ResultRows

    monkeypatch.setattr("raysd.commands.doctor", lambda *_, **__: [UserError("storage", "x", "mend it")])
    monkeypatch.setattr("raysd.commands.evaluate", lambda *_, **__: ResultRows((), "x", failed=("a set",)))
    doctor, evaluate = run_here("doctor", "--json"), run_here("evaluate", "--json")
    assert (doctor.returncode, evaluate.returncode) == (1, 3)
    assert json.loads(doctor.stdout) == {
        "is_well": False,
        "failures": [{"field": "storage", "value": "x", "remedy": "mend it"}],
    }
    assert json.loads(evaluate.stdout)["failed"] == ["a set"]


def test_quiet_leaves_the_answer_and_verbose_shows_what_ray_says(run_here, monkeypatch):
    seen = []

    def generate(*_, **__):
        say("a notice")
        with Progress("generated", 1) as progress:
            progress.advance(1)
        seen.append(os.environ.get("RAYSD_VERBOSE"))
        raise UserError("storage", "x", "mend it")

    monkeypatch.delenv("RAYSD_VERBOSE", raising=False)
    monkeypatch.setattr("raysd.commands.generate", generate)
    plain, quiet, verbose = run_here("generate"), run_here("generate", "-q"), run_here("generate", "-v")
    assert "a notice" in plain.stdout and "generated: 1/1" in plain.stdout and "a notice" in verbose.stdout
    assert quiet.stdout == "" and quiet.stderr == "error: storage = 'x': mend it\n"
    assert seen == [None, None, "1"] and "RAYSD_VERBOSE" not in os.environ


def test_words_are_completed_to_files_folders_and_keys(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert complete_word("configs/own") == ["configs/own_classes.yaml"]
    assert complete_word("conf") == ["configs/"]
    assert complete_word("generation.guidance_sca") == ["generation.guidance_scale="]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_completes_commands(script, shell):
    environment = {**os.environ, **script}
    found = subprocess.run(
        ["raysd"], env={**environment, "_RAYSD_COMPLETE": f"source_{shell}"}, capture_output=True, text=True, check=True
    )
    assert "_RAYSD_COMPLETE=complete_" + shell in found.stdout
    asked = {"_RAYSD_COMPLETE": f"complete_{shell}", "COMP_WORDS": "raysd eval", "COMP_CWORD": "1"}
    asked |= {"_TYPER_COMPLETE_ARGS": "raysd eval", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    answer = subprocess.run(["raysd"], env={**environment, **asked}, capture_output=True, text=True)
    assert "evaluate" in answer.stdout
