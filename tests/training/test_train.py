import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from in_process import run_main
from safetensors.torch import load

from raysd.config import load_experiment
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.accumulation import equal_parts
from raysd.training.checkpoint import load_state, save_state
from raysd.training.classifier import Architecture, build_classifier, load_classifier, load_record, normalise
from raysd.training.ingest import Pool
from raysd.training.pictures import decode_all
from raysd.training.real_sets import encode_png, picture_table, real_set
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers, train_here

TINY = {"backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, "num_epochs": 3, "batch_size": 50, "image_size": 16}


def run_of(root, **changes):
    location = Location(str(root))
    settings = TrainingSettings(**{**TINY, **changes})
    return TrainingRun(location, (Pool((real_set("digits", "train", location, 40),)),), 10, settings)


def weights(run, seed):
    return load(run.folder(seed).read("model.safetensors"))


def test_a_state_comes_back_as_it_was(tmp_path):
    model = torch.nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    save_state(tmp_path, {"optimizer": optimizer.state_dict(), "step": 3, "pair": (1, "x"), "none": None})
    state = load_state(tmp_path)
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(state["optimizer"])
    saved, loaded = (each.state_dict()["state"][0]["exp_avg"] for each in (optimizer, again))
    assert torch.equal(saved, loaded) and saved.stride() == loaded.stride() == model.weight.stride()
    assert state["step"] == 3 and state["pair"] == [1, "x"] and state["none"] is None
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".json", ".safetensors")]


def test_small_pictures_keep_their_resolution_in_the_stem():
    small, halved, large = (build_classifier(Architecture("resnet18", {}, 10, size, stride)).backbone for size, stride in ((32, 1), (32, 2), (224, 2)))
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
def test_sources_with_shares_and_streamed_pictures_train_too(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.training.ingest.MEMORY_BYTES", 0)
    run = run_of(tmp_path, num_workers=1)
    other = real_set("mnist_5k", "train", run.root, 20)
    mixed = replace(run, pools=(Pool(run.pools[0].sets, 0.75), Pool((other,), 0.25)))
    train_here(mixed)
    record = load_record(mixed.folder(0))
    assert np.isfinite(record["loss"]) and record["num_steps"] == 3 * (600 // 50)
    assert [part["share"] for part in record["trained_on"]["parts"]] == [0.75, 0.25]


def knows_a_checkpoint(runs):
    """True when Ray Train has noted down a checkpoint, from which it would go on."""
    return any("checkpoint_dir_name" in path.read_text() for path in runs.glob("*/checkpoint_manager_snapshot.json"))


def kill_a_worker(runs, killed):
    """SIGKILL one train worker as soon as Ray Train knows of a checkpoint."""
    import ray.util.state

    while not knows_a_checkpoint(runs):
        time.sleep(0.02)
    for actor in ray.util.state.list_actors(filters=[("state", "=", "ALIVE")], detail=True):
        if actor.class_name == "RayTrainWorker":
            os.kill(actor.pid, signal.SIGKILL)
            killed.append(actor.pid)
            return


@pytest.mark.slow
def test_the_same_seed_data_and_workers_give_the_same_weights_also_after_a_sigkill_inside_an_epoch(ray_cluster, tmp_path, monkeypatch):
    """With streamed pictures; the test of a killed driver has pictures in memory."""
    import threading

    monkeypatch.setattr("raysd.training.ingest.MEMORY_BYTES", 0)
    options = {"num_epochs": 14, "recipe": "timm", "checkpoint_steps": 71, "batch_size": 36}  # eleven steps an epoch
    options["backbone_options"] = {**TINY["backbone_options"], "drop_rate": 0.1}
    undisturbed = run_of(tmp_path / "a", **options)
    train_classifiers(undisturbed, quiet=True)
    disturbed, killed = run_of(tmp_path / "b", **options), []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "b" / "runs", killed), daemon=True)
    killer.start()
    train_classifiers(disturbed, quiet=True)
    killer.join(timeout=60)
    assert killed and load_record(disturbed.folder(0))["resumed_at"] and not load_record(undisturbed.folder(0))["resumed_at"]
    losses = [[(row["step"], row["loss"]) for row in load_record(run.folder(0))["history"]] for run in (undisturbed, disturbed)]
    assert losses[0] == losses[1]
    assert all(torch.equal(tensor, weights(disturbed, 0)[name]) for name, tensor in weights(undisturbed, 0).items())


