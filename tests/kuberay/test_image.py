import importlib.metadata
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD_IMAGE, IMAGE = "build", ""


def read_stages():
    """Each stage's instructions, in order, by its name; the last one has none."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    stages = {}
    current = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            current = stages[rest.partition(" AS ")[2]] = []
        current.append((word, rest))
    return stages


STAGES = read_stages()


def all_of(word, stage=IMAGE):
    return [rest for each, rest in STAGES[stage] if each == word]


def sent():
    """The files that an image is built from: all but what .dockerignore names."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    return {Path(path).as_posix() for path in exclude_paths(str(ROOT), patterns)}


def test_the_image_is_built_in_two_stages():
    assert list(STAGES) == [BUILD_IMAGE, IMAGE]
    assert {word for stage in STAGES.values() for word, _ in stage} <= {
        "FROM",
        "ARG",
        "ENV",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "ENTRYPOINT",
        "CMD",
    }


def test_what_is_copied_is_in_the_repository_and_is_sent():
    files = sent()
    copied = [
        word
        for stage in STAGES
        for rest in all_of("COPY", stage)
        if not rest.startswith("--from=")
        for word in rest.split()[:-1]
    ]
    assert set(copied) >= {"pyproject.toml", "raysd", "jobs", "configs"}
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in files, source
    for asset in (ROOT / "raysd" / "assets").rglob("*.*"):
        assert asset.relative_to(ROOT).as_posix() in files, "the wheel needs the embedded generator"


def test_nothing_but_what_a_job_needs_is_sent():
    tops = {path.split("/")[0] for path in sent()} - {"Dockerfile", ".dockerignore"}  # docker always sends these two
    assert tops == {"pyproject.toml", "setup.py", "README.md", "LICENSE", "raysd", "jobs", "configs"}
    assert not any("__pycache__" in path for path in sent())
    assert sum((ROOT / path).stat().st_size for path in sent()) < 16 * 2**20


def test_what_is_taken_from_the_first_stage_is_made_there():
    made = " ".join(rest for word, rest in STAGES[BUILD_IMAGE] if word in ("RUN", "WORKDIR"))
    for rest in all_of("COPY"):
        if rest.startswith("--from="):
            stage, source, _ = rest.split()
            assert stage == f"--from={BUILD_IMAGE}"
            assert Path(source).name in made, source


def test_pip_installs_ray_with_the_extras_that_raysd_asks_for():
    (version,) = [rest.removeprefix("RAY_VERSION=") for rest in all_of("ARG") if rest.startswith("RAY_VERSION=")]
    pinned = [
        word.replace("${RAY_VERSION}", version)
        for rest in all_of("RUN")
        for word in shlex.split(rest)
        if word.startswith("ray[")
    ]
    (ray,) = (Requirement(word) for word in pinned)
    (asked,) = (Requirement(word) for word in PROJECT["dependencies"] if word.startswith("ray["))
    assert ray.extras == asked.extras
    assert asked.specifier.contains(version)
    assert ray.extras <= set(importlib.metadata.metadata("ray").get_all("Provides-Extra"))


def test_the_ray_version_of_the_image_is_the_tested_one():
    (version,) = [rest.removeprefix("RAY_VERSION=") for rest in all_of("ARG") if rest.startswith("RAY_VERSION=")]
    installed = importlib.metadata.version("ray")
    if Version(installed) > Version(version):
        pytest.skip(f"Ray {installed} is installed here; the image has {version}")
    assert installed == version


def test_the_requirements_are_those_of_the_project_its_models_and_object_stores_with_torch_from_its_own_index(capsys):
    (command,) = (rest for rest in all_of("RUN", BUILD_IMAGE) if "requirements.txt" in rest)
    interpreter, option, code, _, target = shlex.split(command)
    assert (interpreter, option, target) == ("python", "-c", "requirements.txt")
    exec(code.replace("pyproject.toml", str(ROOT / "pyproject.toml")))
    lines = capsys.readouterr().out.split("\n")[:-1]
    assert lines == [
        *PROJECT["dependencies"],
        *(line for extra in ("models", "s3", "gcs", "azure") for line in PROJECT["optional-dependencies"][extra]),
    ]
    assert {"peft", "sentencepiece"} <= {Requirement(line).name for line in lines}
    (torch,) = (rest for rest in all_of("RUN") if "--index-url" in rest)
    pattern = shlex.split(torch)[2]
    assert [Requirement(line).name for line in lines if re.search(pattern, line)] == ["torch", "torchvision"]
    assert any(re.fullmatch(r"TORCH_INDEX=https://download\.pytorch\.org/whl/cu\d+", rest) for rest in all_of("ARG"))


def test_the_image_does_not_run_as_root():
    words = [word for word, _ in STAGES[IMAGE]]
    (user,) = all_of("USER")
    assert int(user) > 0
    assert f"--uid {user} " in " ".join(all_of("RUN"))
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])


def test_the_entry_point_is_a_command_of_raysd():
    (entry_point,) = all_of("ENTRYPOINT")
    assert re.fullmatch(r'\["(\w+)"\]', entry_point).group(1) in PROJECT["scripts"]


def test_scripts_lie_where_the_manifests_look_for_them_and_the_package_does_not():
    targets = {tuple(rest.split()) for rest in all_of("COPY") if not rest.startswith("--from=")}
    assert targets == {("jobs", "/opt/raysd/jobs"), ("configs", "/opt/raysd/configs")}


def test_base_images_are_pinned_to_a_python_that_raysd_supports():
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(f"{python}.0")
    for stage in STAGES:
        assert all_of("FROM", stage)[0].split()[0] == "python:${PYTHON}-slim-bookworm"
