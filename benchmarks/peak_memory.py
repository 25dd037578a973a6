"""The peak memory of one thing in a process of its own, as a multiple of its data: python benchmarks/peak_memory.py
set

- `set`: a process reads a set of decoded images into memory, as a training without Ray's workers does.
- `tasks`: the same, read by Ray Data tasks.
- `workers 1 2 4`: copies of the set that so many workers of a training on one node hold together
  (`set_copies_per_node`), and those that they would hold each by itself.
- `probe`: probes are chosen and fitted on features of several sizes; with what raysd reserves for them.
"""

import subprocess
import sys
import tempfile
from functools import partial, partialmethod
from pathlib import Path

import numpy as np

SIDE, NUM_IMAGES = 64, 24_000
PROBES = (  # images to learn from, images to test on, features, classes, kind, scale
    (200_000, 10_000, 64, 10, "lbfgs", "standard"),
    (200_000, 10_000, 64, 10, "lbfgs", "raw"),
    (40_000, 10_000, 512, 100, "lbfgs", "standard"),
    (40_000, 10_000, 512, 100, "lbfgs", "raw"),
    (10_000, 2_000, 2048, 20, "lbfgs", "raw"),
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


def ingest(folder):
    import pyarrow.parquet as pq

    from raysd.data.real_datasets import encode_png, image_table

    encoded, per_file = encode_png(np.arange(SIDE**2, dtype=np.uint8).reshape(SIDE, SIDE)), 1000
    for start in range(0, NUM_IMAGES, per_file):
        rows = image_table([encoded] * per_file, np.arange(per_file) % 10, [])
        pq.write_table(rows, Path(folder, f"part-{start:06d}.parquet"), row_group_size=250)
    found = set_in(folder)
    assert len(found.pools[0]) == NUM_IMAGES
    return found


def set_in(folder):
    from raysd.data.images import ImageSet
    from raysd.storage.location import Location
    from raysd.training.loader import Ingest, Pool

    return Ingest((Pool((ImageSet("set", "", Location(folder)),)),), SIDE, 256, True)


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
    """Memory of this process in bytes; of what several share its part."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def hold_set(folder, rank, num_workers):
    """What each worker does: hold the set, by itself and then with the others; the copies that it takes."""
    from types import SimpleNamespace
    from unittest.mock import patch

    import torch
    import torch.distributed as dist

    from raysd.training.loader import Ingest
    from raysd.training.workers import RayTrainWorkers

    dist.init_process_group("gloo", init_method=f"file://{folder}/met", rank=rank, world_size=num_workers)
    workers = RayTrainWorkers.__new__(RayTrainWorkers)  # as Ray Train would make it
    workers.rank, workers.world_size, workers.device, workers.shared = rank, num_workers, torch.device("cpu"), None
    context = SimpleNamespace(get_node_rank=lambda: 0, get_local_rank=lambda: rank)
    images, taken, read = set_in(folder), [], partial(Ingest.read_into_memory, by_tasks=False)
    with (
        patch("ray.train.get_context", lambda: context),
        patch.object(Ingest, "read_into_memory", partialmethod(Ingest.read_into_memory, by_tasks=False)),
    ):
        for hold in (lambda: read(images), lambda: workers.read_once(images)):
            before = proportional_bytes()
            arrays = hold()
            assert sum(int(each.images.sum(dtype=np.int64)) for each in arrays)  # looks at all of it
            dist.barrier()
            taken.append((proportional_bytes() - before) / images.num_bytes)
            dist.barrier()
            del arrays
    return taken


def measure_workers(num_workers):
    """Copies of a set that the workers of a node hold together, shared, and each by itself."""
    with tempfile.TemporaryDirectory() as folder:
        ingest(folder)
        command = [sys.executable, __file__, "hold", folder]
        running = [
            subprocess.Popen([*command, str(rank), str(num_workers)], stdout=subprocess.PIPE, text=True)
            for rank in range(num_workers)
        ]
        found = [list(map(float, process.communicate()[0].split())) for process in running]
    alone, shared = np.sum(found, axis=0)
    return f"set_copies_per_node {shared:.2f}, each by itself {alone:.2f}, {num_workers} workers"


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
    elif sys.argv[1] == "hold":
        print(*hold_set(sys.argv[2], *map(int, sys.argv[3:5])))
    elif sys.argv[1] == "probe" and sys.argv[2:]:
        print(measure_probe(*map(int, sys.argv[2:6]), *sys.argv[6:8]))
    elif sys.argv[1] == "probe":
        measure_probes()
    else:
        print(measure_set(by_tasks=sys.argv[1] == "tasks"))