@pytest.fixture(scope="module")
def commanded(tmp_path_factory, ray_cluster):
    """A training of two seeds by the command: its folder, and its words for another storage root."""
    folder = tmp_path_factory.mktemp("commanded")
    (folder / "digits.txt").write_text("\n".join(map(str, range(10))))
    settings = {**TINY, "real": "digits", "seeds": [0, 1], "num_epochs": 25, "checkpoint_steps": 53}
    options = ["=".join((f"training.{name}", json.dumps(value).replace('"', ""))) for name, value in settings.items()]

    def words(root):
        return ["train", f"storage={root}", f"classes={folder / 'digits.txt'}", "generation.images_per_class=40", *options]

    assert run_main(folder, *words(folder / "a")).returncode == 0
    return folder, words


def classifiers_of(root):
    """Folders of the classifiers, by seed."""
    return [path.parent for path in sorted(root.glob("classifiers/*/record.json"), key=lambda path: json.loads(path.read_text())["seed"])]


@pytest.mark.slow
def test_two_workers_train_a_classifier_per_seed_that_learns(commanded):
    root = commanded[0] / "a"
    folders = [Location(str(folder)) for folder in classifiers_of(root)]
    assert len(folders) == 2
    model, architecture = load_classifier(folders[0])
    test = decode_all(real_set("digits", "test", Location(str(root))), architecture.image_size)
    with torch.inference_mode():
        accuracy = (model(normalise(torch.from_numpy(test.images))).argmax(1).numpy() == test.labels).mean()
    assert accuracy > 0.5
    assert not torch.equal(*(load(folder.read("model.safetensors"))["fc.weight"] for folder in folders))
    assert load_record(folders[0])["trained_on"]["kind"] == "real"


@pytest.mark.slow
def test_sigkill_of_the_driver_and_the_same_command_end_with_the_weights_of_an_undisturbed_run(commanded):
    folder, words = commanded
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "raysd.cli", *words(folder / "b")]
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not knows_a_checkpoint(folder / "b" / "runs"):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert not list((folder / "b" / "classifiers").glob("*/record.json"))
    again = run_main(folder, *words(folder / "b"))
    assert again.returncode == 0 and "trained" in again.stdout
    disturbed, undisturbed = classifiers_of(folder / "b"), classifiers_of(folder / "a")
    assert [bool(json.loads((each / "record.json").read_text())["resumed_at"]) for each in disturbed] == [True, False]
    assert [(each / "model.safetensors").read_bytes() for each in disturbed] == [(each / "model.safetensors").read_bytes() for each in undisturbed]


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
        "recipe_options": {"projector_width": 64, "bottleneck_width": 16, "local_crops": 2},
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
    assert torch.allclose(timm.create_model(f"local-dir:{run.folder(0).path}", pretrained=True).eval()(images), features, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_a_compiled_model_trains_and_its_weights_are_named_as_any(tmp_path):
    run = run_of(tmp_path, compile=True, num_workers=1, num_steps=2)
    train_here(run)
    assert weights(run, 0).keys() == build_classifier(run.architecture).backbone.state_dict().keys()
    assert np.isfinite(load_record(run.folder(0))["loss"])


@pytest.mark.slow
def test_steps_in_the_place_of_epochs_and_measurements_on_the_way(ray_cluster, tmp_path):
    run = run_of(tmp_path, num_steps=20, validate_epochs=1)
    run = replace(run, validation=real_set("digits", "test", run.root, 11))  # 110 pictures: no multiple of a batch
    train_classifiers(run, quiet=True)
    record = load_record(run.folder(0))
    assert [row["step"] for row in record["history"]] == [8, 16, 20]
    model, architecture = load_classifier(run.folder(0))
    pictures = decode_all(run.validation, architecture.image_size)
    with torch.inference_mode():
        accuracy = 100 * (model(normalise(torch.from_numpy(pictures.images))).argmax(1).numpy() == pictures.labels).mean()
    assert record["history"][-1]["validation_top1"] == pytest.approx(accuracy, abs=0.01)
    files = list((tmp_path / "logs" / run.fingerprint(0)).glob("events.out.tfevents.*"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(files[0].parent)).Reload()
    events = curves.Scalars("loss")
    assert [event.step for event in events] == [row["step"] for row in record["history"]]
    assert [event.value for event in events] == pytest.approx([row["loss"] for row in record["history"]], abs=1e-4)


@pytest.mark.slow
def test_a_broken_picture_ends_the_training_in_one_line(ray_cluster, tmp_path):
    encoded = [encode_png(np.full((8, 8), 10 * i, dtype=np.uint8)) for i in range(20)]
    encoded[7] = b"no picture"
    pq.write_table(picture_table(encoded, np.arange(20) % 10, list("abcdefghij")), tmp_path / "set.parquet")
    root = Location(str(tmp_path / "root"))
    broken = real_set(str(tmp_path / "set.parquet"), "train", root)
    run = replace(run_of(tmp_path / "root", batch_size=10, num_workers=1), pools=(Pool((broken,)),))
    with pytest.raises(UserError, match=r"holds a picture that cannot be decoded.*repair or remove it") as caught:
        train_classifiers(run, quiet=True)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("root/runs/*/error.json"))


def test_more_pictures_in_a_batch_than_there_are_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"training\.batch_size = 1000: there are only 400 pictures"):
        train_classifiers(run_of(tmp_path, batch_size=1000))


