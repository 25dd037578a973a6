"""Images are counted before the first step, without opening each file."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from object_store import FlakyProxy, s3_uri
from plans import plan_of

from raysd.clone.clone import Clone
from raysd.clone.scan import check_shards
from raysd.clone.shard import DATA, GeneratedImage, Shard, shard_name, shard_table, write_shard
from raysd.data.images import ImageSet, LeftOut
from raysd.resolve import clone_images
from raysd.storage.location import Location
from raysd.storage.row_index import NAME, IndexWriter, read_index
from raysd.training.loader import Pool

PER_SHARD = 5


def write(clone, number, positions=None, flags=()):
    positions = clone.positions(number).tolist() if positions is None else positions
    images = [GeneratedImage(clone.image(p), bytes(p % 7 + 1), dict(flags).get(p, "")) for p in positions]
    write_shard(clone.folder, number, Shard(shard_table(clone.spec, images)), clone.spec)


def clone_of(folder, num_shards):
    """A generated clone whose shards were read back."""
    clone = Clone.of(plan_of(num_shards * PER_SHARD // 10, PER_SHARD), folder)
    for number in range(num_shards):
        write(clone, number, flags={3: "black"})
    assert not check_shards(clone).broken
    return clone


def opened_files(monkeypatch):
    opened, real = [], ImageSet._open
    monkeypatch.setattr(ImageSet, "_open", lambda images, file: opened.append(file) or real(images, file))
    return opened


@pytest.mark.parametrize("is_old", [False, True])
def test_requests_before_the_first_step_do_not_grow_with_the_shards(s3_server, tmp_path, is_old):
    def requests(num_shards):
        folder = Location(s3_uri(proxy.port, "raysd")).child(tmp_path.name, str(num_shards))
        images = clone_images(clone_of(folder, num_shards))
        if is_old:  # a clone of version 0.1.0: its first training opens all shards
            images.folder.delete(NAME)
            assert len(Pool((images,))) == num_shards * PER_SHARD - 1
        before = len(proxy.requests)
        assert len(Pool((images,))) == num_shards * PER_SHARD - 1
        return proxy.requests[before:]

    proxy = FlakyProxy(s3_server, 0)
    few, many = requests(34), requests(50)
    assert len(few) == len(many) < 10
    proxy.stop()


def test_a_shard_that_changed_is_opened_again_and_no_other(tmp_path, monkeypatch):
    clone = clone_of(Location(str(tmp_path)), 40)
    opened = opened_files(monkeypatch)
    assert len(Pool((clone_images(clone),))) == 199 and not opened
    write(clone, 7, clone.positions(7).tolist()[1:])  # as a repair does
    assert len(Pool((clone_images(clone),))) == 198 and opened == [shard_name(7)]
    opened.clear()
    assert len(Pool((clone_images(clone),))) == 198 and not opened
    larger = Clone.of(plan_of(21, PER_SHARD), clone.folder)  # grown by two shards, not read back yet
    write(larger, 40), write(larger, 41)
    assert len(Pool((clone_images(larger),))) == 208 and opened == [shard_name(40), shard_name(41)]


@pytest.mark.parametrize("data", [None, b"", b"PAR1 torn PAR1"])
def test_a_lost_or_torn_index_costs_time_alone(tmp_path, monkeypatch, data):
    clone = clone_of(Location(str(tmp_path)), 40)
    index = clone.folder.child(DATA)
    index.delete(NAME) if data is None else index.write(NAME, data)
    opened = opened_files(monkeypatch)
    assert len(Pool((clone_images(clone),))) == 199 and len(opened) == 40
    assert len(Pool((clone_images(clone),))) == 199 and len(opened) == 40


def test_a_damaged_index_counts_nothing_wrong_and_is_written_anew(tmp_path):
    clone = clone_of(Location(str(tmp_path)), 40)
    folder, images = clone.folder.child(DATA), clone_images(clone)
    whole, true = folder.read(NAME), images.row_group_counts()
    for place in np.linspace(0, len(whole) - 1, 20).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        folder.write(NAME, bytes(damaged))
        assert images.row_group_counts() == true, place
        versions = folder.list_versions(".parquet")
        assert sum(len(part.names) for part in read_index(folder, versions)) == 40, place


def test_where_no_shard_is_whole_the_index_stays_as_it_is(tmp_path):
    clone = clone_of(Location(str(tmp_path)), 40)
    index = clone.folder.child(DATA).read(NAME)
    for number in range(40):
        write(clone, number, clone.positions(number).tolist()[1:])
    assert check_shards(clone).broken == list(range(40))
    assert clone.folder.child(DATA).read(NAME) == index


def test_an_index_says_what_the_files_say_for_each_choice_of_images(tmp_path):
    clone = clone_of(Location(str(tmp_path)), 40)
    folder = clone.folder.child(DATA)
    mask = np.random.default_rng(0).random(200) < 0.3
    choices = [
        ImageSet("all", "", folder),
        ImageSet("some", "", folder, 7),
        ImageSet("by class", "", folder, tuple(range(10))),
        ImageSet("last", "", folder, 4, from_end=True),
        ImageSet("classes", "", folder, label_map=(0, -1, 1, 2, 3, -1, 4, 5, 6, 7)),
        ImageSet("filtered", "", folder, left_out=LeftOut(10, np.packbits(mask).tobytes())),
    ]
    for images in choices:
        counts = images.row_group_counts()
        assert {file: sum(groups) for file, groups in counts.items()} == {
            file: int(images.kept_rows(file).sum()) for file in images.files()
        }, images.name
        assert list(counts) == images.files()


def test_each_row_group_is_counted(tmp_path):
    clone = clone_of(Location(str(tmp_path)), 40)
    folder = clone.folder.child(DATA)
    for name in folder.list_files():
        pq.write_table(pq.read_table(folder.file(name)), folder.file(name), row_group_size=2)
    first, again = (ImageSet("all", "", folder).row_group_counts() for _ in range(2))
    assert first == again and list(first.values())[:2] == [[2, 1, 1], [2, 2, 1]]


def test_two_drivers_keep_each_others_entries(tmp_path, monkeypatch):
    clone = clone_of(Location(str(tmp_path)), 40)
    folder = clone.folder.child(DATA)
    folder.delete(NAME)
    versions, images = folder.list_versions(), ImageSet("all", "", folder)
    for names in (folder.list_files()[:25], folder.list_files()[20:]):
        writer = IndexWriter(versions)
        for name in names:
            writer.add(name, *images._read_light(name))
        writer.write(folder)
    opened = opened_files(monkeypatch)
    assert len(images.row_group_counts()) == 40 and not opened
