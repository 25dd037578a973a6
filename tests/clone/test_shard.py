import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import SPEC, TABLE, plan_of, spec_of

from raysd.clone.clone import Clone
from raysd.clone.plan import ImageCounts, Plan, counts_from_array
from raysd.clone.scan import check_shards, missing_shards
from raysd.clone.shard import (
    DATA,
    GeneratedImage,
    Shard,
    add_to_shard,
    encode_image,
    merge_shards,
    read_shard,
    shard_name,
    shard_table,
    write_shard,
)
from raysd.errors import UserError
from raysd.storage.location import Location


def content(plan, positions, flags=(), dropped=None):
    rng = np.random.default_rng(0)
    flags = dict(flags)
    images = [
        GeneratedImage(
            plan.image(p), encode_image(rng.integers(0, 255, (8, 8), dtype=np.uint8), "png"), flags.get(p, "")
        )
        for p in positions
    ]
    return Shard(shard_table(plan.spec, images), dropped or {})


def write(job, shard, **changes):
    write_shard(
        job.folder,
        shard,
        content(job, changes.pop("positions", job.positions(shard).tolist()), **changes),
        job.spec,
    )


def record(job, *counts, complete=False):
    planned = [ImageCounts(len(TABLE), count).to_json() for count in counts]
    job.folder.write("clone.json", json.dumps({"planned": planned, "complete": complete}).encode())


@pytest.fixture
def clone(tmp_path):
    job = Clone.of(plan_of(5, 16), Location(str(tmp_path)))
    for shard in range(job.num_shards):
        write(job, shard)
    record(job, 5)
    return job, tmp_path / DATA


def test_a_whole_clone_misses_nothing(clone):
    job, _ = clone
    assert missing_shards(job).tolist() == []
    assert read_shard(job.folder, 3, SPEC).table["index"].to_pylist() == [4, 4]
    findings = check_shards(job)
    assert (findings.broken, findings.num_images, findings.num_flagged, findings.num_dropped) == ([], 50, 0, 0)


def test_absent_torn_and_empty_shards_are_missing(clone):
    job, data = clone
    (data / shard_name(0)).unlink()
    torn = (data / shard_name(1)).read_bytes()
    (data / shard_name(1)).write_bytes(torn[: len(torn) // 2])
    (data / shard_name(2)).write_bytes(b"")
    assert missing_shards(job).tolist() == [0, 1, 2]
    assert check_shards(job).broken == [0, 1, 2]


@given(st.data())
def test_a_shard_cut_anywhere_is_missing(tmp_path_factory, data):
    job = Clone.of(plan_of(2, 20), Location(str(tmp_path_factory.mktemp("cut"))))
    write(job, 0)
    record(job, 2)
    path = job.folder.child(DATA).file(shard_name(0))
    with open(path, "r+b") as file:
        file.truncate(data.draw(st.integers(0, file.seek(0, 2) - 1)))
    assert missing_shards(job).tolist() == [0] or check_shards(job).broken == [0]


def test_a_shard_of_another_clone_under_the_right_name_is_found(clone, tmp_path):
    job, _ = clone
    other = spec_of(guidance_scale=7.5)
    write_shard(job.folder, 1, content(plan_of(5, 16, other), range(16, 32)), other)
    assert check_shards(job).broken == [1]


def test_a_short_and_a_doubled_shard_are_found_when_read_back(clone):
    job, _ = clone
    write(job, 3, positions=[48])
    write(job, 0, positions=[*range(16), 3])
    assert check_shards(job).broken == [0, 3]


def test_only_shards_that_an_earlier_plan_cut_are_opened(clone, monkeypatch):
    small, _ = clone
    large = Clone.of(plan_of(100, 16), small.folder)
    opened = []
    monkeypatch.setattr(
        "raysd.clone.scan.read_shard",
        lambda folder, number, *rest: opened.append(number) or read_shard(folder, number, *rest),
    )
    assert missing_shards(large).tolist() == list(range(3, large.num_shards))
    assert opened == [3]


def test_without_a_record_every_shard_is_opened(clone, monkeypatch):
    job, _ = clone
    job.folder.delete("clone.json")
    opened = []
    monkeypatch.setattr(
        "raysd.clone.scan.read_shard",
        lambda folder, number, *rest: opened.append(number) or read_shard(folder, number, *rest),
    )
    assert missing_shards(job).tolist() == [] and opened == [0, 1, 2, 3]


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=len(TABLE), max_size=len(TABLE)), min_size=1, max_size=4),
    st.integers(3, 40),
)
def test_the_scan_finds_every_short_shard_whatever_the_runs_before(tmp_path_factory, runs, images_per_shard):
    """Each run writes some of its shards, as if it had been killed; then the last plan is scanned."""
    folder = Location(str(tmp_path_factory.mktemp("runs")))
    counts = [counts_from_array(np.array(run)) for run in runs]
    rng = np.random.default_rng(sum(map(sum, runs)))
    for number, count in enumerate(counts[:-1]):
        job = Clone.of(Plan(SPEC, count, images_per_shard), folder)
        folder.write(
            "clone.json", json.dumps({"planned": [value.to_json() for value in counts[: number + 1]]}).encode()
        )
        for shard in missing_shards(job).tolist():
            if rng.random() < 0.6:
                add_to_shard(folder, job, shard, content(job, job.positions(shard).tolist()))
    last = Clone.of(Plan(SPEC, counts[-1], images_per_shard), folder)
    missing = missing_shards(last).tolist()
    for shard in np.flatnonzero(last.shard_sizes()).tolist():
        found = read_shard(folder, shard, SPEC)
        covered = set() if found is None else set(found.covered(len(TABLE)).tolist())
        assert (shard in missing) == (not set(last.positions(shard).tolist()) <= covered)


