"""The contrastive loss beside cross-entropy: its formula, the order that brings positives together, and trainings."""

import io
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import normalize

from raysd.classifier.architecture import load_record
from raysd.data.images import ImageArrays, ImageSet
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.storage.tables import write_table
from raysd.training.grouping import Grouping
from raysd.training.loader import Ingest, Pool
from raysd.training.losses.contrastive import contrastive_loss, contrastive_losses
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings
from raysd.training.train import train_here

TINY = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]},
    "num_epochs": 4,
    "batch_size": 16,
    "image_size": 16,
    "num_workers": 1,
    "logger": "none",
}
ON = {"head": "projector", "projector_width": 16, "bottleneck_width": 8, "contrastive_weight": 1}
PROMPTS = 5


def loss_by_loops(projections, groups, temperature):
    """The loss of each image, term by term."""
    losses = []
    for i in range(len(groups)):
        similar = (projections[i] @ projections.T / temperature).exp()
        negatives = sum(similar[j] for j in range(len(groups)) if groups[j] != groups[i])
        terms = [
            -(similar[j] / (similar[j] + negatives)).log()
            for j in range(len(groups))
            if j != i and groups[j] == groups[i]
        ]
        losses.append(sum(terms) / len(terms) if terms else torch.tensor(0.0))
    return torch.stack(losses)


def test_the_loss_has_one_positive_and_the_negatives_in_its_denominator():
    generator = torch.Generator().manual_seed(0)
    projections = normalize(torch.randn(7, 4, generator=generator), dim=1).requires_grad_()
    groups = torch.tensor([3, 1, 3, 2, 1, 3, 3])
    losses, have_one = contrastive_losses(projections, groups, projections, groups, 0, 0.2)
    expected = loss_by_loops(projections, groups.tolist(), 0.2)
    torch.testing.assert_close(losses, expected)
    assert have_one.tolist() == [True, True, True, False, True, True, True] and losses[3] == 0
    (own,) = torch.autograd.grad(losses.sum(), projections, retain_graph=True)
    torch.testing.assert_close(own, torch.autograd.grad(expected.sum(), projections)[0])


def test_views_of_one_image_alone_do_not_count_as_another_image():
    projections = normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    for groups, share in (([0, 1], 0), ([0, 0], 1)):
        assert contrastive_loss(projections, torch.tensor(groups).repeat(3), [6], 0, 0.2, views=3)[1] == share


def test_positives_do_not_repel_each_other():
    """In a batch of one group nothing pushes: the loss is zero, however far apart the images are."""
    projections = torch.eye(4, requires_grad=True)
    groups = torch.zeros(4, dtype=torch.int64)
    losses, _ = contrastive_losses(projections, groups, projections, groups, 0, 0.1)
    losses.sum().backward()
    assert losses.tolist() == [0] * 4 and not projections.grad.any()


WORLD = """
import os, sys
import torch, torch.distributed as dist
from raysd.training.losses.contrastive import contrastive_loss

COUNTS = [3, 4, 2]
images = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
groups = torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 1])

def loss_and_gradient(rank, counts):
    first = sum(counts[:rank])
    own = slice(first, first + counts[rank])
    model = torch.nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.copy_(torch.arange(15.0).sin().reshape(3, 5)), model.bias.zero_()
    called = torch.nn.parallel.DistributedDataParallel(model) if len(counts) > 1 else model
    projected = torch.nn.functional.normalize(called(images[own]), dim=1)
    loss, share = contrastive_loss(projected, groups[own], counts, rank, 0.5)
    (loss * counts[rank] * len(counts) / 9).backward()  # as the train loop weighs a worker's share
    return model.weight.grad, share * counts[rank]

expected, positives = loss_and_gradient(0, [9])
children = []
for rank in range(3):
    if (child := os.fork()) == 0:
        dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/met", rank=rank, world_size=3)
        gradient, own = loss_and_gradient(rank, COUNTS)
        dist.all_reduce(own)
        torch.testing.assert_close(gradient, expected)
        assert own == positives == 8
        os._exit(0)
    children.append(child)
sys.exit(max(os.waitpid(child, 0)[1] for child in children) and 1)
"""