def test_a_batch_that_the_workers_cannot_share_is_refused(tmp_path):
    with pytest.raises(UserError, match="use a multiple of the 2 workers"):
        train_classifiers(run_of(tmp_path, batch_size=51))


@pytest.mark.slow
def test_the_embedded_generator_can_be_trained_again(ray_cluster, tmp_path):
    """A few steps of the real job, on the tests' Ray."""
    from raysd.training.fashion_mnist import fashion_mnist_folder

    if fashion_mnist_folder() is None:
        pytest.skip("needs the full Fashion-MNIST (Debian package dataset-fashion-mnist)")
    command = [sys.executable, "jobs/train_tiny_sd.py", "--out", str(tmp_path), "--steps", "2", "--workers", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    assert json.loads((tmp_path / "tiny_sd" / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(UserError, match="nesterov needs momentum"):
        load_experiment(None, ["training.recipe=standard", "training.recipe_options.momentum=0"]).training.resolve_recipe()


@pytest.mark.parametrize("option", ["momentum=1", "speed=1"])
def test_settings_refuse_an_unknown_recipe_option_and_a_wrong_value(option):
    with pytest.raises(UserError, match=rf"training\.recipe_options\.{option[:5]}"):
        load_experiment(None, [f"training.recipe_options.{option}"]).training.resolve_recipe()


def test_a_source_without_pictures_is_refused_by_its_name(tmp_path):
    run = run_of(tmp_path)
    empty = replace(run.pools[0].sets[0], name="nothing", images_per_class=0)
    with pytest.raises(UserError, match=r"training\.sources = 'nothing': holds no pictures"):
        train_classifiers(replace(run, pools=(Pool(run.pools[0].sets, 0.5), Pool((empty,), 0.5))))


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_training_in_one_line(tmp_path):
    run = run_of(tmp_path, recipe_options={"optimizer": "sgd", "learning_rate": 1e30, "clip_norm": None}, precision="float32", num_workers=1)
    with pytest.raises(UserError, match=r"learning_rate = 1e\+30: the loss is no number any more"):
        train_here(run)


def test_a_batch_is_cut_into_equal_parts():
    assert [part.stop - part.start for part in equal_parts(25, 8)] == [6, 6, 6, 7]
    assert equal_parts(16, 16) == [slice(0, 16)]
