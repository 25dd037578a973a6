"""Each command in the documents is one that raysd accepts, each link leads somewhere, and each shipped experiment
adds up."""

import logging
import pydoc
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml

import raysd
from raysd.cli import app
from raysd.config import load_experiment, validate_experiment
from raysd.explain.setting import REPOSITORY
from raysd.sweep.placement import place

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("configs/**/*.md")])
OTHERS = {"pip", "pytest", "kubectl", "export", "python3", "docker", "jupyter"}  # not ours to check
HOLES = re.compile(r"<[\w .-]+>")
SECTION = re.compile(r"    [a-z_]+:( |$)")
RAYSD = re.compile(r"^(raysd|ray job submit|python jobs/|python benchmarks/) ?")


@cache
def blocks(document):
    """Language and lines of each block of code, also of those that are only indented."""
    found, language, lines, snippet, before = [], None, [], None, ""
    for line in document.read_text().splitlines():
        if line.startswith("```"):
            if language is None:
                language, lines = line.removeprefix("```") or "text", []
            else:
                found.append((language, lines))
                language = None
        elif language is not None:
            lines.append(line)
        elif RAYSD.match(line.strip()) and line.startswith("    "):
            found.append(("sh", [line.strip()]))
        elif SECTION.match(line) and not before.startswith("    "):
            snippet = [line[4:]]
            found.append(("yaml", snippet))
        elif snippet and line.startswith("    "):
            snippet.append(line[4:])
        snippet, before = (snippet if line.startswith("    ") else None), line
    return found


def commands(document):
    """The command lines of a document; those of the table in configs/README.md are words behind `raysd generate`."""
    joined = [
        "\n".join(lines).replace("\\\n", " ") for language, lines in blocks(document) if language in ("sh", "bash")
    ]
    found = [
        part.strip() for block in joined for line in block.splitlines() for part in line.split(" && ") if part.strip()
    ]
    return found + [
        f"raysd generate {words}"
        for words in re.findall(r"`(configs/\S+\.yaml[^`]*)`", document.read_text())
        if document.parent.name == "configs"
    ]


ALL = [(document, command) for document in DOCUMENTS for command in commands(document)]


def test_there_are_commands():
    assert len(ALL) > 40


@pytest.mark.parametrize(
    ("document", "command"), ALL, ids=[f"{document.name}: {command[:60]}" for document, command in ALL]
)
def test_each_command_is_accepted(document, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(HOLES.sub("x", command), comments=True)
    words[0] = words[0].removeprefix(".venv/bin/")
    if words[0] in OTHERS:
        return
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :]
    if words[0] == "python":
        assert (ROOT / words[1]).is_file(), words[1]
        if not words[1].startswith("jobs/"):
            return
        (verb,) = re.findall(r'run_job\("(\w+)"\)', (ROOT / words[1]).read_text())
        words = ["raysd", verb, *words[2:]]
    assert words[0] == "raysd", command
    verb = typer.main.get_command(app).commands[words[1]]
    parameters = verb.make_context(words[1], words[2:]).params
    given = parameters.get("words") or []
    files = [word for word in given if "=" not in word]
    for file in files:
        assert not file.startswith("configs/") or (ROOT / file).is_file(), file
    there = [file for file in files if (ROOT / file).is_file()]
    overrides = [word for word in given if "=" in word]
    experiment = load_experiment(there[0] if there else None, overrides)
    load_experiment(there[0] if there else None, [*overrides, *(parameters.get("other") or [])])
    if there and parameters.get("classes"):
        assert set(parameters["classes"].split(",")) <= set(experiment.table.keys)


PYTHON = [
    (document, "\n".join(lines))
    for document in DOCUMENTS
    for language, lines in blocks(document)
    if language == "python" and document.name != "tutorial.md"  # whose blocks need each other: test_tutorial.py
]
TINY = {
    "storage": "runs",
    "classes": [str(digit) for digit in range(10)],
    "lint": "off",
    "generation": {"model": "dummy", "images_per_class": 4},
    "training": {
        "backbone": "resnet18",
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
        "image_size": 16,
        "batch_size": 10,
        "num_steps": 2,
        "num_workers": 1,
        "logger": "none",
    },
    "evaluation": {"test_set": "digits"},
}


@pytest.fixture(scope="module")
def folder_with_results(tmp_path_factory, ray_cluster):
    """A folder with `my.yaml`, its clone, and a classifier whose weights are random."""
    from raysd.classifier.model import build_classifier, save_classifier
    from raysd.commands.checks import checked_run

    folder = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("my.yaml").write_text(yaml.safe_dump(TINY))
        fingerprints = {"clones": raysd.generate("my.yaml").fingerprint}
        run = checked_run(load_experiment("my.yaml"))
        fingerprints["classifiers"] = run.fingerprint(0)
        record = {**run.record(), "seed": 0, "fingerprint": run.fingerprint(0)}
        save_classifier(run.folder(0), build_classifier(run.architecture), run.architecture, record)
    return folder, fingerprints


