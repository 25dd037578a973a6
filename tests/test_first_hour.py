"""The README's commands for one's own classes, on the experiment that ships, with the embedded generator."""

import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "own_classes.yaml"
TINY = [
    "generation.model=embedded",
    "generation.image_size=null",
    "generation.num_inference_steps=2",
    "generation.images_per_class=6",
    "evaluation.generated_images_per_class=4",
    "training.backbone=resnet18",
    "training.backbone_options={layers: [1, 1, 1, 1], channels: [8, 8, 8, 8]}",
    "training.image_size=32",
    "training.batch_size=6",
    "training.num_steps=3",
    "training.num_workers=1",
    "sweep.space.generation={guidance_scale: [1, 7.5], variant: [name]}",
    "lint=off",
]
CHANGED = {"1200": "8", "s3://bucket/tars": "tars"}  # sizes and places of the README that are too large here


def readme_commands():
    text = (ROOT / "README.md").read_text()
    return re.findall(r"^raysd (\w+) (configs/own_classes.yaml.*)$", text, re.MULTILINE)


def words_of(rest, storage):
    """The README's words with a small size; `compare` needs the other setting's classifiers."""
    words = shlex.split(rest, comments=True)[1:]
    return [str(CONFIG), *(CHANGED.get(word, word) for word in words), *TINY, f"storage={storage}"]


def rows_of(storage, kind):
    return [json.loads(path.read_text()) for path in (storage / "results" / kind).glob("*.json")]


@pytest.mark.slow
def test_without_real_images_settings_are_measured_on_held_out_generated_images(run_here, tmp_path, ray_cluster):
    from raysd.commands.checks import checked_run
    from raysd.config import load_experiment
    from raysd.training.train import train_here

    storage = tmp_path / "runs"
    words = [str(CONFIG), *TINY, "generation.model=dummy", f"storage={storage}"]
    assert run_here("generate", *words).returncode == 0
    train_here(checked_run(load_experiment(CONFIG, words[1:])))
    evaluated = run_here("evaluate", *words)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "held-out generated images" in evaluated.stdout and "nothing about real images" in evaluated.stdout
    (row,) = rows_of(storage, "accuracy")
    assert (row["role"], row["num_images"]) == ("generated", 12)
    assert row["dataset_fingerprint"] != row["trained_on"]["fingerprint"], "measured on what it was trained on"
    swept = run_here("sweep", *words)
    assert swept.returncode == 0, swept.stderr
    assert "nothing about real images" in swept.stdout
    (sweep,) = rows_of(storage, "sweep")
    assert sweep["objective"] == "generated"
    assert {comparison["role"] for comparison in sweep["comparisons"]} == {"generated"}
    measured = {row["dataset"] for row in rows_of(storage, "accuracy") if row["fingerprint"] in sweep["rows"]}
    assert len(measured) == 2, "each setting is measured on images of all settings"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_command_of_the_readme_runs_on_the_shipped_experiment(run_here, tmp_path, ray_cluster):
    from raysd.training.train import train_here

    storage, done = tmp_path / "runs", {}
    for verb, rest in readme_commands():
        if verb == "compare":
            with pytest.MonkeyPatch.context() as patch:  # spares a start of Ray Train
                patch.setattr("raysd.training.train.train_classifiers", train_here)
                for name in ("generate", "train"):
                    assert run_here(name, *words_of(rest.split(" --with")[0], storage), OTHER).returncode == 0
        finished = done[verb] = run_here(verb, *words_of(rest, storage))
        assert finished.returncode == 0, (verb, finished.stderr)
    assert list(done) == [verb for verb, _ in readme_commands()] and "sweep" in done
    for verb in ("evaluate", "compare"):
        assert "held-out generated images" in done[verb].stdout
        assert "They say nothing about real images" in done[verb].stdout
    assert "nothing about real images" in done["sweep"].stdout
    assert {row["role"] for row in rows_of(storage, "accuracy")} == {"generated"}


OTHER = "generation.guidance_scale=7.5"


def test_a_score_never_mixes_generated_with_real_images(run_here):
    finished = run_here("sweep", "sweep.objective={generated: 1, test: 1}", "evaluation.test_set=fashion_mnist")
    assert finished.returncode == 2 and "never mixed with real ones" in finished.stderr
