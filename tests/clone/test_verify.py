import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from stand_in import StandIn, actor_of, job_of

from raysd.clone.export import RECORD, _claim, export_clone, folder_names
from raysd.clone.record import with_earlier
from raysd.clone.scan import check_shards, missing_shards
from raysd.clone.shard import Shard, read_shard, shard_name, write_shard
from raysd.clone.verify import find_problem, mend_shards
from raysd.errors import UserError
from raysd.storage.location import Location


@pytest.fixture
def clone(tmp_path):
    """A whole clone of 8 px images, in two shards."""
    job = job_of(tmp_path / "clone", image_size=8)
    for shard in range(job.num_shards):
        actor_of(job, StandIn({3: 1})).generate_shard(job, shard)
    record = {"planned": [job.counts.to_json()], "complete": True, "num_classes": 10, "images_per_shard": 15}
    job.folder.write("clone.json", json.dumps(record).encode())
    return job


def change(job, number, **columns):
    """Write a shard again with other values in the row 2."""
    table = read_shard(job.folder, number, job.spec).table
    rows = table.to_pylist()
    rows[2] |= columns
    import pyarrow as pa

    write_shard(job.folder, number, Shard(pa.Table.from_pylist(rows, schema=table.schema)), job.spec)


def test_a_whole_clone_has_no_problem(clone):
    assert [find_problem(clone, shard) for shard in range(2)] == ["", ""]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"sha256": "0" * 64}, "does not match its hash"),
        ({"prompt": "cat"}, "has another prompt than planned"),
        ({"seed": 7}, "has another seed than planned"),
        ({"key": "cat"}, "has another key than planned"),
        ({"label": 1}, "holds an image twice, or one of another shard"),
        ({"index": 9}, "holds an image twice, or one of another shard"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(clone, columns, problem):
    change(clone, 1, **columns)
    assert problem in find_problem(clone, 1) and find_problem(clone, 0) == ""


def test_images_that_cannot_be_decoded_or_have_another_size_are_found(clone):
    import hashlib

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (9, 9)).save(buffer, "PNG")
    for data, problem in ((b"no image", "cannot be decoded"), (buffer.getvalue(), "is 9 x 9 px")):
        change(clone, 0, image={"bytes": data, "path": "x.png"}, sha256=hashlib.sha256(data).hexdigest())
        assert problem in find_problem(clone, 0)


