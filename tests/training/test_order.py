import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysd.training.order import WorkerSequence, epoch_order, items_before, shuffled_items

SIZES = st.lists(st.integers(0, 700), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) >= 8)


def images(sequence, first, last):
    """(piece, row) of each item of a sequence."""
    found = []
    for part in sequence.parts(first, last):
        window = [(piece.piece, row) for piece in part.slices for row in range(piece.start, piece.stop)]
        found += [window[place] for place in part.chosen]
    return found


@given(SIZES, st.integers(1, 4), st.integers(0, 3), st.integers(0, 2))
def test_the_workers_share_an_epoch_and_no_image_comes_twice(sizes, world_size, seed, epoch):
    sequences = [WorkerSequence(np.array(sizes), 0, rank, world_size, seed) for rank in range(world_size)]
    per_epoch = sequences[0].per_epoch
    seen = [image for sequence in sequences for image in images(sequence, epoch * per_epoch, (epoch + 1) * per_epoch)]
    assert len(seen) == len(set(seen)) == sum(sizes) // world_size * world_size
    assert all(0 <= row < sizes[piece] for piece, row in seen)


@given(SIZES, st.integers(0, 1500), st.integers(0, 900), st.integers(0, 900))
def test_a_sequence_is_the_same_wherever_it_is_cut(sizes, first, more, rest):
    sequence = WorkerSequence(np.array(sizes), 0, 1, 2, 5)
    whole = images(sequence, first, first + more + rest)
    assert whole == images(sequence, first, first + more) + images(sequence, first + more, first + more + rest)
    assert len(whole) == more + rest


@given(SIZES, st.integers(1, 4), st.integers(1, 900), st.integers(0, 2))
def test_a_worker_reads_each_piece_once_an_epoch(sizes, world_size, window, epoch):
    for rank in range(world_size):
        sequence = WorkerSequence(np.array(sizes), 0, rank, world_size, 0, window)
        parts = list(sequence.parts(epoch * sequence.per_epoch, (epoch + 1) * sequence.per_epoch))
        pieces = [piece.piece for part in parts for piece in part.slices]
        assert len(pieces) == len(set(pieces))
        assert all(len(part.chosen) < window + max(sizes) for part in parts)


def test_images_of_a_window_are_mixed_and_epochs_differ():
    sequence = WorkerSequence(np.full(20, 256), 0, 0, 1, 0)
    first, second = images(sequence, 0, 5120), images(sequence, 5120, 10240)
    assert sorted(first) == sorted(second) and first != second
    assert len({piece for piece, _ in first[:32]}) > 4


@given(st.integers(1, 64), st.integers(0, 300), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_each_step_takes_the_whole_batch_and_shares_stay_exact(batch_size, step, weights):
    shares = tuple(weight / sum(weights) for weight in weights)
    before, after = items_before(step, batch_size, shares), items_before(step + 1, batch_size, shares)
    assert sum(before) == step * batch_size and sum(after) - sum(before) == batch_size
    assert all(abs(count - share * step * batch_size) <= 1 for count, share in zip(before, shares, strict=True))
    if min(shares) * batch_size >= 2:
        assert all(later >= earlier for earlier, later in zip(before, after, strict=True))


@given(st.integers(1, 50), st.integers(0, 120), st.integers(0, 60), st.integers(0, 3))
def test_an_endless_sequence_is_epoch_after_epoch(num_items, first, more, seed):
    endless = np.concatenate(
        [epoch_order(num_items, epoch, seed, 1) for epoch in range((first + more) // num_items + 1)]
    )
    assert shuffled_items(first, first + more, num_items, seed, 1).tolist() == endless[first : first + more].tolist()


def test_epochs_and_pools_differ_and_repeat():
    assert np.array_equal(epoch_order(50, 3, 1), epoch_order(50, 3, 1))
    assert not np.array_equal(epoch_order(50, 3, 1), epoch_order(50, 4, 1))
    assert not np.array_equal(epoch_order(50, 3, 1, 1), epoch_order(50, 3, 1))
