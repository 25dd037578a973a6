import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from raysd.training.augmentation import ahead, augment, fractals
from raysd.training.augmentation.batched_operations import apply_batched
from raysd.training.augmentation.color import blur, jitter_and_gray, solarize
from raysd.training.augmentation.crops import flip, global_crop
from raysd.training.augmentation.operations import OPERATIONS, apply_in_groups
from raysd.training.augmentation.rand_augment import strengths
from raysd.training.recipe import Recipe, built_in_recipes

OFF = Recipe(crop="none", flip=0)
MIXING = torch.from_numpy(fractals(8, 32, 0))


def random_images(count, size=32):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", built_in_recipes())
def test_views_repeat_with_their_generator_and_are_images_of_the_right_size(name):
    recipe = built_in_recipes()[name].for_size(32)
    first, again, other = (augment(random_images(12), recipe, seeded(seed), 32, MIXING) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    shapes = [(12, 3, 32, 32)] + ([(12 * 8, 3, 16, 16)] if recipe.local_crops else [])
    assert [tuple(view.shape) for view in first] == shapes and all(view.dtype == torch.uint8 for view in first)


def test_a_batch_that_is_changed_in_parts_is_whole(monkeypatch):
    images = random_images(9)
    monkeypatch.setattr(importlib.import_module("raysd.training.augmentation"), "PART_VALUES", 4 * images[0].numel())
    assert torch.equal(augment(images, OFF, seeded(), 32)[0], images)


class Calls(TorchDispatchMode):
    """Counts calls of torch, but those that only view a tensor anew; an array of numpy counts, as a GPU copies it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        answers = [answer.alias_info for answer in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in answers)
        self.count += not is_view or function is torch.ops.aten.lift_fresh.default
        return function(*args, **(kwargs or {}))


def test_a_batch_is_received_in_the_stream_of_its_own_device(monkeypatch):
    """On a machine of several GPUs the current one may be another."""
    asked, used = [], []
    stream = SimpleNamespace(wait_event=lambda event: used.append(event))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: asked.append(device) or stream)
    tensors = [SimpleNamespace(device="cuda:1", record_stream=used.append) for _ in range(2)]
    ahead._received(([tensors[0]], tensors[1]), "done")
    assert asked == ["cuda:1"] and used == ["done", stream, stream]


def smooth_images(count, size):
    small = torch.rand((count, 3, size // 6, size // 6), generator=seeded(7))
    return torch.nn.functional.interpolate(small, (size, size), mode="bicubic").mul(255).clamp(0, 255).byte()


@pytest.mark.parametrize("name", built_in_recipes())
def test_a_gpu_gets_few_calls_whatever_the_batch(name):
    recipe, counts = built_in_recipes()[name].for_size(224), []
    for count in (40, 60):
        with Calls() as calls:
            augment(smooth_images(count, 18), recipe, seeded(), 16, MIXING, batched=True)
        counts.append(calls.count)
    assert max(counts) <= 600 and counts[1] - counts[0] < 40  # in a small batch a kind of operation may be missing


@pytest.mark.parametrize(
    ("name", "interpolation"), [*((name, "bicubic") for name in built_in_recipes()), ("paper", "bilinear")]
)
def test_a_gpu_shows_the_images_that_a_cpu_shows(name, interpolation, monkeypatch):
    """An eighth of a level of 256 on average, and more than two levels in fewer than one value of 200."""
    package = importlib.import_module("raysd.training.augmentation")
    monkeypatch.setattr(package, "PART_VALUES", 2**62)  # parts take their random numbers one after the other
    recipe = built_in_recipes()[name].for_size(224).model_copy(update={"interpolation": interpolation})
    for images in (smooth_images(12, 54), smooth_images(12, 20)):
        views = [augment(images, recipe, seeded(3), 32, MIXING, batched) for batched in (False, True)]
        for one, other in zip(*views, strict=True):
            difference = (one.int() - other.int()).abs()
            assert one.shape == other.shape and other.dtype == torch.uint8
            assert difference.float().mean() < 1 / 8 and (difference > 2).float().mean() < 5e-3


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_each_operation_of_a_batch_is_torchvisions(magnitude):
    operations, images = strengths(magnitude), random_images(28, 16)
    choices = torch.randperm(len(operations), generator=seeded())
    one, other = apply_in_groups(images, choices, operations), apply_batched(images, choices.numpy(), operations)
    difference = (one.int() - other.int()).abs().flatten(1)
    for i in range(28):
        assert (difference[i] > 1).float().mean() <= 0.02, operations[int(choices[i])]


def test_no_augmentation_changes_nothing_but_the_size():
    images = random_images(4)
    assert torch.equal(augment(images, OFF, seeded(), 32)[0], images)
    assert augment(images, OFF, seeded(), 24)[0].shape[-1] == 24


def test_a_shift_moves_images_by_at_most_a_sixteenth():
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    images[:, :, 16, 16] = 255
    places = augment(images, Recipe(crop="shift", flip=0), seeded(), 32)[0][:, 0].nonzero()
    assert set(places[:, 1].tolist()) == set(places[:, 2].tolist()) == {14, 15, 16, 17, 18}


@given(st.floats(0.05, 0.6), st.floats(0.6, 1), st.integers(0, 1000))
def test_crops_show_the_requested_share_of_the_image(least, most, seed):
    ramp = torch.arange(128, dtype=torch.uint8)
    images = torch.stack(
        [ramp.expand(128, 128), ramp[:, None].expand(128, 128), torch.zeros(128, 128, dtype=torch.uint8)]
    )[None].repeat(8, 1, 1, 1)
    views = global_crop(
        images, Recipe(crop="random_resized", crop_area=(least, most), crop_aspect=1.5), seeded(seed), 128
    ).float()
    widths = views[:, 0].amax((1, 2)) - views[:, 0].amin((1, 2)) + 1
    heights = views[:, 1].amax((1, 2)) - views[:, 1].amin((1, 2)) + 1
    areas, ratios = widths * heights / 128**2, widths / heights
    assert (areas <= most + 0.03).all() and (
        areas >= least * 0.8 - 0.03
    ).all()  # a side that is cut at the edge makes less of it
    assert (ratios < 1.5 * 1.15).all() and (ratios > 1 / 1.5 / 1.15).all()


def test_local_crops_stand_crop_after_crop():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 32, 32) * 10
    local = augment(images, Recipe(crop="none", flip=0, local_crops=3), seeded(), 32)[1]
    assert local[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40] * 3
    assert local.shape[-1] == Recipe().local_size(32) == 16 and Recipe().local_size(224) == 96


def test_flips_come_with_their_probability():
    images = random_images(400, 4)
    assert torch.equal(flip(images, 1, seeded()), images.flip(3)) and torch.equal(flip(images, 0, seeded()), images)
    mirrored = (flip(images, 0.5, seeded()) == images.flip(3)).flatten(1).all(1).sum()
    assert 160 < mirrored < 240


def test_jitter_without_strength_changes_nothing_and_gray_has_equal_channels():
    images = random_images(6)
    assert torch.equal(jitter_and_gray(images, (0, 0, 0, 0), 1, 0, seeded()), images)
    grey = jitter_and_gray(images, (0.4, 0.4, 0.2, 0.1), 0.8, 1, seeded()).int()
    assert (grey.amax(1) - grey.amin(1)).max() <= 1


def test_each_part_of_the_jitter_does_its_own():
    flat = torch.full((50, 3, 4, 4), 100, dtype=torch.uint8)
    bright = jitter_and_gray(flat, (0.4, 0, 0, 0), 1, 0, seeded()).float()[:, 0, 0, 0]
    assert 60 <= bright.min() < 75 and 125 < bright.max() <= 140
    assert jitter_and_gray(flat, (1.5, 0, 0, 0), 1, 0, seeded()).float().max() > 215  # up to 2.5 times as bright
    assert torch.equal(
        jitter_and_gray(flat, (0, 0.4, 0.2, 0.5), 1, 0, seeded()), flat
    )  # gray has no contrast, saturation or hue
    half = torch.tensor([50, 150], dtype=torch.uint8).repeat(2)[None, None, None].expand(20, 3, 4, 4).contiguous()
    contrast = jitter_and_gray(half, (0, 0.4, 0, 0), 1, 0, seeded()).float()
    assert (contrast.mean((1, 2, 3)) - 100).abs().max() < 1 and contrast.std((1, 2, 3)).std() > 1
    red = torch.tensor([150, 60, 60], dtype=torch.uint8)[None, :, None, None].expand(30, 3, 4, 4).contiguous()
    turned = jitter_and_gray(red, (0, 0, 0, 0.1), 1, 0, seeded()).float()[:, :, 0, 0]
    light = turned @ torch.tensor([0.299, 0.587, 0.114])
    assert (light - light.mean()).abs().max() < 2 and turned[:, 1].std() > 5


def test_a_blur_keeps_the_light_and_takes_detail():
    images = random_images(8, 64)
    blurred = blur(images, 1, (0.1, 2.0), seeded()).float()
    assert (blurred.mean((1, 2, 3)) - images.float().mean((1, 2, 3))).abs().max() < 1
    assert (
        blurred.std((1, 2, 3)) <= images.float().std((1, 2, 3)) + 0.5
    ).all() and blurred.std() < images.float().std() - 2
    assert torch.equal(blur(images, 0, (0.1, 2.0), seeded()), images)
    wide, narrow = (blur(images, 1, sigma, seeded()).float().std() for sigma in ((3.0, 4.0), (0.2, 0.3)))
    assert wide < narrow


def test_solarize_inverts_the_light_half():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16).contiguous()
    assert solarize(images, 1, seeded())[0, 0].flatten().tolist() == [
        value if value < 128 else 255 - value for value in range(256)
    ]


@given(st.integers(0, 30), st.integers(0, 100))
def test_operations_in_a_batch_do_what_they_do_alone(magnitude, seed):
    operations, images = strengths(magnitude), random_images(28, 16)
    assert {name for name, _ in operations} == set(OPERATIONS)
    choices = torch.randperm(len(operations), generator=seeded(seed))
    together = apply_in_groups(images, choices, operations)
    for i in range(28):
        name, strength = operations[int(choices[i])]
        assert torch.equal(together[i : i + 1], OPERATIONS[name](images[i : i + 1], strength)), name


def test_pixmix_mixes_some_and_leaves_some():
    images = torch.full(
        (64, 3, 32, 32), 90, dtype=torch.uint8
    )  # every operation but solarize and posterize leaves a flat image flat
    mixed = augment(images, Recipe(crop="none", flip=0, pixmix_rounds=4), seeded(), 32, MIXING)[0].float()
    has_detail = mixed[:, :, 4:-4, 4:-4].std((2, 3)).amax(1) > 1
    assert 16 < has_detail.sum() < 60
    weak, strong = (
        augment(images, Recipe(crop="none", flip=0, pixmix_rounds=4, pixmix_beta=b), seeded(), 32, MIXING)[0].float()
        for b in (100, 1)
    )
    assert (weak - 90).abs().mean() < (strong - 90).abs().mean()


def test_fractals_repeat_and_are_neither_black_nor_alike():
    first, again, other = fractals(40, 32, 0), fractals(40, 32, 0), fractals(40, 32, 1)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (40, 3, 32, 32) and first.dtype == np.uint8
    assert (first.std((1, 2, 3)) > 5).all() and (first.max((1, 2, 3)) > 60).all()
    flat = first.reshape(40, -1).astype(float)
    assert np.corrcoef(flat)[np.triu_indices(40, 1)].max() < 0.95
