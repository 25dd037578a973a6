"""The project's own files: code style, types, the README's commands, the benchmark files."""

import ast
import importlib
import json
import re
import runpy
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "raysd").rglob("*.py"))
}
# Each may import those before it, and itself.
ORDER = [
    "errors",
    "versions",
    "formats",
    "progress",
    "renamed",
    "settings",
    "yaml_text",
    "callable_package",
    "device",
    "statistics",
    "storage",
    "prompts",
    "diffusion",
    "cluster",
    "classifier",
    "clone",
    "generation",
    "captions",
    "data",
    "curation",
    "training",
    "evaluation",
    "config",
    "explain",
    "resolve",
    "adaptive",
    "sweep",
    "report",
    "tracking",
    "sharing",
    "terminal",
    "commands",
    "command_help",
    "cli",
    "__main__",
]
LEAVES = {module for module in MODULES if module.endswith(".settings")}
LEAVES |= {"raysd.training.recipe"}  # what an experiment file may hold: any module may import these
CALLED = {"raysd.callable_package": {"raysd.commands"}}  # only once someone calls a package
PARTS = {
    "botocore": "boto3",
    "pydantic_core": "pydantic",
    "httpx2": "huggingface-hub",
    "azure": "azure-storage-blob",
}  # packages that come with another one
RESULT_KEYS = {"metric", "value", "unit", "better", "baseline", "runs", "command", "date", "versions", "machine"}


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], pytest.param(["mypy"], marks=pytest.mark.soak)],
    ids=" ".join,
)
def test_the_code_is_clean(command):
    finished = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def room_of(module):
    """The package or root module of raysd that holds a module: `storage` of `raysd.storage.lock`."""
    return module.split(".")[1] if "." in module else "raysd"


def imported(node):
    """The modules of raysd that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == "raysd"]
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "raysd":
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in MODULES else node.module for name in inner]
    return []


def nodes_run_at_import(tree):
    """All but those inside functions and those for the type checker alone."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting.extend(ast.iter_child_nodes(node))


@cache
def imports_of(module, only_at_import=False):
    tree = ast.parse(MODULES[module].read_text())
    nodes = nodes_run_at_import(tree) if only_at_import else ast.walk(tree)
    return {found for node in nodes for found in imported(node)}


def test_each_package_has_its_place_in_the_order_and_in_the_docs():
    rooms = {room_of(module) for module in MODULES} - {"raysd"}
    assert rooms == set(ORDER), "give it a place in ORDER, and a row in docs/layout.md"
    rows = re.findall(r"^\| `raysd/(\w+)(?:\.py)?` \|", (ROOT / "docs" / "layout.md").read_text(), re.MULTILINE)
    assert rows == ORDER


@pytest.mark.parametrize("room", ORDER)
def test_a_package_imports_only_those_before_it(room):
    allowed = {"raysd", *ORDER[: ORDER.index(room) + 1]}
    for module in (module for module in MODULES if room_of(module) == room):
        wrong = {name for name in imports_of(module) if room_of(name) not in allowed} - LEAVES
        wrong -= CALLED.get(module, set())
        assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", sorted(LEAVES))
def test_settings_that_anyone_may_import_import_nothing_but_settings(module):
    assert imports_of(module) <= LEAVES | {"raysd.errors", "raysd.renamed"}


def test_no_two_modules_import_each_other():
    TopologicalSorter({module: imports_of(module, only_at_import=True) for module in MODULES}).prepare()


def test_no_module_imports_by_a_relative_name():
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], module


def test_no_folder_holds_more_than_16_modules():
    folders = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert not {str(folder) for folder, count in folders.items() if count > 16}


def test_test_modules_have_names_of_their_own_and_do_not_import_each_other():
    """pytest imports them without packages, so two of one name would be one."""
    paths = list((ROOT / "tests").rglob("*.py"))
    assert len({path.name for path in paths}) == len(paths)
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("test_")], path


def test_the_readme_names_files_and_commands_that_exist():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (ROOT / link).exists(), link
    commands = subprocess.run(
        [sys.executable, "-m", "raysd.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for verb in re.findall(r"^raysd (\w+)", text, flags=re.MULTILINE):
        assert f" {verb} " in commands, verb


def distributions(requirements):
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}


def test_what_the_code_imports_is_declared():
    """At import the core packages alone; inside functions also those of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = distributions(project["dependencies"])
    extras = core.union(*map(distributions, project["optional-dependencies"].values()))
    providers = packages_distributions()
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        at_import = set(nodes_run_at_import(tree))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"raysd"}:
                found = {one.lower().replace("_", "-") for one in providers.get(name, [name])}
                found |= {PARTS[name]} if name in PARTS else set()
                assert found & (core if node in at_import else extras), f"{module} imports {name}"


def test_benchmarks_import_what_there_is():
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raysd"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    assert hasattr(module, alias.name) or name in MODULES, f"{path.name} imports {name}"


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
        "caption",
        "generate",
        "grow",
        "verify",
        "score",
        "export",
        "push",
        "train",
        "evaluate",
        "compare",
        "analyse",
        "analyze",
        "sweep",
        "report",
        "demo",
    ],
)
def test_each_command_has_a_job_script(verb, monkeypatch):
    called = []
    monkeypatch.setattr("raysd.cli.run_job", called.append)
    runpy.run_path(str(ROOT / "jobs" / f"{verb}.py"), run_name="__main__")
    assert called == [verb]


def test_a_job_script_is_the_command():
    finished = subprocess.run([sys.executable, "jobs/train.py", "foo=1"], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 2
    assert "foo = 1: unknown key" in finished.stderr


def test_what_each_process_imports_first_loads_no_torch():
    """Torch takes seconds; drivers, actors and workers load it only where they compute."""
    modules = [
        "commands",
        "resolve",
        "cluster.preflight",
        "curation.scoring",
        "generation.actor",
        "generation.generate",
    ]
    modules += ["training.train", "training.worker"]
    script = f"import sys, {', '.join(f'raysd.{module}' for module in modules)}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "diffusers", "transformers", "ray"} & set(loaded.stdout.split())