def test_workers_with_unequal_shares_have_the_gradient_of_one_with_the_whole_batch(tmp_path):
    command = [sys.executable, "-c", WORLD, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


groupings = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array)


@given(groupings, st.integers(1, 5), st.integers(0, 99))
def test_blocks_hold_images_of_one_group_and_each_image_is_there_once(groups, block, seed):
    order = np.random.default_rng(seed).permutation(len(groups))
    arranged = Grouping("class", block).arrange(order, groups)
    assert sorted(arranged) == list(range(len(groups)))
    if block == 1:
        assert arranged.tolist() == order.tolist()
    counts, runs = Counter(groups.tolist()), np.flatnonzero(np.diff(groups[arranged], prepend=-1, append=-1))
    for start, stop in pairwise(runs):
        assert stop - start >= min(block, counts[groups[arranged[start]]])


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 9))
def test_batches_hold_positives_whatever_the_number_of_workers_and_repeat_from_any_step(block, world_size, seed):
    groups = np.random.default_rng(seed).integers(0, 30, 90)
    numbers = np.arange(90)
    arrays = [ImageArrays(np.zeros((90, 3, 1, 1), np.uint8), numbers, numbers, None, groups)]
    ingest = Ingest((Pool(()),), 1, 12, True, Grouping("prompt", block))

    def batches(first, num_workers):
        own = [
            [labels.numpy() for _, labels, _ in ingest.memory_batches(arrays, range(first, 7), rank, num_workers, seed)]
            for rank in range(num_workers)
        ]
        return [set(np.concatenate(each).tolist()) for each in zip(*own, strict=True)]

    whole = batches(0, world_size)
    assert whole == batches(0, 1) and whole[4:] == batches(4, world_size)
    members = Counter(groups.tolist())
    for batch in whole:
        inside = Counter(groups[list(batch)].tolist())
        lone = [group for group, count in inside.items() if count == 1 and members[group] > 1]
        assert len(lone) <= 2  # whose block begins or ends beyond the batch


