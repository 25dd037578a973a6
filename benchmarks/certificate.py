"""Faster, and is it as good? python benchmarks/certificate.py --storage <an empty folder>

`raysd compare` of ways to generate faster against none: the embedded model with 20 steps, three classifiers for each
clone, all 10,000 real test images. The clones grow in turns, so that what else the machine does hits all of them.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import record

from raysd.cluster.session import ensure_ray
from raysd.config import load_experiment
from raysd.storage.rows import COMPARISON, read_rows
from raysd.training.precision import cpu_has_bfloat16

COMMAND = "python benchmarks/certificate.py"
CONFIG = Path(__file__).parent.parent / "raysd" / "assets" / "demo.yaml"
IMAGES = (30, 60)  # per class, after each turn
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
    subprocess.run([sys.executable, "-m", "raysd.cli", verb, *words], check=True)


def side(row, which):
    """Accuracy and cost of one setting, in words."""
    one, cost = row[which], row[which]["generation"]
    return (
        f"top-1 {one['top1']:.2f} % ({one['low']:.2f} to {one['high']:.2f}), {cost['num_images']} images in "
        f"{cost['seconds']:.1f} device seconds"
    )


def entries(name, row):
    """What a row says of a faster way against 20 steps."""
    about = f"{side(row, 'a')}; 20 steps: {side(row, 'b')}; {row['a']['generation']['device']}; {row['refused'] or ''}"
    gap = f"{row['low']:+.2f} to {row['high']:+.2f}, {row['verdict']}; three seeds, 10,000 real test images; {about}"
    yield record.metric(f"difference, {name}", row["difference"], "points", "higher", COMMAND, gap)
    if row["cost_share"] is not None:
        yield record.metric(f"share of the device seconds, {name}", row["cost_share"], "ratio", "lower", COMMAND, about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is generated; it is deleted in the end")
    storage = Path(parser.parse_args().storage).resolve()
    faster = {
        name: changes
        for name, changes in FASTER.items()
        if name != "bfloat16" or cpu_has_bfloat16()  # emulated, it is slower
    }
    ensure_ray()  # once for all commands, which find it by RAY_ADDRESS
    assert os.environ["RAY_ADDRESS"]
    for images in IMAGES:
        for changes in ({}, *faster.values()):
            run("generate", storage, changes, images)
    for changes in ({}, *faster.values()):
        run("train", storage, changes, IMAGES[-1])
    root, found, seen = load_experiment(None, [f"storage={storage}"]).root, [], set()
    for name, changes in faster.items():
        others = [word for key in changes for word in ("--with", f"{key}={PLAIN[key]}")]
        run("compare", storage, changes, IMAGES[-1], *others)
        for row in read_rows(root, COMPARISON):
            if row["fingerprint"] not in seen:
                seen.add(row["fingerprint"])
                found += entries(name, row)
    record.write("certificate", found)
    shutil.rmtree(storage)
