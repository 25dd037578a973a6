"""Storage roots, and clones that somebody changed by hand."""

import json
import os
import shutil

from odd_inputs.doing import HERE, planned, put
from odd_inputs.row import accepted, refused
from plans import TABLE
from stand_in import StandIn, actor_of, job_of

from raysd.clone.export import export_clone
from raysd.clone.scan import check_shards, missing_shards
from raysd.clone.verify import find_problem
from raysd.storage.location import Location

FIRST, SECOND = "data/train-000000.parquet", "data/train-000001.parquet"


def stored(root, files=None):
    """Plan a clone in a storage root, and check that it can be written."""

    def do(folder):
        made = planned(files, storage=root)(folder)
        made.clone.folder.check_writable()
        return made

    return do


def clone(damage, look=missing_shards):
    """Make a clone of two shards, change its folder, and look at it."""

    def do(folder):
        job = job_of(folder / "clone", image_size=8)
        for shard in range(job.num_shards):
            actor_of(job, StandIn()).generate_shard(job, shard)
        record = {"planned": [job.counts.to_json()], "complete": True, "num_classes": 10, "images_per_shard": 15}
        put(folder / "clone", {"clone.json": json.dumps(record)})
        damage(folder / "clone")
        return look(job)

    return do


def write(name, content):
    return lambda folder: put(folder, {name: content})


def change_record(**changes):
    def do(folder):
        record = json.loads((folder / "clone.json").read_text())
        put(folder, {"clone.json": json.dumps(record | changes)})

    return do


def remove(name):
    return lambda folder: (folder / name).unlink()


def rename(name, new):
    return lambda folder: (folder / name).rename(folder / new)


