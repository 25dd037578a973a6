"""What many files ask of a disk: python benchmarks/files.py --storage <an empty folder>

Two parts, without Ray, about five minutes on two cores:

- an ImageFolder of 4,000 images, against one that waits for the disk after each image;
- what is missing of the scores of 20,000 shards: with the counts that a run keeps, with the footers of all files, and
  with these read one after the other.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from statistics import median

import record

from raysd.clone.clone import plan_clone
from raysd.clone.export import ABOUT, METADATA, export_clone, folder_names
from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import DATA, class_labels, read_shard, shard_name
from raysd.clone.spec import resolve_clone_spec
from raysd.config import Experiment
from raysd.curation.part_counts import COUNTS, PartCounts
from raysd.generation.actor import GenerationActor
from raysd.generation.generate import generate_clones
from raysd.storage.location import Location
from raysd.storage.tables import num_rows

COMMAND = "python benchmarks/files.py"
REPEATS = 3
SIZE = 256  # pixels
GUIDANCE = 30.0  # of the model `dummy`: little noise, so that its JPEG files are as large as those of photos
NUM_IMAGES = 4_000
NUM_SHARDS = 20_000


def make_clone(folder, num_images):
    """A complete clone of the default experiment's classes."""
    settings = GenerationSettings(
        model="dummy",
        guidance_scale=GUIDANCE,
        num_inference_steps=1,
        images_per_class=num_images // 10,
        image_size=SIZE,
        color="rgb",
        codec="jpeg",
    )
    experiment = Experiment(generation=settings)
    job = plan_clone(
        Location(str(folder)), resolve_clone_spec(settings, experiment.table, experiment.all_variants), settings
    )
    actor = GenerationActor(job.spec, settings.batch_size, 1)
    generate_clones(
        [job],
        settings,
        generate=lambda jobs, shards: ({**actor.generate_shard(job, int(number)), "clone": 0} for number in shards[0]),
    )
    return job


def synced_export(job, folder):
    """Write an ImageFolder that waits for the disk after each image."""
    names, lines = class_labels(job.spec.table), []
    folders = folder_names(names)
    for shard in range(job.num_shards):
        for row in read_shard(job.folder, shard, job.spec).table.to_pylist():
            label, file = row["label"], f"{row['index']:07d}.jpg"
            Location(str(folder / folders[label])).write(file, row["image"]["bytes"])
            about = {"file_name": f"{folders[label]}/{file}", "label": label, "class_name": names[label]}
            lines.append(json.dumps(about | {column: row[column] for column in ABOUT}) + "\n")
    Location(str(folder)).write(METADATA, "".join(lines).encode())


def timed(function, *arguments):
    """Seconds that a call takes."""
    began = time.monotonic()
    function(*arguments)
    return time.monotonic() - began


def measure_export(root):
    job = make_clone(root, NUM_IMAGES)
    once, each = [], []
    for repeat in range(REPEATS):
        each.append(NUM_IMAGES / timed(synced_export, job, root / f"each{repeat}"))
        once.append(NUM_IMAGES / timed(export_clone, job, "imagefolder", str(root / f"once{repeat}")))
    ratios = [ours / theirs for ours, theirs in zip(once, each, strict=True)]
    about = f"ImageFolder of {NUM_IMAGES:,} images of {SIZE} px, local disk"
    return [
        record.metric(
            "export_images_per_second",
            median(once),
            "images/s",
            "higher",
            COMMAND,
            f"synced once in the end; {about}",
            once,
        ),
        record.metric(
            "synced_export_images_per_second",
            median(each),
            "images/s",
            "higher",
            COMMAND,
            f"file and folder synced for each image; {about}",
            each,
        ),
        record.metric(
            "export_speedup_vs_synced_images",
            median(ratios),
            "ratio",
            "higher",
            COMMAND,
            f"the two above, in turn; {about}",
            ratios,
        ),
    ]


def measure_score_scan(root):
    """Copies of one shard stand for the shards and for the parts of their score table."""
    job = make_clone(root / "one", 10)
    data, scores = Path(job.folder.child(DATA).path), job.folder.child("scores", "some")
    shard = (data / shard_name(0)).read_bytes()
    parts = Path(scores.path, "parts")
    parts.mkdir(parents=True)
    for number in range(NUM_SHARDS):
        for folder in (data, parts):
            (folder / shard_name(number)).write_bytes(shard)
    kept, footers, in_turn = [], [], []
    for _ in range(REPEATS):
        in_turn.append(timed(read_in_turn, job.folder.child(DATA), scores.child("parts")))
        footers.append(timed(look, job, scores))
        kept.append(timed(look, job, scores))
        scores.delete(COUNTS)
    ratios = [slow / fast for slow, fast in zip(in_turn, kept, strict=True)]
    about = f"{NUM_SHARDS:,} shards with scores, local disk"
    return [
        record.metric(
            "score_scan_seconds", median(kept), "s", "lower", COMMAND, f"by the counts that a run keeps; {about}", kept
        ),
        record.metric(
            "score_scan_seconds_footers",
            median(footers),
            "s",
            "lower",
            COMMAND,
            f"two footers a shard, 32 at a time; {about}",
            footers,
        ),
        record.metric(
            "score_scan_seconds_in_turn",
            median(in_turn),
            "s",
            "lower",
            COMMAND,
            f"two footers a shard, one after the other; {about}",
            in_turn,
        ),
        record.metric(
            "score_scan_speedup",
            median(ratios),
            "ratio",
            "higher",
            COMMAND,
            f"the first against the last, in turn; {about}",
            ratios,
        ),
    ]


def look(job, scores):
    assert PartCounts(job.folder, scores).missing(range(NUM_SHARDS)) == []


def read_in_turn(data, parts):
    assert all(
        num_rows(parts, shard_name(number)) == num_rows(data, shard_name(number)) for number in range(NUM_SHARDS)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is written; it is deleted in the end")
    storage = Path(parser.parse_args().storage).resolve()
    record.write("files", measure_export(storage / "export") + measure_score_scan(storage / "scores"))
    shutil.rmtree(storage)
