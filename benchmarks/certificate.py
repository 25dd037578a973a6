"""Faster, and is it as good? python benchmarks/certificate.py --storage <an empty folder>

`raysd compare` of ways to generate faster against none: the embedded model with 20 steps, three classifiers for each
clone, the real test images that ship with raysd. Seconds are those that CPU cores computed, so other programs hardly
change them.
"""

import argparse
import shutil
import sys
from pathlib import Path

import record

from raysd.cli import main
from raysd.cluster.session import ensure_ray
from raysd.config import load_experiment
from raysd.device import cpu_has_bfloat16
from raysd.storage.rows import COMPARISON, read_rows

COMMAND = "python benchmarks/certificate.py"
CONFIG = Path(__file__).parent.parent / "raysd" / "assets" / "demo.yaml"
PLAIN = {
    "generation.num_inference_steps": "20",
    "generation.dtype": "float32",
    "generation.step_cache": "null",
}
FASTER = {
    "10 steps": {"generation.num_inference_steps": "10"},
    "step cache, interval 3": {"generation.step_cache": "{interval: 3}"},
    "bfloat16": {"generation.dtype": "bfloat16"},
}


def words_of(changes):
    return [f"{key}={value}" for key, value in changes.items()]


def run(verb, storage, changes, images, *more):
    words = [str(CONFIG), f"storage={storage}", f"generation.images_per_class={images}", *words_of(PLAIN | changes)]
    words += ["generation.num_actors=1", "evaluation.transfer_sets=[]", "evaluation.validation_set=null", *more]
    print("raysd", verb, *words, flush=True)
    sys.argv = ["raysd", verb, *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise


def side(row, which):
    """Accuracy and cost of one setting, in words."""
    one, cost = row[which], row[which]["generation"]
    return (
        f"top-1 {one['top1']:.2f} % ({one['low']:.2f} to {one['high']:.2f}), {cost['num_images']} images in "
        f"{cost['seconds']:.1f} device seconds"
    )


def entries(name, row):
    """What a row says of a faster way against 20 steps."""
    about = f"{side(row, 'a')}; 20 steps: {side(row, 'b')}; {row['a']['generation']['device']}" + (
        f"; refused: {row['refused']}" if row["refused"] else ""
    )
    gap = f"{row['low']:+.2f} to {row['high']:+.2f}, {row['verdict']}; three seeds, {row['num_images']:,} test images"
    yield record.metric(f"difference, {name}", row["difference"], "points", "higher", COMMAND, f"{gap}; {about}")
    if row["cost_share"] is not None:
        yield record.metric(f"share of the device seconds, {name}", row["cost_share"], "ratio", "lower", COMMAND, about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is generated; it is deleted in the end")
    parser.add_argument("--images", type=int, default=30, help="of each class")
    arguments = parser.parse_args()
    storage, images = Path(arguments.storage).resolve(), arguments.images
    faster = {
        name: changes
        for name, changes in FASTER.items()
        if name != "bfloat16" or cpu_has_bfloat16()  # emulated, it is slower
    }
    ensure_ray()  # once for all commands
    for verb in ("generate", "train"):
        for changes in ({}, *faster.values()):
            run(verb, storage, changes, images)
    root, found, seen = load_experiment(None, [f"storage={storage}"]).root, [], set()
    for name, changes in faster.items():
        others = [word for key in changes for word in ("--with", f"{key}={PLAIN[key]}")]
        run("compare", storage, changes, images, *others)
        for row in read_rows(root, COMPARISON):
            if row["fingerprint"] not in seen:
                seen.add(row["fingerprint"])
                found += entries(name, row)
    record.write("certificate", found)
    shutil.rmtree(storage)