def tear(name, share=0.5):
    def do(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return do


def flip(name, place):
    def do(folder):
        data = bytearray((folder / name).read_bytes())
        data[place] ^= 0xFF
        (folder / name).write_bytes(bytes(data))

    return do


def copy(name, new):
    return lambda folder: shutil.copy(folder / name, folder / new)


def into_folder(name):
    def do(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return do


def into_link(name, target):
    def do(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return do


def are(*wanted):
    return lambda numbers: list(numbers) == list(wanted)


def broken(job):
    return check_shards(job).broken


def exported(out):
    return lambda job: export_clone(job, "imagefolder", str(Location(job.folder.path).child(out).path))


ROWS = [
    accepted(
        "blanks, signs and letters of other scripts",
        stored(f"{HERE}/a b/ü#?%41&c"),
        lambda made: "ü#?%41&c" in made.path,
    ),
    accepted("a slash at the end", stored(f"{HERE}/a//"), lambda made: "//" not in made.path),
    accepted("dots in the path", stored(f"{HERE}/a/../b/./c"), lambda made: ".." not in made.path),
    accepted(
        "a root within a clone's root", stored(f"{HERE}/a/clones/b"), lambda made: "a/clones/b/clones" in made.path
    ),
    accepted(
        "an address of a file",
        stored(f"file://{HERE}/a%20b"),
        lambda made: made.clone.folder.path.endswith(made.fingerprint),
    ),
    refused("a file for a folder", stored(f"{HERE}/a", {"a": "x"}), "storage", "is a file"),
    refused("a root below a file", stored(f"{HERE}/a/b", {"a": "x"}), "storage", "is a file"),
    refused(
        "a link to nothing", stored(f"{HERE}/a", {"a": lambda path: path.symlink_to("/proc/nothing/here")}), "storage"
    ),
    refused("a link to itself", stored(f"{HERE}/a", {"a": lambda path: path.symlink_to(path)}), "storage"),
    refused("a folder of the system that takes no files", stored("/proc/raysd"), "storage", "cannot be written"),
    refused("a device", stored("/dev/null"), "storage", "is a file"),
    refused("a name longer than names are", stored(f"{HERE}/{'x' * 300}"), "storage"),
    refused("a path longer than paths are", stored(f"{HERE}/" + "x/" * 3000), "storage"),
    refused(
        "a key within an address", stored("s3://key:secret@bucket/runs"), "storage", "credentials", "AWS_ACCESS_KEY_ID"
    ),
    refused("an address without a bucket", stored("s3://"), "storage = 's3://'", "no bucket"),
    refused("an address without a bucket, in capitals", stored("S3:///runs"), "storage", "no bucket"),
    refused("an address of the web", stored("https://example.org/runs"), "storage", "s3://"),
    refused("a name of the hub", stored("hf://datasets/owner/name"), "storage", "s3://"),
    refused("two addresses in one", stored("s3://s3://bucket"), "storage", "no bucket"),
    accepted("nothing changed", clone(lambda folder: None), are()),
    accepted("no record", clone(remove("clone.json")), are()),
    accepted("a record that is torn", clone(tear("clone.json")), are()),
    accepted("a record of no byte", clone(write("clone.json", b"")), are()),
    accepted("a record that is a list", clone(write("clone.json", "[]")), are()),
    accepted("a record that is no text", clone(write("clone.json", b"\xff\xfe\x00")), are()),
    accepted("a record with keys of a later version", clone(change_record(newer={"a": 1})), are()),
    accepted(
        "a record that plans other classes", clone(change_record(planned=[{"default": 3, "own": [[99, 5]]}])), are()
    ),
    accepted("a record that plans negative images", clone(change_record(planned=[{"default": -3, "own": []}])), are()),
    accepted(
        "a record with a shard size of 0",
        clone(change_record(images_per_shard=0), lambda job: _planned_again(job)),
        lambda size: size > 0,
    ),
    accepted(
        "a record that says it is whole, of nothing",
        clone(change_record(planned=[]), lambda job: job.is_complete()),
        lambda answer: answer is False,
    ),
    refused("a folder for a record", clone(into_folder("clone.json")), "clone.json"),
    accepted("a shard that is gone", clone(remove(FIRST)), are(0)),
    accepted("a shard that is cut off", clone(tear(FIRST)), are(0)),
    accepted("a shard of no byte", clone(write(FIRST, b"")), are(0)),
    accepted("a shard whose end is damaged", clone(flip(FIRST, -1)), are(0)),
    accepted("a shard whose footer is damaged", clone(flip(FIRST, -8), broken), are(0)),
    accepted(
        "a shard whose first page is damaged",
        clone(flip(FIRST, 200), lambda job: [find_problem(job, number) != "" for number in (0, 1)]),
        are(True, False),
    ),
    refused("a shard under another name", clone(rename(FIRST, "data/first.parquet")), "first.parquet", "no shard"),
    refused(
        "a shard with a letter in its number",
        clone(copy(FIRST, "data/train-00000a.parquet")),
        "train-00000a",
        "no shard",
    ),
    refused("a copy by hand", clone(copy(FIRST, "data/train-000000 (copy).parquet")), "(copy)", "no shard"),
    refused("a number of other digits", clone(copy(FIRST, "data/train-٠٠٠٠٠٠.parquet")), "no shard"),
    accepted(
        "one shard under the name of the other",
        clone(copy(FIRST, SECOND), lambda job: check_shards(job).broken),
        are(1),
    ),
    accepted("a shard beyond the plan", clone(copy(FIRST, "data/train-000007.parquet")), are()),
    accepted("files beside the shards", clone(write("data/.DS_Store", b"x")), are()),
    accepted("a text among the shards", clone(write("data/notes.txt", "x")), are()),
    refused(
        "a folder for a shard",
        clone(into_folder(FIRST), lambda job: actor_of(job, StandIn()).generate_shard(job, 0)),
        "train-000000.parquet",
        "is a folder",
    ),
    accepted("a link to a shard that is gone", clone(into_link(FIRST, "/nothing")), are(0)),
    accepted(
        "a data set card that is gone", clone(lambda folder: None, lambda job: job.is_complete()), lambda x: x is True
    ),
    refused("an export into the clone itself", clone(lambda folder: None, exported("data")), "out", "data"),
    refused("an export onto a file", clone(write("x", "x"), exported("x")), "x"),
]


def _planned_again(job):
    from raysd.clone.clone import plan_clone
    from raysd.clone.settings import GenerationSettings

    root = Location(str(job.folder.path).removesuffix("/clone"))
    os.makedirs(f"{root.path}/clones")
    os.rename(job.folder.path, f"{root.path}/clones/{job.spec.fingerprint}")
    assert len(TABLE) == 10
    return len(plan_clone(root, job.spec, GenerationSettings(images_per_class=3)).shard_sizes())
