"""What `ray job submit --working-dir .` sends, by Ray's own code."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private import ray_constants
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).parents[2]
LARGEST = 2**20


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory):
    """Names and sizes in the package that Ray makes of a checkout with an experiment of the user's own in it."""
    checkout = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("needs a git checkout")
    for name in filter(None, listed.stdout.split("\n")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    for name in (
        "my.yaml",
        "classes/mine.csv",
        ".git/HEAD",
        "runs/clones/a/data/train-000000.parquet",
        ".venv/bin/python",
    ):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("x")
    target = tmp_path_factory.mktemp("package") / "package.zip"
    create_package(
        str(checkout), target, include_gitignore=True, excludes=ray_constants.get_runtime_env_default_excludes()
    )
    with zipfile.ZipFile(target) as package:
        return {each.filename: each.file_size for each in package.infolist()}


def test_the_upload_is_small(uploaded):
    assert sum(uploaded.values()) < LARGEST


def test_scripts_experiments_and_the_users_own_files_are_sent(uploaded):
    assert set(uploaded) >= {"my.yaml", "classes/mine.csv"}
    assert {path.name for path in (ROOT / "jobs").glob("*.py")} == {
        Path(name).name for name in uploaded if name.startswith("jobs/")
    }
    assert {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")} <= set(uploaded)


def test_the_package_is_not_sent_since_it_would_hide_the_installed_one(uploaded):
    assert not {name for name in uploaded if name.split("/")[0] == "raysd" or name == "raysd.py"}


def test_results_environments_and_history_are_not_sent(uploaded):
    assert not {
        name for name in uploaded if name.split("/")[0] in ("runs", ".venv", ".git", "tests", "docs", "benchmarks")
    }
