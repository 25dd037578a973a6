"""Soft labels in the loss of a training, from memory and from shards, with mixtures, on one worker and on several."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from timm.data.mixup import mixup_target

from raysd.classifier.architecture import load_record
from raysd.classifier.model import load_classifier, normalize
from raysd.data.images import decode_all
from raysd.data.real_datasets import real_dataset
from raysd.data.soft_labels import CLASSES, LOGS, SoftLabels
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.storage.tables import write_table
from raysd.training.loader import Ingest, Pool
from raysd.training.losses.soft_labels import WeighedMixup, soft_loss, softened
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers, train_here

TINY = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    "num_epochs": 8,
    "batch_size": 40,
    "image_size": 16,
    "num_workers": 1,
}
WRONG = {"soft_weight": 1, "soft_temperature": 1, "learning_rate": 0.02}


def taught_digits(root, parts, images_per_class=40):
    """Digits, of which a teacher says that each is the next one."""
    images = real_dataset("digits", "train", root, images_per_class)
    for file in images.files():
        rows = images.read_rows(file)
        labels = rows["label"].to_numpy()
        logs = np.full((len(labels), 10), np.log(0.01), np.float16)
        logs[np.arange(len(labels)), (labels + 1) % 10] = np.log(0.91)
        columns = {"label": rows["label"], "index": rows["index"]}
        columns[CLASSES] = pa.array([list(range(10))] * len(labels), pa.list_(pa.int32()))
        columns[LOGS] = pa.array(list(logs), pa.list_(pa.float16()))
        order = np.random.default_rng(0).permutation(len(labels))
        write_table(parts, file, pa.table(columns).take(order))
    return replace(images, soft_labels=SoftLabels(parts, 10, "f" * 16))


@pytest.fixture
def taught(tmp_path):
    root = Location(str(tmp_path / "root"))
    return taught_digits(root, root.child("parts"))


def run_of(images, **changes):
    settings = TrainingSettings(**{**TINY, **changes})
    return TrainingRun(Location(images.soft_labels.parts.uri.rpartition("/")[0]), (Pool((images,)),), 10, settings)


def share_of_the_next_digit(run):
    """Share of the test images whose guess is the digit after theirs."""
    model, architecture = load_classifier(run.folder(0))
    test = decode_all(real_dataset("digits", "test", run.root), architecture.image_size)
    with torch.inference_mode():
        guesses = model(normalize(torch.from_numpy(test.images))).argmax(1).numpy()
    return (guesses == (test.labels + 1) % 10).mean()


def test_the_loss_is_the_divergence_of_both_softened_distributions():
    generator = torch.Generator().manual_seed(0)
    logs = torch.randn(5, 4, generator=generator).log_softmax(1)
    logits = torch.randn(5, 4, generator=generator, requires_grad=True)
    soft = torch.stack([torch.arange(4.0).expand(5, 4), logs], 1)
    p = softened(soft, 4, 2.0)
    torch.testing.assert_close(p, logs.exp().sqrt() / logs.exp().sqrt().sum(1, keepdim=True))
    q = (logits / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    loss = soft_loss(logits, p, 2.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    torch.testing.assert_close(logits.grad, 2 * (q - p).detach() / 5)  # T (q - p), as of cross-entropy at T = 1
    assert float(soft_loss(2 * p.log(), p, 2.0)) == pytest.approx(0, abs=1e-6)


def test_mixtures_mix_soft_targets_as_they_mix_labels():
    labels = torch.tensor([0, 3, 1, 2])
    for options in ({"mixup_alpha": 1.0, "cutmix_alpha": 0.0}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}):
        np.random.seed(3)
        mixup = WeighedMixup(**options, label_smoothing=0.0, num_classes=4)
        _, targets = mixup(torch.rand(4, 3, 8, 8), labels)
        assert 0 < mixup.share < 1
        torch.testing.assert_close(mixup.mix(torch.eye(4)[labels]), targets)
        torch.testing.assert_close(targets, mixup_target(labels, 4, mixup.share, 0.0))


def test_weight_zero_is_the_training_without_soft_labels(taught):
    plain = replace(run_of(taught), pools=(Pool((replace(taught, soft_labels=None),)),))
    none = replace(plain, settings=TrainingSettings(**TINY, recipe_options={"soft_weight": 0, "soft_temperature": 9}))
    assert plain.fingerprint(0) == none.fingerprint(0)
    assert len({plain.fingerprint(0), *(run_of(taught, recipe_options=each).fingerprint(0) for each in OPTIONS)}) == 4
    with pytest.raises(UserError, match=r"soft_weight = 0\.5: the images have no soft labels"):
        train_here(replace(plain, settings=TrainingSettings(**TINY, recipe_options=OPTIONS[0])))


OPTIONS = ({"soft_weight": 0.5}, {"soft_weight": 0.9}, {"soft_weight": 0.5, "soft_temperature": 4})


def assert_each_goes_with_its_image(batches):
    """Each soft label says the digit after its image's label."""
    for images, labels, soft in batches:
        assert soft.shape == (len(images), 2, 10)
        assert torch.equal(softened(soft, 10, 1.0).argmax(1), (labels + 1) % 10)


def test_batches_carry_the_soft_labels_of_their_images(taught):
    whole, part = Pool((taught,), 0.75), Pool((replace(taught, images_per_class=7),), 0.25)
    ingest = Ingest((whole, part), 16, 40, True)
    arrays = ingest.read_into_memory(by_tasks=False)
    batches = list(ingest.memory_batches(arrays, range(9), 1, 2, 0))
    assert_each_goes_with_its_image(batches)
    assert len({label for _, labels, _ in batches for label in labels.tolist()}) == 10
    for sequence, pool in zip(ingest.sequences(1, 2, 0), (0, 1), strict=True):
        rows = list(ingest.read_window(pool, sequence, 0, 20))
        assert_each_goes_with_its_image(
            [tuple(torch.from_numpy(row[name]) for name in ("image", "label", "soft")) for row in rows]
        )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["small", "timm"])
def test_a_classifier_learns_what_its_teacher_says_and_resumes_exactly(taught, tmp_path, monkeypatch, recipe):
    changes = {"recipe": recipe, "recipe_options": WRONG, "checkpoint_steps": 30, "forward_size": 15}
    run = run_of(taught, **changes)
    train_here(run)
    if recipe == "small":  # Mixup and RandAugment take longer to learn
        assert share_of_the_next_digit(run) > 0.6
    weights = run.folder(0).read("model.safetensors")
    run.folder(0).delete_folder()

    class Killed(BaseException):
        pass

    def kill(training):
        if training.step == 70:
            raise Killed

    monkeypatch.setattr("raysd.training.loop.SeedTraining._write_progress", kill)
    with pytest.raises(Killed):
        train_here(run)
    monkeypatch.undo()
    train_here(run)
    assert load_record(run.folder(0))["resumed_at"] == [60]
    assert run.folder(0).read("model.safetensors") == weights


@pytest.mark.soak
def test_two_workers_learn_from_streamed_soft_labels(ray_cluster, taught, monkeypatch):
    monkeypatch.setattr("raysd.training.loader.MEMORY_BYTES", 0)
    run = run_of(taught, num_workers=2, recipe_options=WRONG)
    train_classifiers(run, quiet=True)
    assert share_of_the_next_digit(run) > 0.6