def test_dropped_images_count_as_covered_and_their_classes_as_short(clone):
    job, _ = clone
    write(
        job,
        1,
        positions=[p for p in range(16, 32) if p not in (17, 27)],
        flags={20: "unsafe"},
        dropped={17: "black", 27: "nan"},
    )
    assert missing_shards(job).tolist() == []
    findings = check_shards(job)
    assert (findings.broken, findings.num_images, findings.num_flagged, findings.num_dropped) == ([], 48, 1, 2)
    assert findings.short_classes(TABLE.keys) == {TABLE.keys[7]: 2}


def test_a_foreign_image_file_is_refused_by_name_and_other_files_are_not_looked_at(clone):
    job, data = clone
    (data / "notes.txt").write_text("hello")
    assert missing_shards(job).tolist() == []
    (data / "more.parquet").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"more\.parquet': is no shard of this clone"):
        missing_shards(job)


def test_the_same_rows_give_the_same_bytes(clone, tmp_path):
    job, data = clone
    other = Clone.of(job, Location(str(tmp_path / "other")))
    write(other, 0)
    assert (tmp_path / "other" / DATA / shard_name(0)).read_bytes() == (data / shard_name(0)).read_bytes()


def test_hostile_keys_never_become_paths(clone):
    job, _ = clone
    paths = [image["path"] for image in read_shard(job.folder, 0, SPEC).table["image"].to_pylist()]
    assert all(path.replace("-", "").replace(".png", "").isdigit() for path in paths)


def test_hugging_face_opens_a_clone_with_images_and_class_names(clone):
    datasets = pytest.importorskip("datasets")
    job, data = clone
    loaded = datasets.load_dataset(
        "parquet", data_files=str(data / "*.parquet"), split="train", cache_dir=str(data.parent / "cache")
    )
    assert loaded.num_rows == len(job)
    assert loaded.features["label"].names == SPEC.table.names
    assert loaded[0]["image"].size == (8, 8)
    assert loaded[7]["prompt"] == "sneaker"


def test_row_groups_stay_small(tmp_path):
    write(Clone.of(plan_of(60, 600), Location(str(tmp_path))), 0)
    assert pq.ParquetFile(tmp_path / DATA / shard_name(0)).num_row_groups == 3


def test_images_of_a_merged_shard_stand_in_plan_order(clone):
    job, _ = clone
    merged = merge_shards(content(job, [1, 5, 9]), content(job, [0, 2, 7], dropped={3: "black"}), len(TABLE))
    assert merged.covered(len(TABLE)).tolist() == [0, 1, 2, 3, 5, 7, 9]
    assert (merged.table["index"].to_numpy() * len(TABLE) + merged.table["label"].to_numpy()).tolist() == [
        0,
        1,
        2,
        5,
        7,
        9,
    ]


def test_a_hundred_thousand_shards_are_scanned_without_opening_one(tmp_path, monkeypatch):
    job = Clone.of(plan_of(10_000_000, 256), Location(str(tmp_path)))
    (tmp_path / DATA).mkdir()
    record(job, 10_000_000)
    monkeypatch.setattr("raysd.clone.scan._has_end", lambda path: True)
    monkeypatch.setattr(Location, "list_sizes", lambda *_: {shard_name(number): 9_999 for number in range(100_000)})
    monkeypatch.setattr("raysd.clone.scan.read_shard", lambda *_: pytest.fail("a shard was opened"))
    assert len(missing_shards(job)) == 290_625


def test_webp_and_jpeg_can_be_read_back():
    import io

    from PIL import Image

    pixels = np.full((64, 64, 3), 130, dtype=np.uint8)
    for codec in ("png", "jpeg", "webp"):
        with Image.open(io.BytesIO(encode_image(pixels, codec))) as image:
            assert image.format.lower() == codec and image.size == (64, 64)
