"""Kill at random, and see what a clone looks like afterwards: python benchmarks/faults.py --storage <an empty
folder> [--kills 1000]

A small cluster of two raylets generates clones. Two drivers work on each clone at a time, one with half the images of
the other. At random points drivers, actors and whole raylets get a SIGKILL; a dead driver's command is run again, a
dead raylet's place is taken by a new one. When both commands have ended well, each shard is compared with the same
shard of a clone that was generated undisturbed, and the next clone begins. Ctrl-C ends it with what was compared so
far.
"""

import argparse
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import record

COMMAND = "python benchmarks/faults.py"
SHARD, BATCH = 16, 16
ACTORS = {"num_actors": 1, "cpus_per_actor": 0.5}  # of each driver, so that both are at work
SETTINGS = {
    "model": "dummy",
    "color": "gray",
    "num_inference_steps": 300,
    "images_per_shard": SHARD,
    "batch_size": BATCH,
    **ACTORS,
}
WORDS = [f"generation.{name}={value}" for name, value in SETTINGS.items()]
WEIGHTS = {"driver": 3, "actor": 5, "raylet": 1}
PATIENCE = 300.0  # seconds without a new shard


class Victims:
    """The cluster, and what in it can be killed."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def actors(self):
        """Processes of generation actors that are alive."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if "GenerationActor" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill_raylet(self, rng):
        """Kill one of the two workers' raylets, and let a new node join."""
        doomed = self.nodes.pop(rng.randrange(len(self.nodes)))
        doomed.kill_raylet()
        self.nodes.append(self.cluster.add_node(num_cpus=1))
        self.cluster.remove_node(doomed, allow_graceful=False)

    def shutdown(self):
        self.cluster.shutdown()


def start_driver(folder, images, address):
    command = [
        sys.executable,
        "-m",
        "raysd.cli",
        "generate",
        f"storage={folder}",
        f"generation.images_per_class={images}",
        *WORDS,
    ]
    environment = {**os.environ, "RAY_ADDRESS": address}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("clones/*/data/train-*.parquet"))}


def count_shards(folder):
    return len(list(Path(folder).glob("clones/*/data/train-*.parquet")))


def is_over(drivers):
    return all(driver.poll() is not None for driver in drivers.values())


def wait_for_moment(drivers, folder, victims, rng):
    """A random moment while images are generated; False when the drivers ended before."""
    deadline, begun = time.monotonic() + PATIENCE, count_shards(folder)
    wanted = begun + rng.choice([0, 0, 1, 2, 3])
    while count_shards(folder) < wanted or not victims.actors():
        if is_over(drivers):
            return False
        if time.monotonic() > deadline:
            raise SystemExit(f"no new shard in {PATIENCE:.0f} s")
        time.sleep(0.05)
    end = time.monotonic() + rng.uniform(0, 1.5)
    while time.monotonic() < end:
        if is_over(drivers):
            return False
        time.sleep(0.02)
    return not is_over(drivers)


