"""From a clone to a classifier that learns from another one's soft labels, by the commands."""

import json
from pathlib import Path

import pytest

from raysd.config import load_experiment
from raysd.resolve import resolve_scoring, with_found_teachers

WORDS = [
    "generation.model=dummy",
    "generation.images_per_class=8",
    "generation.num_actors=1",
    "training.num_epochs=1",
    "training.batch_size=20",
    "training.num_workers=1",
    "training.backbone_options={layers: [1,1,1,1], channels: [8,8,8,8]}",
    "evaluation.test_set=digits",
    "classes=['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']",
]
SOFT = "training.recipe_options={soft_weight: 0.9}"


@pytest.mark.soak
def test_the_commands_teach_a_classifier_and_its_rows_say_what_the_teacher_saw(
    run_here, ray_cluster, tmp_path, monkeypatch
):
    (tmp_path / "my.yaml").write_text("storage: runs\n")
    teach = f'scoring.teachers=["my.yaml generation.seed=1 {" ".join(map(quoted, WORDS))}"]'
    of_teacher, of_student = [["my.yaml", *WORDS, *more] for more in (["generation.seed=1"], [teach])]
    assert run_here("generate", *of_student).returncode == 0
    early = run_here("score", *of_student)
    assert early.returncode == 2 and "its generation.images_per_class: the clone does not have all" in early.stderr
    assert run_here("generate", *of_teacher).returncode == 0
    early = run_here("score", *of_student)
    assert early.returncode == 2 and "is not trained yet; run raysd train" in early.stderr
    assert run_here("train", *of_teacher).returncode == 0
    early = run_here("train", *of_student, SOFT)
    assert early.returncode == 2 and "the clone has no such scores; run raysd score" in early.stderr
    scored = run_here("score", *of_student)
    assert scored.returncode == 0, scored.stderr
    assert "the teachers' likeliest class is the image's own for" in scored.stdout and "soft_weight" in scored.stdout
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment(of_student[0], of_student[1:])
    by_folder = with_found_teachers(experiment)
    (folder,) = by_folder.scoring.teachers
    assert (Path(folder) / "record.json").is_file() and folder.startswith(f"{tmp_path}/runs/classifiers/")
    assert resolve_scoring(by_folder)[0].fingerprint == resolve_scoring(experiment)[0].fingerprint
    trained = run_here("train", *of_student, SOFT, "training.filters.margin=[0.25, 1]")
    assert trained.returncode == 0, trained.stderr
    evaluated = run_here("evaluate", *of_student, SOFT, "training.filters.margin=[0.25, 1]")
    assert "soft labels by a teacher that saw no real image" in evaluated.stdout, evaluated.stderr
    (row,) = (json.loads(path.read_text()) for path in (tmp_path / "runs" / "results" / "accuracy").glob("*.json"))
    assert row["trained_on"]["teacher"]["saw_real"] == "no" and row["trained_on"]["num_left_out"] == 20
    assert run_here("report", "storage=runs").returncode == 0
    (page,) = (tmp_path / "runs" / "reports").glob("*/report.html")
    assert "soft labels 0.9 at temperature 2" in page.read_text()
    assert "saw no real image" in page.read_text()


def quoted(word):
    return "'" + word.replace("'", "") + "'"
