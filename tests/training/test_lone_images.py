"""Batch norm takes no variance of a single value: one image a step, a worker, or a part of a batch."""

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from raysd.classifier.architecture import Architecture, load_record
from raysd.classifier.model import build_classifier, lone_norms, running_statistics
from raysd.data.real_datasets import real_dataset
from raysd.storage.location import Location
from raysd.training.loader import Pool
from raysd.training.recipe import built_in_recipes
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_classifiers, train_here

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
OPTIONS = {"paper": {"local_crops": 0, "projector_width": 16, "bottleneck_width": 8, "num_fractals": 4}}
SIZE = 8  # pixels; the last stage of a ResNet has one value of each channel then


def run_of(root, **changes):
    location = Location(str(root))
    settings = {"backbone_options": SMALL, "num_steps": 2, "image_size": SIZE, "num_workers": 1, "logger": "none"}
    settings = TrainingSettings(**{**settings, **changes})
    return TrainingRun(location, (Pool((real_dataset("digits", "train", location, 1),)),), 10, settings)


def check_trained(run):
    record = load_record(run.folder(0))
    weights = load(run.folder(0).read("model.safetensors"))
    assert record["num_steps"] == 2 and np.isfinite(record["loss"])
    assert all(torch.isfinite(tensor.float()).all() for tensor in weights.values())


def test_only_norms_with_one_value_of_each_channel_are_set_aside():
    model = build_classifier(Architecture("resnet18", SMALL, 10, SIZE, 1)).train()
    before = [buffer.clone() for buffer in model.buffers()]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    lone = lone_norms(model, [torch.zeros(1, 3, SIZE, SIZE)])
    assert 0 < len(lone) < len(norms)
    assert lone_norms(model, [torch.zeros(2, 3, SIZE, SIZE)]) == []
    assert all(torch.equal(*pair) for pair in zip(before, model.buffers(), strict=True))
    with running_statistics(lone):
        assert [norm.training for norm in norms] == [all(norm is not each for each in lone) for norm in norms]
    assert all(module.training for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", built_in_recipes())
def test_every_recipe_trains_on_one_image_a_step(tmp_path, recipe):
    run = run_of(tmp_path, recipe=recipe, recipe_options=OPTIONS.get(recipe, {}), batch_size=1)
    train_here(run)
    check_trained(run)


@pytest.mark.slow
def test_a_batch_of_three_is_trained_in_parts_of_one_and_two(tmp_path):
    run = run_of(tmp_path, recipe="paper", recipe_options=OPTIONS["paper"], batch_size=3, forward_size=2)
    train_here(run)
    check_trained(run)


@pytest.mark.soak
def test_workers_train_on_one_image_each(ray_cluster, tmp_path):
    run = run_of(tmp_path, recipe="paper", recipe_options=OPTIONS["paper"], batch_size=2, num_workers=2)
    train_classifiers(run, quiet=True)
    check_trained(run)