def test_a_flipped_bit_anywhere_in_an_image_is_found(clone):
    path = Path(clone.folder.child("data").file(shard_name(0)))
    first = read_shard(clone.folder, 0, clone.spec).table["image"][4].as_py()["bytes"]
    data = bytearray(path.read_bytes())
    data[data.find(first) + len(first) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert check_shards(clone).broken == [] and "does not match its hash" in find_problem(clone, 0)
    mend_shards(clone, [0, 1])
    assert not find_problem(clone, 1) and find_problem(clone, 0) == "lacks 1 planned images"  # what is whole stays
    path.write_bytes(data[:-9])
    mend_shards(clone, [0])
    assert find_problem(clone, 0) == "lacks 15 planned images" and missing_shards(clone).tolist() == [0]


def test_a_repair_begins_by_calling_the_clone_incomplete(clone):
    assert clone.is_complete()
    mend_shards(clone, [])
    assert not clone.is_complete() and clone.read_record().planned == (clone.counts.to_json(),)


def test_a_smaller_plan_is_verified_with_all_that_the_record_calls_complete(clone, tmp_path):
    small = job_of(tmp_path / "clone", 1, image_size=8)
    assert with_earlier(small).counts == clone.counts
    assert mend_shards(with_earlier(small), [1]).counts == clone.counts  # and also if this run is killed now
    assert with_earlier(small).counts == clone.counts


def test_an_image_folder_has_one_folder_per_class_and_says_prompts_and_seeds(clone, tmp_path):
    import datasets
    from torchvision.datasets import ImageFolder

    out = str(tmp_path / "out")
    assert export_clone(clone, "imagefolder", out) == 30
    folder = ImageFolder(out)
    assert len(folder) == 30 and folder.classes[:2] == ["T-shirt", "ankle_boot"]
    rows = datasets.load_dataset("imagefolder", data_dir=out, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 30
    for row in rows:
        image = clone.image(row["index"] * 10 + row["label"])
        assert (row["prompt"], row["seed"]) == (image.prompt, image.seed) or row["redraws"]
        assert (row["class_name"], row["key"]) == (
            clone.spec.table.names[row["label"]],
            clone.spec.table.keys[row["label"]],
        )
    table = pq.read_table(clone.folder.child("data").file("train-000000.parquet")).to_pylist()
    stored = {row["seed"]: row["image"]["bytes"] for row in table}
    lines = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    same = [(tmp_path / "out" / line["file_name"]).read_bytes() == stored[line["seed"]] for line in lines[:15]]
    assert len(lines) == 30 and all(same)


def test_an_image_folder_is_synced_once_and_not_for_each_image(clone, tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "sync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, original=original: events.append(name) or original(*args)
        )
    export_clone(clone, "imagefolder", str(tmp_path / "out"))
    assert events.count("fsync") <= 2  # the probe whether the folder can be written to, and its folder
    assert events.count("replace") == 33 and events[-1] == "sync" and events.count("sync") == 1


def test_an_export_that_was_killed_leaves_whole_images_and_is_made_whole_by_the_same_command(
    clone, tmp_path, monkeypatch
):
    from PIL import Image

    out, left, original = tmp_path / "out", [20], os.replace

    def replace_some(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        original(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace_some)
        export_clone(clone, "imagefolder", str(out))
    files = list(out.rglob("*.png"))
    assert len(files) == 18 and all(np.asarray(Image.open(file)).shape == (8, 8) for file in files)
    partial = out / "dress" / ".0000000.png.1234.tmp"  # as a killed process leaves it
    partial.write_bytes(b"")
    os.utime(partial, (0, 0))
    assert export_clone(clone, "imagefolder", str(out)) == 30
    assert len(list(out.rglob("*.png"))) == 30 and not partial.exists()


def test_a_webdataset_holds_image_label_and_prompt(clone, tmp_path):
    assert export_clone(clone, "webdataset", str(tmp_path / "out")) == 30
    assert sorted(os.listdir(tmp_path / "out")) == [RECORD, "train-000000.tar", "train-000001.tar"]
    with tarfile.open(tmp_path / "out" / "train-000001.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    name = "00005-0000001"
    assert members[f"{name}.cls"] == b"5" and json.loads(members[f"{name}.json"])["prompt"] == "sandal"
    assert members[f"{name}.png"].startswith(b"\x89PNG") and len(members) == 45


def test_a_folder_that_holds_something_else_is_refused_and_stays_as_it_is(clone, tmp_path):
    from dataclasses import replace

    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("a")
    with pytest.raises(UserError, match=r"out = .*: is not empty and holds no export; choose an empty folder"):
        export_clone(clone, "imagefolder", str(out))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    assert export_clone(clone, "imagefolder", str(out)) == 30
    before = sorted(path.name for path in out.rglob("*"))
    other = replace(clone, spec=replace(clone.spec, seed=clone.spec.seed + 1))
    for different, form, message in (
        (other, "imagefolder", f"holds clone {clone.spec.fingerprint} as imagefolder"),
        (clone, "webdataset", "as imagefolder; choose an empty folder"),
        (
            clone.with_counts(replace(clone.counts, default=2)),
            "imagefolder",
            "earlier export of this clone with more images",
        ),
    ):
        with pytest.raises(UserError, match=message):
            _claim(Location(str(out)), different, form, False)
    assert sorted(path.name for path in out.rglob("*")) == before


def test_class_names_with_paths_in_them_stay_inside_the_export():
    names = ["../../etc/passwd", "a/b\\c d", "..", "A B c D", "a b c d", "", "con", "é" * 300, "e\u0301" * 300, "日本"]
    folders = folder_names(names)
    assert folders[:7] == ["etc_passwd", "a_b_c_d", "class", "A_B_c_D_3", "a_b_c_d_4", "class_5", "con_6"]
    assert folders[9] == "日本" and len({folder.lower() for folder in folders}) == len(names)
    assert not [folder for folder in folders if len(folder.encode()) > 255 or "/" in folder or folder.startswith(".")]


def test_an_export_of_an_incomplete_clone_is_refused(clone, tmp_path):
    clone.folder.delete("clone.json")
    with pytest.raises(UserError, match="the clone is not complete"):
        export_clone(clone, "webdataset", str(tmp_path / "out"))


@pytest.mark.slow
def test_verify_repairs_and_grow_generates_what_is_missing_to_its_target(tmp_path, run_here, ray_cluster):
    words = [
        f"storage={tmp_path}",
        "generation.model=dummy",
        "generation.images_per_class=4",
        "generation.images_per_shard=20",
        "generation.num_actors=1",
    ]
    assert run_here("generate", *words).returncode == 0
    (path,) = tmp_path.glob("clones/*/data/train-000001.parquet")
    data = bytearray(path.read_bytes())
    before, middle = bytes(data), data.find(b"IDAT") + 30
    data[middle] ^= 255
    path.write_bytes(bytes(data))
    broken = run_here("verify", *words)
    assert broken.returncode == 1 and "shard 1: image" in broken.stdout, broken.stderr
    repaired = run_here("verify", *words, "--repair")
    assert repaired.returncode == 0 and "all 40 planned images are as they should be" in repaired.stdout
    assert path.read_bytes() == before
    grown = run_here("grow", *words, "--to", "6", "--classes", "dress,bag")
    assert "44 images, 4 generated now" in grown.stdout, grown.stderr
    assert "44 images, 0 generated now" in run_here("grow", *words, "--to", "6", "--classes", "dress,bag").stdout
    assert sum(pq.read_metadata(shard).num_rows for shard in path.parent.glob("*.parquet")) == 44
    refused = run_here("grow", *words, "--to", "6", "--classes", "hat")
    assert refused.returncode == 2 and "classes = 'hat': is no key of the class table" in refused.stderr
