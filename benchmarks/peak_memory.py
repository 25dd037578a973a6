"""The peak memory of one thing in a process of its own, as a multiple of its data: python benchmarks/peak_memory.py
set

- `set`: a process reads a set of decoded images into memory, as a training without Ray's workers does.
- `tasks`: the same, read by Ray Data tasks.
- `workers 1 2 4`: a training with so many workers on one node: copies of the set that all processes of Ray hold
  together while it trains, and at most (`set_copies_per_node`).
- `probe`: probes are chosen and fitted on features of several sizes; with what raysd reserves for them.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

SIDE, NUM_IMAGES, FEW_IMAGES = 64, 24_000, 1000
STEPS = 20
PROBES = (  # images to learn from, images to test on, features, classes, kind, scale
    (200_000, 10_000, 64, 10, "lbfgs", "standard"),
    (200_000, 10_000, 64, 10, "lbfgs", "raw"),
    (40_000, 10_000, 512, 100, "lbfgs", "standard"),
    (40_000, 10_000, 512, 100, "lbfgs", "raw"),
    (40_000, 5_000, 512, 100, "sgd", "l2"),
    (40_000, 5_000, 512, 100, "knn", "l2"),
)


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


def ingest(folder, num_images=NUM_IMAGES):
    import pyarrow.parquet as pq

    from raysd.data.images import ImageSet
    from raysd.data.real_datasets import encode_png, image_table
    from raysd.storage.location import Location
    from raysd.training.loader import Ingest, Pool

    encoded, per_file = encode_png(np.arange(SIDE**2, dtype=np.uint8).reshape(SIDE, SIDE)), 1000
    for start in range(0, num_images, per_file):
        rows = image_table([encoded] * per_file, np.arange(per_file) % 10, [])
        pq.write_table(rows, Path(folder, f"part-{start:06d}.parquet"), row_group_size=250)
    found = Ingest((Pool((ImageSet("set", "", Location(folder)),)),), SIDE, 256, True)
    assert len(found.pools[0]) == num_images
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


def proportional_bytes():
    """Memory of all processes that this one started; what several share counts once."""
    import psutil

    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it ended
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def train_with(num_workers, num_images):
    """Bytes of Ray's processes while a classifier is trained with so many workers, and at most."""
    from raysd.cluster.session import close_ray, ensure_ray
    from raysd.storage.location import Location
    from raysd.training.run import TrainingRun
    from raysd.training.settings import TrainingSettings
    from raysd.training.train import train_classifiers

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as storage:
        settings = TrainingSettings(
            backbone_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
            num_steps=STEPS,
            image_size=SIDE,
            batch_size=16 * num_workers,
            num_workers=num_workers,
            cpus_per_worker=0.1,
            logger="none",
        )
        run = TrainingRun(Location(storage), ingest(folder, num_images).pools, 10, settings)
        all_samples, in_steps, ended = [0], [], threading.Event()
        ensure_ray()

        def look():
            while not ended.wait(0.2):
                all_samples.append(proportional_bytes())
                if run.root.child("runs", run.name).exists("progress.json"):
                    in_steps.append(all_samples[-1])

        watcher = threading.Thread(target=look)
        watcher.start()
        train_classifiers(run, quiet=True)
        ended.set()
        watcher.join()
        close_ray()
        return statistics.median(in_steps), max(all_samples)


def measure_workers(num_workers):
    """Copies of a set that a node holds while so many workers train on it, and at most."""
    large, small = (np.array(train_with(num_workers, count)) for count in (NUM_IMAGES, FEW_IMAGES))
    held, most = (large - small) / ((NUM_IMAGES - FEW_IMAGES) * 3 * SIDE**2)
    return f"set_copies_per_node {held:.2f}, at most {most:.2f}, {num_workers} workers"


def measure_probe(count, tested, dimensions, num_classes, kind, scale):
    """The peak of a probe in bytes, its features included, and what is reserved for it in a process that has its
    libraries."""
    from raysd.evaluation.probes.probe import probe_memory, run_probe
    from raysd.evaluation.settings import ProbeSettings

    rng = np.random.default_rng(0)

    def examples(count, dimensions=dimensions, num_classes=num_classes):
        labels = np.arange(count) % num_classes
        features = rng.standard_normal((count, dimensions), dtype=np.float32)
        features[np.arange(count), labels % dimensions] += 2
        return features, labels

    settings = ProbeSettings(kind=kind, scale=scale, trials=3, max_iterations=12, epochs=1)
    run_probe(examples(400, 64, 10), examples(100, 64, 10), settings, 0)  # the libraries are there from here on
    measured = peak(lambda: run_probe(examples(count), examples(tested), settings, 0))
    reserved = probe_memory(count, tested, dimensions, num_classes, settings)
    about = f"{count} + {tested} x {dimensions} features, {num_classes} classes, {kind}, {scale}"
    found = f"measured {measured / 1e6:.0f} MB, reserved {reserved / 1e6:.0f} MB, ratio {reserved / measured:.2f}"
    return f"{found}: {about}"


def measure_probes():
    """Each probe in a process of its own."""
    for probe in PROBES:
        subprocess.run([sys.executable, __file__, "probe", *map(str, probe)], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "workers":
        for workers in map(int, sys.argv[2:]):
            print(measure_workers(workers), flush=True)
    elif sys.argv[1] == "probe" and sys.argv[2:]:
        print(measure_probe(*map(int, sys.argv[2:6]), *sys.argv[6:8]))
    elif sys.argv[1] == "probe":
        measure_probes()
    else:
        print(measure_set(by_tasks=sys.argv[1] == "tasks"))
