"""The project's own files: code style, types, the README's commands, the benchmark files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ["statistics", "storage", "prompts", "clone", "training", "evaluation", "sweep", "report"]
RESULT_KEYS = {"metric", "value", "unit", "better", "baseline", "runs", "command", "date", "versions", "machine"}


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], pytest.param(["mypy"], marks=pytest.mark.soak)],
    ids=" ".join,
)
def test_the_code_is_clean(command):
    finished = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_above_it(package):
    below = PACKAGES[PACKAGES.index(package) + 1 :]
    allowed = {("report", "training")}
    for path in (ROOT / "raysd" / package).rglob("*.py"):
        for found in re.findall(r"(?:from|import) raysd\.(\w+)", path.read_text()):
            assert found not in below or (package, found) in allowed, f"{path} imports raysd.{found}"


def test_the_readme_names_files_and_verbs_that_exist():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (ROOT / link).exists(), link
    commands = subprocess.run(
        [sys.executable, "-m", "raysd.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for verb in re.findall(r"^raysd (\w+)", text, flags=re.MULTILINE):
        assert f" {verb} " in commands, verb


def test_benchmark_files_have_their_form():
    paths = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert paths
    for row in (row for path in paths for row in json.loads(path.read_text())):
        assert set(row) >= RESULT_KEYS, row["metric"]
        assert row["better"] in ("higher", "lower")


@pytest.mark.parametrize(
    "verb",
    [
        "plan",
        "doctor",
        "benchmark",
        "generate",
        "grow",
        "verify",
        "score",
        "export",
        "train",
        "evaluate",
        "compare",
        "analyse",
        "sweep",
        "report",
        "demo",
    ],
)
def test_each_verb_has_a_job_script(verb):
    finished = subprocess.run([sys.executable, f"jobs/{verb}.py", "foo=1"], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 2
    assert "foo = 1: unknown key" in finished.stderr
