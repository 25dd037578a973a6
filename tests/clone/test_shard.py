import numpy as np
import pyarrow.parquet as pq
import pytest
from test_plan import SPEC

from raysd.clone.plan import Plan
from raysd.clone.shard import DATA, DrawnImage, count_rows, encode_image, missing_shards, read_shard, shard_name, shard_table, write_shard
from raysd.storage.location import Location


def drawn(plan, positions):
    rng = np.random.default_rng(0)
    return [DrawnImage(plan.image(p), encode_image(rng.integers(0, 255, (8, 8), dtype=np.uint8), "png"), "") for p in positions]


@pytest.fixture
def clone(tmp_path):
    plan, folder = Plan(SPEC, 5, 16), Location(str(tmp_path))
    for shard in range(plan.num_shards):
        write_shard(folder, shard, shard_table(SPEC, drawn(plan, plan.shard_range(shard))))
    return plan, folder, tmp_path / DATA


def test_a_whole_clone_misses_nothing(clone):
    plan, folder, _ = clone
    assert missing_shards(folder, plan) == []
    assert read_shard(folder, 3)["index"].to_pylist() == [4, 4]


def test_absent_torn_empty_and_short_shards_are_missing(clone):
    plan, folder, data = clone
    (data / shard_name(0)).unlink()
    torn = (data / shard_name(1)).read_bytes()
    (data / shard_name(1)).write_bytes(torn[: len(torn) // 2])
    (data / shard_name(2)).write_bytes(b"")
    write_shard(folder, 3, shard_table(SPEC, drawn(plan, range(48, 49))))
    assert missing_shards(folder, plan) == [0, 1, 2, 3]
    assert count_rows(folder, 1) == 0


def test_a_foreign_file_changes_nothing(clone):
    plan, folder, data = clone
    (data / "notes.txt").write_text("hello")
    (data / "train-999999.parquet").write_bytes(b"no parquet")
    assert missing_shards(folder, plan) == []


def test_the_same_rows_give_the_same_bytes(clone, tmp_path):
    plan, _, data = clone
    other = Location(str(tmp_path / "other"))
    write_shard(other, 0, shard_table(SPEC, drawn(plan, plan.shard_range(0))))
    assert (tmp_path / "other" / DATA / shard_name(0)).read_bytes() == (data / shard_name(0)).read_bytes()


def test_hostile_keys_never_become_paths(clone):
    _, folder, _ = clone
    paths = [image["path"] for image in read_shard(folder, 0)["image"].to_pylist()]
    assert all(path.replace("-", "").replace(".png", "").isdigit() for path in paths)


def test_hugging_face_opens_a_clone_with_pictures_and_class_names(clone):
    datasets = pytest.importorskip("datasets")
    plan, _, data = clone
    loaded = datasets.load_dataset("parquet", data_files=str(data / "*.parquet"), split="train", cache_dir=str(data.parent / "cache"))
    assert loaded.num_rows == len(plan)
    assert loaded.features["label"].names == SPEC.table.names
    assert loaded[0]["image"].size == (8, 8)
    assert loaded[7]["prompt"] == "sneaker"


def test_row_groups_stay_small(tmp_path):
    plan, folder = Plan(SPEC, 60, 600), Location(str(tmp_path))
    write_shard(folder, 0, shard_table(SPEC, drawn(plan, range(600))))
    assert pq.ParquetFile(tmp_path / DATA / shard_name(0)).num_row_groups == 3
