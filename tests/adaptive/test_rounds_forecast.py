import pytest

from raysd import commands
from raysd.adaptive.forecast import clones_to_generate, num_trainings
from raysd.adaptive.settings import AdaptiveSettings
from raysd.clone.plan import ImageCounts
from raysd.commands.documents import document_of
from raysd.commands.show import show_plan
from raysd.config import load_experiment
from raysd.generation.cost import guided_steps
from raysd.resolve import clones_of

SEEDS = {"generation": {"images_per_class": 20, "seeds": [0, 1]}, "training": {"seeds": [0, 1, 2], "batch_size": 10}}


def experiment_of(tmp_path, **adaptive):
    sections = {"adaptive": adaptive} if adaptive else {}
    return load_experiment({"storage": str(tmp_path), **SEEDS, **sections})


def test_what_the_rounds_generate_is_what_the_way_does(tmp_path):
    clones = clones_of(experiment_of(tmp_path))

    def parts(**changes):
        return clones_to_generate(AdaptiveSettings(num_rounds=3, **changes), 20, clones)

    assert [len(part) for part in parts(way="budgets")] == [200, 200]
    assert [part.counts for part in parts(way="select", pool_factor=2)] == [ImageCounts(10, 35)] * 2  # 5 + 2 x 15
    first, second, third, *others = parts(way="entropy", weight=0.1, every=4)
    assert [len(part) for part in (first, second, third)] == [50, 70, 80] and len(others) == 3
    assert guided_steps(second.spec) > guided_steps(first.spec) == guided_steps(clones[0].spec)
    (unguided, *_), *_ = [parts(way="entropy", weight=0)[1:]]
    assert guided_steps(unguided.spec) == guided_steps(first.spec)


def test_trainings_are_those_of_the_first_seed_between_the_rounds_unless_they_go_on():
    assert num_trainings(AdaptiveSettings(num_rounds=4), 3) == 6
    continued = AdaptiveSettings(num_rounds=4, training="continued")
    assert num_trainings(continued, 3) == 12
    assert num_trainings(continued.model_copy(update={"patience": 2, "max_rounds": 9}), 1) == 9


def test_a_plan_names_what_the_rounds_take(tmp_path, capsys):
    assert commands.plan(experiment_of(tmp_path)).rounds == ()
    plan = commands.plan(experiment_of(tmp_path, way="select"))
    what = "select: 1,000 images and 9 trainings in 4 rounds"
    assert plan.rounds[0] == f"{what}, and 500 held-out images that decide"
    assert "of one CPU core" in plan.rounds[1] and plan.rounds[1] != plan.cost[0]
    assert document_of("plan", plan)["rounds"] == list(plan.rounds)
    decided = commands.plan(experiment_of(tmp_path, way="select"), evaluation={"validation_set": "fashion_mnist"})
    assert decided.rounds[0] == what
    show_plan(plan)
    assert "adapt         select: 1,000 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"generation": {"model": "dummy", "guidance_scale": 1}}, "adaptive.way = 'entropy'"),
        ({"generation": {"class_counts": {"coat": 3}}}, "generation.class_counts"),
        ({"training": {"batch_size": 64}}, "training.batch_size = 64: there are only 50 images"),
        ({"classes": ["crane"]}, "is one class"),
    ],
)
def test_a_plan_names_what_stands_against_the_rounds(tmp_path, changes, field):
    plan = commands.plan(experiment_of(tmp_path, way="entropy"), **changes)
    assert plan.rounds[0].startswith("refused: ") and field in plan.rounds[0]
