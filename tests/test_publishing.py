"""What a package index, a repository on the web and those who cite the project get to see."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import raysd
from raysd.commands import DEMO
from raysd.config import load_experiment
from raysd.data.catalog import OFFLINE_SETS, check_offline_set
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.explain.setting import REPOSITORY

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GITHUB = sorted(path for path in (ROOT / ".github").rglob("*") if path.is_file())
PUBLIC = [ROOT / name for name in ("CHANGELOG.md", "CITATION.cff", "CODE_OF_CONDUCT.md", "SECURITY.md")]


def build(hook, folder, out):
    """Call a hook of the build backend in a folder, without a network; returns the path of what it made."""
    code = f"import sys, setuptools.build_meta as backend; print(backend.{hook}(sys.argv[1]))"
    finished = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return out / finished.stdout.strip().splitlines()[-1]


def test_the_package_index_shows_a_readme_whose_links_lead_to_the_repository(tmp_path):
    source = tmp_path / "source"
    (source / "raysd").mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "raysd/__init__.py"):
        shutil.copy(ROOT / name, source / name)
    folder = build("prepare_metadata_for_build_wheel", source, tmp_path)
    metadata = email.message_from_string((folder / "METADATA").read_text())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Author"] == "raysd developers" and metadata.get_all("Classifier") and metadata["Keywords"]
    links = re.findall(r"\]\(([^)\s]+)\)", str(metadata.get_payload()))
    own = [link for link in links if link.startswith(f"{REPOSITORY}/")]
    assert len(own) > 20 and not [link for link in links if "://" not in link]
    for link in own:
        kind, _, path = link.removeprefix(f"{REPOSITORY}/").partition("/main/")
        assert kind in ("blob", "raw") and (ROOT / path.partition("#")[0]).exists(), link
        assert (kind == "raw") == path.endswith(".png"), link


def test_one_address_and_one_version_stand_everywhere():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {PROJECT["urls"]["Repository"], site["repo_url"], citation["repository-code"]} == {REPOSITORY}
    assert {PROJECT["version"], citation["version"]} == {raysd.__version__}
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE) == ["Unreleased", raysd.__version__]
    for path in [*PUBLIC, *GITHUB]:
        others = re.findall(r"https://github\.com/[\w.-]+/[\w.-]+", path.read_text())
        assert set(others) <= {REPOSITORY}, path


def test_the_paper_is_cited_as_a_reference():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    assert (citation["type"], paper["year"], paper["title"][:20]) == ("software", 2023, "Fake it till you mak")


def test_workflows_run_the_tests_and_publish_without_a_stored_password():
    workflows = {path.stem: yaml.safe_load(path.read_text()) for path in GITHUB if path.parent.name == "workflows"}
    assert set(workflows) == {"tests", "release", "image"}
    for workflow in workflows.values():
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] and job["permissions"] is not None
            assert all("@" in step["uses"] for step in job["steps"] if "uses" in step)
    tests = [step.get("run", "") for job in workflows["tests"]["jobs"].values() for step in job["steps"]]
    assert any(".ci/run" in run for run in tests)
    publish = workflows["release"]["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()


def test_nothing_that_is_published_names_a_machine():
    for path in [*PUBLIC, *GITHUB, ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "MANIFEST.in"]:
        assert not re.search(r"/(work|home|root|tmp)/|localhost|\b\d+\.\d+\.\d+\.\d+\b", path.read_text()), path


def test_extras_hold_what_remedies_name():
    extras = PROJECT["optional-dependencies"]
    assert {"lora", "models", "mnist", "mlflow", "wandb", "s3", "gcs", "azure"} <= set(extras)
    core = " ".join(PROJECT["dependencies"])
    assert not [name for name in ("mlxtend", "peft", "wandb", "mlflow") if name in core]
    text = "".join(path.read_text() for path in (ROOT / "raysd").rglob("*.py"))
    assert set(re.findall(r"raysd\[(\w+)\]", text)) <= set(extras)


def test_the_demo_needs_no_extra(monkeypatch, tmp_path):
    for name in ("mlxtend", "peft", "sentencepiece", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    demo = load_experiment(DEMO, [f"storage={tmp_path}"])
    named = [demo.evaluation.validation_set, demo.evaluation.test_set, *demo.evaluation.transfer_sets]
    sets = [each.name for each in named]
    assert {name for name in sets if name not in OFFLINE_SETS} == set()
    for name in sets:
        check_offline_set("evaluation", name)
    with pytest.raises(UserError, match=r"pip install 'raysd\[mnist\]'"):
        real_dataset("mnist_5k", "test", demo.root)


@pytest.mark.soak
def test_the_source_distribution_has_all_tests_and_the_wheel_the_package_alone(tmp_path):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a checkout with git")
    source, files = tmp_path / "source", [line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    with tarfile.open(build("build_sdist", source, tmp_path)) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert not {name for name in files if not name.startswith(".ci/")} - packed
    with zipfile.ZipFile(build("build_wheel", source, tmp_path)) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {name for name in files if name.startswith("raysd/")}
    assert packed <= package
    assert {name for name in package - packed if not name.endswith(".md")} == set()
