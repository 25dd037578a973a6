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
    "sweep.space.generation={guidance_scale: [1, 7.5]}",
    "lint=off",
]
CHANGED = {"--to": "8", "--out": "tars"}  # sizes and places of the README that are too large here


def readme_commands():
    text = (ROOT / "README.md").read_text()
    return re.findall(r"^raysd (\w+) (configs/own_classes.yaml.*)$", text, re.MULTILINE)


def words_of(rest, storage):
    """The README's words with a small size; `compare` needs the other setting's classifiers."""
    words = shlex.split(rest, comments=True)[1:]
    words = [CHANGED.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return [str(CONFIG), *words, *TINY, f"storage={storage}"]


@pytest.mark.slow
def test_every_command_of_the_readme_runs_on_the_shipped_experiment(run_here, tmp_path, ray_cluster):
    storage, done = tmp_path / "runs", {}
    for verb, rest in readme_commands():
        if verb == "compare":
            for name in ("generate", "train"):
                assert run_here(name, *words_of(rest.split(" --with")[0], storage), OTHER).returncode == 0
        finished = done[verb] = run_here(verb, *words_of(rest, storage))
        assert finished.returncode == 0, (verb, finished.stderr)
    assert list(done) == [verb for verb, _ in readme_commands()] and "sweep" in done
    for verb in ("evaluate", "compare"):
        assert "held-out generated images" in done[verb].stdout
        assert "They say nothing about real images" in done[verb].stdout
    assert "nothing about real images" in done["sweep"].stdout
    rows = [json.loads(path.read_text()) for path in (storage / "results" / "accuracy").glob("*.json")]
    assert {row["role"] for row in rows} == {"generated"}
    trained = {row["trained_on"]["fingerprint"] for row in rows}
    assert not trained & {row["dataset_fingerprint"] for row in rows}, "nothing is measured on what it was trained on"
    (sweep,) = [json.loads(path.read_text()) for path in (storage / "results" / "sweep").glob("*.json")]
    assert sweep["objective"] == "generated"
    measured = {row["dataset"] for row in rows if row["fingerprint"] in sweep["rows"]}
    assert len(measured) == 2, "each setting is measured on images of all settings"


OTHER = "generation.guidance_scale=7.5"


def test_a_score_never_mixes_generated_with_real_images(run_here):
    finished = run_here("sweep", "sweep.objective={generated: 1, test: 1}", "evaluation.test_set=fashion_mnist")
    assert finished.returncode == 2 and "never mixed with real ones" in finished.stderr