def test_there_is_python():
    assert len(PYTHON) >= 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "code"), PYTHON, ids=[f"{document.name}: {code.split(chr(10))[-1][:60]}" for document, code in PYTHON]
)
def test_each_piece_of_python_runs(document, code, folder_with_results, monkeypatch, tmp_path):
    folder, fingerprints = folder_with_results
    for kind, fingerprint in fingerprints.items():
        code = code.replace(f"{kind}/<fingerprint>", f"{kind}/{fingerprint}")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    level = logging.getLogger("raysd").level
    exec(code, {})
    logging.getLogger("raysd").setLevel(level)


SNIPPETS = [
    (document, "\n".join(lines)) for document in DOCUMENTS for language, lines in blocks(document) if language == "yaml"
]


def test_there_are_snippets():
    assert len(SNIPPETS) >= 12


@pytest.mark.parametrize(
    ("document", "snippet"), SNIPPETS, ids=[f"{document.name}: {snippet[:60]}" for document, snippet in SNIPPETS]
)
def test_each_piece_of_an_experiment_file_is_accepted(document, snippet):
    validate_experiment(yaml.safe_load(snippet))


def anchors(document):
    """As GitHub makes them of the headings."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_each_link_leads_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_each_page_has_one_place_on_the_site_and_no_link_leaves_it(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    from site_links import on_page_markdown

    class Config:
        repo_url = REPOSITORY

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert [next(iter(part)) for part in site["nav"]] == ["Tutorial", "How to", "Reference", "Benchmarks"]
    pages = [page for part in site["nav"] for entries in part.values() for entry in entries for page in entry.values()]
    assert sorted(pages) == sorted(page.name for page in ROOT.glob("docs/*.md"))
    for page in pages:
        text = on_page_markdown((ROOT / "docs" / page).read_text(), Config())
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            assert not link.startswith("../"), f"{page}: {link}"
            if link.startswith(f"{REPOSITORY}/blob/main/"):
                assert (ROOT / link.removeprefix(f"{REPOSITORY}/blob/main/").partition("#")[0]).exists(), link


def test_the_api_page_has_each_function_of_the_package():
    paths = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert not [path for path in paths if pydoc.locate(path) is None]
    missing = set(raysd.__all__) - {path.rpartition(".")[2] for path in paths} - {"Experiment", "analyse"}
    assert not missing, "add them to docs/api.md"


@pytest.mark.soak
def test_the_pages_make_a_site_without_dead_links(tmp_path):
    pytest.importorskip("mkdocstrings", reason="needs the extra raysd[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    pages = {page: page.read_text() for page in tmp_path.rglob("*.html") if page.name != "404.html"}
    names = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    assert {page.stem for page in ROOT.glob("docs/*.md")} <= {page.parent.name for page in pages} | {"index"}
    assert {"generate", "load_experiment", "GeneratedClone"} <= set(
        re.findall(r'id="raysd[\w.]*\.(\w+)"', pages[tmp_path / "api" / "index.html"])
    )
    for page, text in pages.items():
        for link in re.findall(r'href="(?!https?:|mailto:|data:)([^"]*)"', text):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in names[target], f"{page}: {link}"


PAPER = [  # section, guidance scale, images per class, variant
    ("imagenet1k", ["generation.guidance_scale=7.5"], 7.5, 1300, "name_definition"),
    ("imagenet1k", [], 2, 1300, "name_definition"),
    ("imagenet1k", ["generation.guidance_scale=7.5", "generation.variant=background"], 7.5, 1300, "background"),
    ("imagenet100", [], 2, 1300, "name_definition"),
    ("imagenet100", ["generation.images_per_class=13000"], 2, 13000, "name_definition"),
    ("imagenet100", ["generation.images_per_class=65000"], 2, 65000, "name_definition"),
]


@pytest.mark.parametrize(("classes", "words", "scale", "count", "variant"), PAPER)
def test_the_papers_rows_have_its_numbers(classes, words, scale, count, variant):
    experiment = load_experiment(ROOT / f"configs/{classes}_paper.yaml", words)
    generation, training = experiment.generation, experiment.training
    assert (generation.guidance_scale, generation.images_per_class, generation.variant) == (scale, count, variant)
    assert (generation.sampler, training.backbone, training.recipe, training.num_epochs, training.batch_size) == (
        "paper",
        "resnet50",
        "paper",
        100,
        1024,
    )
    assert len(experiment.table.keys) == (1000 if classes == "imagenet1k" else 100)


@pytest.mark.parametrize(("gpus", "cpus", "training", "generating"), [(8, 64, 4, 4), (100, 800, 40, 60)])
def test_the_sweeps_use_every_gpu_that_they_are_named_for(gpus, cpus, training, generating):
    experiment = load_experiment(ROOT / f"configs/sweep_{gpus}_gpus.yaml")
    trials = experiment.sweep.max_concurrent_trials
    shares = place(cpus, gpus, experiment.generation, experiment.training, trials)
    assert experiment.cluster.gpus == gpus
    assert (trials * experiment.training.num_workers, shares.pool.num_actors) == (training, generating)
