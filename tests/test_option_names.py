"""Options under names that are nearly right, or of the wrong kind, are refused early, with the name that was meant."""

import pytest

from raysd.commands import plan
from raysd.config import load_experiment
from raysd.data.folders import folder_source
from raysd.data.hub_readers import parse_hub_name
from raysd.data.own_name import parse_own_name
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.storage.location import Location

WRONG = {
    "traning": ("traning={}", "did you mean training"),
    "generation.guidance": ("generation.guidance=3", "did you mean guidance_scale"),
    "training.sources.0.reel": ("training.sources=[{reel: digits}]", "did you mean real"),
    "training.sources.0.clone.guidance": (
        "training.sources=[{clone: {guidance: 3}}]",
        "did you mean guidance_scale",
    ),
    "training.sources.1.clone.guidance_scale": (
        "training.sources=[{real: digits}, {clone: {guidance_scale: high}}]",
        "give a number",
    ),
    "training.sources.0": ("training.sources=[{real: digits, clone: {}}]", "either a clone or a real data set"),
    "training.sources.0.filters.min_similarty": (
        "training.sources=[{clone: {}, filters: {min_similarty: 0.1}}]",
        "did you mean min_similarity",
    ),
    "evaluation.transfer_sets.0.probe.neighbor": (
        "evaluation.transfer_sets=[{name: digits, probe: {neighbor: 3}}]",
        "did you mean neighbors",
    ),
    "variants.mine.template": ("variants={mine: {template: [x]}}", "did you mean templates"),
    "sweep.space.generation.guidance": ("sweep.space={generation: {guidance: [1, 2]}}", "did you mean guidance_scale"),
}
LATE = {
    "training.recipe_options.learning_rat": ("training.recipe_options={learning_rat: 1}", "did you mean learning_rate"),
    "training.backbone_options": ("training.backbone_options={drop_rat: 0.1}", r"'drop_rat', did you mean drop_rate"),
    "generation.scheduler_options": ("generation.scheduler_options={beta_stat: 1}", "did you mean beta_start"),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_option_is_refused_when_the_file_is_read(field):
    override, message = WRONG[field]
    with pytest.raises(UserError, match=message) as found:
        load_experiment(None, [override])
    assert found.value.field == field and "\n" not in str(found.value)


def test_a_searched_option_of_a_recipe_is_refused_then_too():
    with pytest.raises(UserError, match="a recipe has no such option, did you mean learning_rate"):
        load_experiment(None, ["sweep.space={training: {recipe_options: {learning_rat: [1, 2]}}}"])


@pytest.mark.parametrize("field", LATE)
def test_what_a_library_takes_is_checked_in_the_plan(field, tmp_path):
    override, message = LATE[field]
    experiment = load_experiment({"storage": str(tmp_path)}, [override])
    with pytest.raises(UserError, match=message) as found:
        plan(experiment)
    assert found.value.field == field and "\n" not in str(found.value)


def test_a_name_that_is_far_from_all_gets_no_proposal():
    with pytest.raises(UserError, match="zzz = 1: unknown key; see"):
        load_experiment(None, ["zzz=1"])


def test_options_of_real_data_sets_are_those_of_their_kind(tmp_path):
    with pytest.raises(UserError, match="has no option 'lable', did you mean label"):
        parse_own_name("training.real", f"{tmp_path}/x.parquet?lable=y")
    with pytest.raises(UserError, match="has no option trian, did you mean train"):
        parse_hub_name("hf://datasets/me/birds?trian=x")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"x")
    assert folder_source(tmp_path).class_names == ["cat"]
    with pytest.raises(UserError, match="has no columns; leave image and label out"):
        real_dataset(f"{tmp_path}?label=species", "train", Location(str(tmp_path / "runs")))
