from dataclasses import replace
from io import BytesIO

import pytest
import torch
from safetensors.torch import load, save

from raysd.classifier.architecture import load_record
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training import loop
from raysd.training.checkpoint import load_state
from raysd.training.loader import Pool
from raysd.training.loop import SeedTraining
from raysd.training.run import STATE, TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_here
from raysd.training.workers import OneProcess

TINY = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    "num_steps": 6,
    "batch_size": 20,
    "image_size": 16,
    "num_workers": 1,
    "precision": "float32",
    "checkpoint_steps": 2,
    "logger": "none",
}
RATE = {"ema_decay": 0.9, "warmup_share": 0, "decay_share": 0}


def run_of(root, images, learning_rate=0.01, **changes):
    settings = TrainingSettings(**TINY, recipe_options={**RATE, "learning_rate": learning_rate})
    pool = Pool((real_dataset("digits", "train", Location(str(root)), images),))
    return TrainingRun(Location(str(root)), (pool,), 10, settings, **changes)


def two_trainings(root, **changes):
    """One training, and one that goes on with more images."""
    first = run_of(root, 6, keeps_state=True)
    train_here(first)
    second = run_of(root, 12, starts={0: first.fingerprint(0)}, keeps_state=True, **changes)
    return first, second


def state_of(run):
    return load_state(BytesIO(run.folder(0).read(STATE)))


def weights(run):
    return load(run.folder(0).read("model.safetensors"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    first, second = two_trainings(tmp_path_factory.mktemp("going_on"))
    train_here(second)
    return first, second


def test_a_training_goes_on_with_weights_average_and_optimizer_of_the_one_before(trained):
    first, second = trained
    still = run_of(second.root.path, 12, 1e-12, starts={0: first.fingerprint(0)}, keeps_state=True)
    train_here(still)
    before, after = (state_of(run)["learned"]["model"] for run in (first, still))
    parameters = [name for name in before if name.rpartition(".")[2] in ("weight", "bias")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in parameters)
    learned = state_of(second)["learned"]
    assert {int(each["step"]) for each in learned["optimizer"]["state"].values()} == {12}
    assert state_of(second)["steps"] == 12 and load_record(second.folder(0))["steps_before"] == 6
    average = learned["ema"]
    assert any(not torch.equal(average[name], state_of(first)["learned"]["ema"][name]) for name in average)


def test_where_a_training_begins_is_part_of_its_fingerprint(trained):
    first, second = trained
    anew = replace(second, starts={})
    assert len({first.fingerprint(0), second.fingerprint(0), anew.fingerprint(0)}) == 3
    assert load_record(second.folder(0))["start"] == first.fingerprint(0)
    assert not replace(first, settings=anew.settings, pools=anew.pools).is_trained(0)


@pytest.mark.parametrize("training", [0, 1])
def test_a_killed_training_that_goes_on_ends_with_the_same_weights(trained, tmp_path, monkeypatch, training):
    step = SeedTraining._train_step

    def killed(self, *arguments):
        if (self.steps_before, self.step) == (6 * training, 5):
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(SeedTraining, "_train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_here(two_trainings(tmp_path)[1])
    monkeypatch.setattr(SeedTraining, "_train_step", step)
    runs = two_trainings(tmp_path)
    train_here(runs[1])
    assert load_record(runs[training].folder(0))["resumed_at"] == [4]
    for found, expected in zip(runs, trained, strict=True):
        assert all(torch.equal(one, weights(found)[name]) for name, one in weights(expected).items())


def test_no_batch_and_no_augmentation_comes_again(trained, monkeypatch):
    first, _ = trained
    seen = []
    monkeypatch.setattr(SeedTraining, "_prepare", lambda self, item: seen.append((self.noise_seed, item)) or 1 / 0)
    for run in (first, replace(first, starts={0: first.fingerprint(0)})):
        with pytest.raises(ZeroDivisionError):
            train_here(replace(run, settings=run.settings.model_copy(update={"seeds": [0], "num_steps": 7})))
    (noise, (_, batch)), (other, (_, next_batch)) = seen
    assert noise != other and not torch.equal(torch.as_tensor(batch[0]), torch.as_tensor(next_batch[0]))


def test_a_state_that_is_gone_is_named_with_the_remedy(tmp_path):
    first, second = two_trainings(tmp_path)
    first.folder(0).delete(STATE)
    with pytest.raises(UserError, match="the same command trains it again") as found:
        train_here(second)
    assert first.fingerprint(0) in str(found.value)
    assert not first.is_trained(0) and replace(first, keeps_state=False).is_trained(0)


def test_a_state_is_made_again_beside_the_same_weights_and_never_beside_others(tmp_path):
    first, _ = two_trainings(tmp_path)
    folder, before = first.folder(0), state_of(first)
    record = folder.read("record.json")
    folder.delete(STATE)
    train_here(first)
    assert folder.read("record.json") == record and state_of(first)["steps"] == before["steps"]
    folder.delete(STATE)
    name, values = next(iter(weights(first).items()))
    folder.write("model.safetensors", save({**weights(first), name: values + 1}))
    with pytest.raises(UserError, match="trains other weights; delete that folder"):
        train_here(first)
    assert not folder.exists(STATE)


def test_a_seed_whose_classifier_is_gone_is_trained_though_the_checkpoint_is_of_a_later_one(tmp_path, monkeypatch):
    taken = []

    class Seed:
        def __init__(self, config, workers, seed, number, validation):
            self.seed = seed

        def run(self, arrays, resumed):
            taken.append((self.seed, resumed and resumed["seed"]))

    monkeypatch.setattr(loop, "SeedTraining", Seed)
    monkeypatch.setattr(OneProcess, "resume", lambda self: {"seed": 1})
    run = run_of(tmp_path, 6)
    run = replace(run, settings=run.settings.model_copy(update={"seeds": [0, 1, 2]}))
    with pytest.raises(RuntimeError, match="without classifiers"):
        train_here(run)
    assert taken == [(0, None), (1, 1), (2, None)]
