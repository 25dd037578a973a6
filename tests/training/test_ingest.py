import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysd.training.augment import augment
from raysd.training.ingest import memory_batches
from raysd.training.pictures import PictureArrays
from raysd.training.schedule import cosine_factor, epoch_order
from raysd.training.recipe import Recipe


def arrays_of(count):
    images = np.zeros((count, 3, 2, 2), dtype=np.uint8)
    return PictureArrays(images, np.arange(count, dtype=np.int64), np.arange(count, dtype=np.int64))


@given(st.integers(8, 60), st.sampled_from([1, 2, 4]), st.integers(0, 5))
def test_the_workers_share_each_batch_and_an_epoch_has_no_picture_twice(count, world_size, seed):
    per_epoch = count // 8
    shares = [list(memory_batches(arrays_of(count), 0, per_epoch, per_epoch, 8, rank, world_size, seed)) for rank in range(world_size)]
    seen = np.concatenate([labels.numpy() for share in shares for _, labels in share])
    assert len(seen) == len(set(seen.tolist())) == per_epoch * 8


@given(st.integers(0, 11), st.integers(0, 5))
def test_a_resumed_run_sees_the_batches_of_an_undisturbed_one(first_step, seed):
    whole = [labels.tolist() for _, labels in memory_batches(arrays_of(33), 0, 12, 4, 8, 1, 2, seed)]
    rest = [labels.tolist() for _, labels in memory_batches(arrays_of(33), first_step, 12, 4, 8, 1, 2, seed)]
    assert rest == whole[first_step:]


def test_epochs_differ_and_repeat():
    assert np.array_equal(epoch_order(50, 3, 1), epoch_order(50, 3, 1))
    assert not np.array_equal(epoch_order(50, 3, 1), epoch_order(50, 4, 1))


def test_parts_are_put_back_into_their_order():
    parts = [arrays_of(6), arrays_of(6)]
    shuffled = [PictureArrays(p.images[::-1], p.labels[::-1], p.order[::-1] + 100 * i) for i, p in reversed(list(enumerate(parts)))]
    assert PictureArrays.concatenate(shuffled).labels.tolist() == [*range(6), *range(6)]


def test_augmentation_repeats_with_its_generator_and_keeps_shape_and_type():
    images = torch.randint(0, 255, (16, 3, 32, 32), dtype=torch.uint8)
    for crop in ("shift", "random_resized", "none"):
        recipe = Recipe(crop=crop)
        first = augment(images, recipe, torch.Generator().manual_seed(1))
        assert torch.equal(first, augment(images, recipe, torch.Generator().manual_seed(1)))
        assert not torch.equal(first, augment(images, recipe, torch.Generator().manual_seed(2)))
        assert first.shape == images.shape and first.dtype == torch.uint8


def test_a_shift_moves_pictures_by_at_most_a_sixteenth():
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    images[:, :, 16, 16] = 255
    shifted = augment(images, Recipe(crop="shift", flip=False), torch.Generator().manual_seed(0))
    places = shifted[:, 0].nonzero()
    assert set(places[:, 1].tolist()) == set(places[:, 2].tolist()) == {14, 15, 16, 17, 18}


def test_no_augmentation_changes_nothing():
    images = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(augment(images, Recipe(crop="none", flip=False), torch.Generator()), images)


def test_the_rate_rises_then_falls_to_its_floor():
    factors = [cosine_factor(step, 100, 20) for step in range(101)]
    assert factors[19] == 1 and factors[0] == 0.05
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert abs(factors[100] - 0.01) < 1e-9