def generate_under_fire(folder, images, victims, rng, num_kills):
    """Generate one clone with two drivers; counts of kills by kind, and of restarts of a driver that gave up."""
    done = Counter()

    def start(count):
        return start_driver(folder, count, victims.cluster.address)

    drivers = {count: start(count) for count in (images, images // 2)}
    while True:
        if sum(done[kind] for kind in WEIGHTS) >= num_kills or not wait_for_moment(drivers, folder, victims, rng):
            for count, driver in drivers.items():
                if driver.stderr.closed:
                    continue
                error = driver.communicate()[1]
                if driver.returncode:
                    done["gave up"] += 1
                    print(
                        f"the driver of {count} ended with {driver.returncode}: {error.strip().splitlines()[-1:]}",
                        flush=True,
                    )
                    drivers[count] = start(count)
            if all(driver.poll() == 0 for driver in drivers.values()):
                return done
            continue
        (kind,) = rng.choices(list(WEIGHTS), weights=WEIGHTS.values())
        if kind == "driver":
            count = rng.choice([count for count, driver in sorted(drivers.items()) if not driver.stderr.closed])
            drivers[count].kill()
            drivers[count].communicate()
            drivers[count] = start(count)
        elif kind == "actor":
            actors = victims.actors()
            if not actors:
                continue
            rng.choice(actors).kill()
        else:
            victims.kill_raylet(rng)
        done[kind] += 1
        print(f"killed {kind}, {count_shards(folder)} shards there", flush=True)


def compare(folder, expected):
    """Rows lost, rows doubled, and shards that differ from the undisturbed clone."""
    found = shards(folder)
    rows = Counter()
    for data in found.values():
        table = pq.read_table(io.BytesIO(data), columns=["label", "index"])
        rows.update(zip(table["label"].to_pylist(), table["index"].to_pylist(), strict=True))
    planned = Counter()
    for data in expected.values():
        table = pq.read_table(io.BytesIO(data), columns=["label", "index"])
        planned.update(zip(table["label"].to_pylist(), table["index"].to_pylist(), strict=True))
    differing = sum(found.get(name) != data for name, data in expected.items()) + len(set(found) - set(expected))
    leftovers = [path for path in Path(folder).rglob("*.tmp") if path.is_file()]
    return (planned - rows).total(), (rows - planned).total(), differing, len(leftovers)


def run(storage, num_kills, images, seed):
    """Kill until there were enough; the totals."""
    rng = random.Random(seed)
    victims = Victims()
    totals = Counter()
    try:
        driver = start_driver(storage / "undisturbed", images, victims.cluster.address)
        error = driver.communicate()[1]
        assert driver.returncode == 0, error
        expected = shards(storage / "undisturbed")
        while (so_far := sum(totals[kind] for kind in WEIGHTS)) < num_kills:
            folder = storage / "disturbed"
            shutil.rmtree(folder, ignore_errors=True)
            totals += generate_under_fire(folder, images, victims, rng, min(15, num_kills - so_far))
            lost, doubled, differing, leftovers = compare(folder, expected)
            totals += Counter(
                {
                    "rows_lost": lost,
                    "rows_doubled": doubled,
                    "shards_differing": differing,
                    "partial files": leftovers,
                    "clones": 1,
                }
            )
            print(dict(totals), flush=True)
    except KeyboardInterrupt:
        print("ended early; the clones that were compared count", flush=True)
    finally:
        victims.shutdown()
    return totals


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is generated")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--images", type=int, default=100, help="of each class, of the larger driver")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--print-only", action="store_true", help="print the counts as JSON in the last line, and record nothing"
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    totals = run(Path(arguments.storage).resolve(), arguments.kills, arguments.images, arguments.seed)
    kills = {kind: totals[kind] for kind in WEIGHTS}
    failed = bool(totals["rows_lost"] or totals["rows_doubled"] or totals["shards_differing"])
    if arguments.print_only:
        print(
            json.dumps(
                {"kills": kills, **{name: totals[name] for name in ("rows_lost", "rows_doubled", "shards_differing")}}
            )
        )
        sys.exit(failed)
    about = ", ".join(f"{count} {kind} kills" for kind, count in kills.items())
    about += (
        f"; {totals['clones']} clones of {10 * arguments.images} images in shards of {SHARD}, by two drivers, "
        f"{time.monotonic() - began:.0f} s"
    )
    about += (
        f"; {totals['gave up']} times a driver gave up and its command was run again; {totals['partial files']} "
        "partial files of killed writers left"
    )
    survived = 0 if failed else sum(kills.values())
    metrics = [record.metric("kills_survived", survived, "kills", "higher", COMMAND, baseline=about)]
    for name in ("rows_lost", "rows_doubled"):
        metrics.append(
            record.metric(
                name, totals[name], "rows", "lower", COMMAND, baseline="planned rows of the clones that were disturbed"
            )
        )
    metrics.append(
        record.metric(
            "shards_differing",
            totals["shards_differing"],
            "shards",
            "lower",
            COMMAND,
            baseline="bytes of an undisturbed run",
        )
    )
    record.write("faults", metrics)
    sys.exit(failed)
