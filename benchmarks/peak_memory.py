"""The peak memory of one thing in a process of its own, as a multiple of its data: python benchmarks/peak_memory.py
set

- `set`: a process reads a set of decoded images into memory, as a training without Ray's workers does.
- `tasks`: the same, read by Ray Data tasks.
- `probe`: a probe is chosen and fitted on features.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

SIDE, NUM_IMAGES = 64, 24_000
NUM_FEATURES, DIMENSIONS, NUM_TESTED = 200_000, 64, 10_000


def now(name):
    """A value of /proc/self/status in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def peak(work):
    """Bytes that the process took at most while it did something, beyond what it had before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = now("VmRSS")
    work()
    return now("VmHWM") - before


def ingest(folder):
    import pyarrow.parquet as pq

    from raysd.data.images import ImageSet
    from raysd.data.real_datasets import encode_png, image_table
    from raysd.storage.location import Location
    from raysd.training.loader import Ingest, Pool

    encoded, per_file = encode_png(np.arange(SIDE**2, dtype=np.uint8).reshape(SIDE, SIDE)), 1000
    for start in range(0, NUM_IMAGES, per_file):
        rows = image_table([encoded] * per_file, np.arange(per_file) % 10, [])
        pq.write_table(rows, Path(folder, f"part-{start:06d}.parquet"), row_group_size=250)
    found = Ingest((Pool((ImageSet("set", "", Location(folder)),)),), SIDE, 256, True)
    assert len(found.pools[0]) == NUM_IMAGES
    return found


def measure_set(by_tasks=False):
    """Copies of a set that the process that reads it holds at most."""
    with tempfile.TemporaryDirectory() as folder:
        images = ingest(folder)
        if by_tasks:
            from raysd.cluster.session import ensure_ray

            ensure_ray()
            import ray.data

            ray.data.range(1).take_all()
        return peak(lambda: images.read_into_memory(by_tasks)) / (NUM_IMAGES * 3 * SIDE**2)


def measure_probe():
    """Copies of its features that a probe holds at most, without twice those of its test set."""
    from raysd.evaluation.probes.probe import run_probe
    from raysd.evaluation.settings import ProbeSettings

    rng = np.random.default_rng(0)

    def examples(count):
        labels = rng.integers(0, 10, count)
        features = rng.standard_normal((count, DIMENSIONS), dtype=np.float32)
        features[np.arange(count), labels] += 2
        return features, labels

    learn, check = examples(NUM_FEATURES), examples(NUM_TESTED)
    settings = ProbeSettings(trials=2, max_iterations=5, scale="standard")
    run_probe(examples(400), examples(100), settings, 0)  # the libraries are there from here on
    grown = peak(lambda: run_probe(learn, check, settings, 0))
    return (learn[0].nbytes + grown - check[0].nbytes) / learn[0].nbytes


if __name__ == "__main__":
    kinds = {"set": measure_set, "tasks": lambda: measure_set(True), "probe": measure_probe}
    print(kinds[sys.argv[1]]())
