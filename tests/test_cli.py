import os
import re
import subprocess
import sys
import time

import pytest


def test_help_is_quick():
    times = []
    for _ in range(3):
        began = time.process_time(), os.times().children_user + os.times().children_system
        subprocess.run([sys.executable, "-m", "raysd.cli", "--help"], check=True, capture_output=True)
        times.append(os.times().children_user + os.times().children_system - began[1])
    assert min(times) < 1


def test_help_imports_no_heavy_package():
    code = "\n".join(
        [
            "import sys, raysd.cli",
            "sys.argv = ['raysd', '--help']",
            "try: raysd.cli.main()",
            "except SystemExit: pass",
            "print([name for name in ('torch', 'ray', 'diffusers') if name in sys.modules])",
        ]
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip().endswith("[]")


@pytest.mark.parametrize("command", ["plan", "grow", "explain"])
def test_help_says_what_to_write_and_no_types_of_python(run_here, command):
    shown = run_here(command, "--help").stdout
    assert "Usage:" in shown
    assert not re.search(r"<(bool|str|int|list)\b", shown)
    assert "[KEY]" in shown if command == "explain" else shown.count("[CONFIG.yaml|KEY=VALUE]...") == 1
    assert ("NUMBER" in shown) == (command == "grow")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "classes=none.csv"], "classes = 'none.csv'"),
        (["plan", "generation.model=no_such_model"], "generation.model = 'no_such_model'"),
        (["plan", "generation.variant=none"], "generation.variant = 'none': unknown; use one of name"),
        (["generate", "classes=imagenet100", "lint=error"], "words that the model does not know in 99 classes"),
        (["plan", "variants.x.mixture={name: 1, none: 1}", "generation.variant=x"], "unknown; use one of name"),
        (["train", "training.sources=[{clone: {}, real: digits}]"], "name either a clone or a real data set"),
        (["train", "training.sources=[{clone: {guidance: 2}}]"], "training.sources.0.clone.guidance"),
        (["train", "training.logger=none", "training.validate_epochs=1"], "name evaluation.validation_set"),
        (["generate", "storage=/proc/none"], "storage = '/proc/none'"),
        (["score", "scoring.against=[none]"], "scoring.against.0 = 'none': no such set"),
        (["score", "scoring.model=none"], "scoring.model = 'none': no such folder"),
        (["train", "training.real=fashion_mnist", "training.filters.max_duplicate=0.9"], "only clones have scores"),
        (["train", "training.filters.max_duplicate=2"], "training.filters.max_duplicate = 2"),
        (["train", "training.backbone=resnet81"], "training.backbone = 'resnet81': timm has no such model"),
        (["train", "training.backbone_options={layers: [1, 1]}"], "resnet18 does not run on 32 px with them"),
        (["train", "training.recipe=none"], "training.recipe = 'none': unknown; use one of small"),
        (["train"], "run raysd generate with the same configuration first"),
        (["evaluate"], "run raysd generate with the same configuration first"),
        (["evaluate", "evaluation.test_set=none"], "evaluation.test_set = 'none': no such set"),
        (["sweep", "evaluation.test_set=fashion_mnist"], "sweep.objective = 'validation'"),
        (["report"], "holds no results; run `raysd sweep`"),
        (["plan", "a.yaml", "b.yaml"], "give one experiment file"),
    ],
)
def test_bad_input_exits_with_2_and_one_line_and_never_starts_ray(run_here, monkeypatch, words, message):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # of the tests' own cluster
    monkeypatch.setattr("raysd.cluster.session.ensure_ray", lambda: pytest.fail("Ray was started"))
    finished = run_here(*words)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
    assert "Traceback" not in finished.stderr


def test_the_command_itself_says_bad_input_in_one_line(run_cli):
    finished = run_cli("plan", "classes=none.csv")
    assert (
        finished.returncode == 2
        and finished.stderr.startswith("error: classes = 'none.csv'")
        and finished.stderr.count("\n") == 1
    )


def test_plan_shows_what_would_be_generated_and_generates_nothing(run_cli, tmp_path):
    finished = run_cli("plan", "generation.variant=name_definition", "generation.images_per_class=300")
    assert finished.returncode == 0, finished.stderr
    for part in ("T-shirt, a close-fitting pullover shirt", "3,000", "12 of 256", "about", "name_hypernym"):
        assert part in finished.stdout
    assert not (tmp_path / "runs").exists()


def test_schema_is_json(run_cli):
    import json

    assert json.loads(run_cli("schema").stdout)["title"] == "Experiment"