def encoded(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Images of four classes and five prompts each, in shards of two row groups; their gray says class and prompt."""
    folder = Location(str(tmp_path_factory.mktemp("root"))).child("clone", "data")
    generator = np.random.default_rng(0)
    for shard in range(2):
        rows = []
        for index in range(shard * 30, shard * 30 + 30):
            for label in range(4):
                prompt = int(generator.integers(PROMPTS))
                image = encoded(40 * label + 8 * prompt)
                rows.append({"image": image, "label": label, "index": index, "prompt": f"a {prompt}", "flag": ""})
        write_table(folder, f"train-{shard:06d}.parquet", pa.Table.from_pylist(rows))
    return ImageSet("clone", "f" * 16, folder, 60, about={"kind": "clone"})


def kinds(images):
    """Class and prompt of each image, from its gray."""
    return [divmod(int(image.float().mean().round()), 40) for image in images]


@pytest.mark.parametrize("by", ["class", "prompt"])
def test_groups_go_with_their_images_from_memory_and_from_shards(clone, by):
    ingest = Ingest((Pool((clone,)),), 16, 40, True, Grouping(by, 4))
    arrays = ingest.read_into_memory(by_tasks=False)
    batches = list(ingest.memory_batches(arrays, range(6), 0, 1, 0))
    sequence = ingest.sequences(0, 1, 0)[0]
    rows = list(ingest.read_window(0, sequence, 0, 240))
    streamed = [np.concatenate([row[name] for row in rows]) for name in ("image", "label", "group")]
    streamed[0] = streamed[0].transpose(0, 3, 1, 2)
    for images, labels, groups in (*batches, map(torch.from_numpy, streamed)):
        wanted = labels.tolist() if by == "class" else kinds(images)
        assert [label for label, _ in kinds(images)] == labels.tolist()
        assert len(set(zip(groups.tolist(), wanted, strict=True))) == len(set(wanted)) == len(set(groups.tolist()))
        counts = Counter(groups.tolist())
        assert sum(count == 1 for count in counts.values()) <= 2
    steps = np.diff(streamed[2], prepend=-1) != 0
    assert steps.sum() <= 240 / 4
    part = list(ingest.read_window(0, sequence, 100, 107))  # resumed in the middle of the window
    assert np.array_equal(np.concatenate([row["group"] for row in part]), streamed[2][100:107])


def run_of(images, **changes):
    root = Location(images.folder.uri.rpartition("/clone/")[0])
    return TrainingRun(root, (Pool((images,)),), 4, TrainingSettings(**{**TINY, **changes}))


def test_weight_zero_is_the_training_without_it(clone):
    plain = {name: value for name, value in ON.items() if not name.startswith("contrastive")}
    off = {**plain, "contrastive_weight": 0, "contrastive_groups": "prompt", "contrastive_block": 9}
    runs = [run_of(clone, recipe_options=options) for options in (plain, off, ON, {**ON, "contrastive_block": 2})]
    names = [run.fingerprint(0) for run in runs]
    assert names[0] == names[1] and len(set(names)) == 3
    assert not any(name.startswith("contrastive") for name in runs[0].recipe.model_dump())


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"head": "linear"}, {}, "contrastive_weight needs a projector; set head to projector"),
        ({"mixup": 0.2}, {}, "mixup and cutmix do not go with contrastive_weight"),
        ({}, {"forward_size": 8}, "forward_size = 8: cuts batches into parts"),
        ({"contrastive_groups": "prompt"}, {"real": "digits"}, "the real images of digits have no prompts; use class"),
        (
            {"contrastive_groups": "prompt"},
            {"sources": [{"clone": {}}, {"real": "digits"}]},
            "the real images of digits have no prompts",
        ),
        ({"contrastive_groups": "name"}, {}, "contrastive_groups = 'name'"),
    ],
)
def test_what_does_not_go_with_it_is_refused_in_one_line(options, settings, message):
    with pytest.raises(UserError, match=message) as refused:
        TrainingSettings(**TINY, **settings, recipe_options={**ON, **options}).resolve_recipe()
    assert "\n" not in str(refused.value)


def test_a_training_whose_batches_hold_no_positives_ends_in_one_line(clone):
    lone = replace(clone, images_per_class=4)
    options = {**ON, "contrastive_groups": "prompt", "contrastive_block": 1}
    with pytest.raises(UserError, match="no image had another one of its prompt in its batch; use larger batches"):
        train_here(run_of(lone, recipe_options=options, batch_size=2, num_epochs=1, num_steps=1))


def test_a_training_with_crops_resumes_exactly_and_its_history_says_how_many_have_positives(clone, monkeypatch):
    options = {**ON, "contrastive_groups": "prompt", "local_crops": 1}
    run = run_of(clone, recipe_options=options, checkpoint_steps=20)
    train_here(run)
    history = load_record(run.folder(0))["history"]
    assert history[-1]["contrastive_loss"] < history[0]["contrastive_loss"] and 0.9 < history[0]["with_positive"] < 1
    weights = [run.folder(0).read(name) for name in ("model.safetensors", "head.safetensors")]
    run.folder(0).delete_folder()

    class Killed(BaseException):
        pass

    def kill(training):
        if training.step == 50:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("raysd.training.loop.SeedTraining._write_progress", kill)
        with pytest.raises(Killed):
            train_here(run)
    train_here(run)
    assert load_record(run.folder(0))["resumed_at"] == [40]
    assert [run.folder(0).read(name) for name in ("model.safetensors", "head.safetensors")] == weights
