"""Kill raysd adapt at random, and see what is left: python benchmarks/adaptive_faults.py --storage <an empty folder>
[--kills 30]

A tiny adaptive clone of each way is made undisturbed. Then each is made again while its process, or one of its
generation actors, gets a SIGKILL at a random moment of a random phase: generate, train, measure, or between two of
them. The command of a dead process is run again. When it has ended well, its images, classifiers and rows are compared
with the undisturbed ones, and the next way begins, until there were enough kills. Ctrl-C ends it with what was compared
so far.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections import Counter
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import record

COMMAND = "python benchmarks/adaptive_faults.py"
SETTINGS = {
    "generation": {
        "model": "dummy",
        "color": "gray",
        "num_inference_steps": 100,
        "images_per_class": 24,
        "images_per_shard": 20,
        "batch_size": 10,
        "num_actors": 1,
    },
    "training": {
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
        "stem_stride": 2,
        "num_epochs": 4,
        "batch_size": 20,
        "num_workers": 1,
        "precision": "float32",
        "checkpoint_steps": 3,
        "logger": "none",
        "seeds": [0, 1],
    },
    "evaluation": {"generated_images_per_class": 4},
}
ROUNDS = {"num_rounds": 3, "first_share": 0.34}
WAYS = {
    "budgets": {**ROUNDS, "way": "budgets"},
    "budgets with patience": {**ROUNDS, "way": "budgets", "training": "continued", "patience": 1, "max_rounds": 6},
    "uniform with patience": {**ROUNDS, "way": "uniform", "training": "continued", "patience": 1, "max_rounds": 6},
    "select": {**ROUNDS, "way": "select", "training": "continued", "pool_factor": 2},
}
PHASES = ("generate", "train", "measure", "between")
IMPORTED = [
    "torch",
    "raysd.training.loop",
    "raysd.evaluation.evaluate",
    "raysd.curation.scoring",
    "raysd.adaptive.loop",
    "raysd.commands.adapting",
    "raysd.generation.actor",
]
NEED_RAY = ("select",)  # ways whose classifiers score a pool
ACTOR_SHARE = 0.3  # of the kills in the phase `generate`
MOST_ERRORS = 3  # of a command that nobody killed
PASSING = ("seconds", "device_seconds", "date", "versions", "command")  # what differs from run to run


def generate_here(clones, shards):
    """Generate shards in this process."""
    from raysd.generation.actor import GenerationActor

    for number, (clone, missing) in enumerate(zip(clones, shards, strict=True)):
        actor = GenerationActor(clone.spec, SETTINGS["generation"]["batch_size"], 1)
        yield from ({**actor.generate_shard(clone, shard), "clone": number} for shard in missing.tolist())


def leave_ray_out():
    """Generate and train in this process."""
    from raysd.adaptive.actors import Actors
    from raysd.generation import generate
    from raysd.training.train import train_here

    plain = generate.generate_clones

    def generate_clones(clones, settings):
        if missing := [clone for clone in clones if not clone.is_complete()]:
            plain(missing, settings, generate=generate_here)

    generate.generate_clones = generate_clones
    Actors.grow = lambda self, clones: generate_clones(clones, self.experiment.generation)
    Actors.train = lambda self, run: train_here(run)


def adapt(folder, way, log, moments):
    """Make an adaptive clone, and tell the parent when a phase begins and ends."""
    import raysd
    from raysd.adaptive.clock import Clock

    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(errors, stream)
    if "RAY_ADDRESS" not in os.environ:
        leave_ray_out()
    plain = Clock.phase

    @contextmanager
    def told(clock, name):
        moments.send(name)
        with plain(clock, name):
            yield
        moments.send("between")

    Clock.phase = told
    raysd.adapt({"storage": str(folder), **SETTINGS}, COMMAND, adaptive=WAYS[way])


class Command:
    """The process that makes an adaptive clone; a fork of one that has imported what it needs."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)

    def __init__(self, folder, way):
        self.log = Path(f"{folder}.log")
        self.receiver, sender = self.context.Pipe(duplex=False)
        self.process = self.context.Process(target=adapt, args=(folder, way, self.log, sender))
        self.process.start()
        sender.close()

    def moments(self):
        """Yield each phase that begins, and `between` where one ends."""
        with suppress(EOFError):
            while True:
                yield self.receiver.recv()

    def end(self):
        """Wait for it, and return its exit status."""
        self.process.join()
        self.receiver.close()
        if self.process.exitcode > 0:
            print("\n".join(self.log.read_text().splitlines()[-5:]), flush=True)
        return self.process.exitcode


def actors():
    """Processes of generation actors that are alive."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "GenerationActor" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def undisturbed(folder, way):
    """Make an adaptive clone, and return the seconds that each phase took."""
    command, seconds, before = Command(folder, way), {name: [] for name in PHASES}, None
    for name in command.moments():
        now = time.monotonic()
        if before is not None:
            seconds[before[0]].append(now - before[1])
        before = name, now
    assert command.end() == 0, f"{way} ended with an error"
    return seconds


def strike(command, seconds, rng):
    """Kill at a random moment of a random phase; the phase and what was killed, or None if the command ended before."""
    wanted, skipped = rng.choice(PHASES), rng.choice([0, 0, 1])
    for name in command.moments():
        if name != wanted:
            continue
        if skipped:
            skipped -= 1
            continue
        time.sleep(rng.uniform(0, rng.choice(seconds[name])))
        if not command.process.is_alive():
            return None
        alive = actors() if name == "generate" and rng.random() < ACTOR_SHARE else []
        if alive:
            rng.choice(alive).kill()
            return name, "actor"
        command.process.kill()
        return name, "process"
    return None


def under_fire(folder, way, seconds, num_kills, rng):
    """Make an adaptive clone while it is killed; counts of kills by phase and by what was killed."""
    done, errors, command = Counter(), 0, Command(folder, way)
    while True:
        struck = strike(command, seconds, rng) if done.total() < num_kills else None
        if struck is not None:
            done[struck] += 1
            print(f"{way}: killed {' '.join(reversed(struck))}", flush=True)
            if struck[1] == "actor":
                continue
        for _ in command.moments():  # nothing is left to read of one that was killed
            pass
        code = command.end()
        if code == 0:
            return done
        errors += code > 0
        assert errors <= MOST_ERRORS, f"{way} ended {errors} times with an error"
        command = Command(folder, way)


def images_of(folder):
    """A digest of each image by clone, class and number, and how often each is there."""
    digests, times = {}, Counter()
    for path in sorted(Path(folder).glob("clones/*/data/train-*.parquet")):
        for row in pq.read_table(path, columns=["label", "index", "image"]).to_pylist():
            key = path.parent.parent.name, row["label"], row["index"]
            digests[key] = hashlib.sha256(row["image"]["bytes"]).hexdigest()
            times[key] += 1
    return digests, times


def classifiers_of(folder):
    """A digest of the weights of each classifier."""
    paths = Path(folder).glob("classifiers/*/model.safetensors")
    return {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def rows_of(folder):
    """The rows of rounds, of the whole and of measurements, without what differs from run to run."""
    from raysd.storage.location import Location
    from raysd.storage.rows import ACCURACY, ADAPTIVE, ROUND, read_rows

    found = [(kind.name, row) for kind in (ROUND, ADAPTIVE, ACCURACY) for row in read_rows(Location(str(folder)), kind)]
    return Counter(
        repr((kind, sorted((name, value) for name, value in row.items() if name not in PASSING))) for kind, row in found
    )


def differing(one, other):
    """How many names have not the same value in both."""
    return sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())


def compare(folder, expected):
    """What was lost, is doubled or differs from the undisturbed clone."""
    (images, times), (planned, once) = images_of(folder), images_of(expected)
    rows, expected_rows = rows_of(folder), rows_of(expected)
    return Counter(
        images_lost=(once - times).total(),
        images_doubled=(times - once).total(),
        images_differing=differing(images, planned),
        classifiers_differing=differing(classifiers_of(folder), classifiers_of(expected)),
        rows_differing=((rows - expected_rows) + (expected_rows - rows)).total(),
    )


@contextmanager
def small_cluster():
    """A cluster of one node for the processes that are killed."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield
    finally:
        cluster.shutdown()


def run(storage, num_kills, ways, seed):
    """Kill until there were enough; the kills, and the sums of what was compared."""
    rng, kills, totals = random.Random(seed), Counter(), Counter()
    try:
        seconds = {way: undisturbed(storage / way.replace(" ", "_"), way) for way in ways}
        share = -(-num_kills // (2 * len(ways)))  # each way comes twice
        while (left := num_kills - kills.total()) > 0:
            way, folder = ways[totals["clones"] % len(ways)], storage / "disturbed"
            shutil.rmtree(folder, ignore_errors=True)
            kills += under_fire(folder, way, seconds[way], min(share, left), rng)
            found = compare(folder, storage / way.replace(" ", "_"))
            totals += found + Counter(clones=1)
            print(f"{way}: {kills.total()} kills so far", dict(found), flush=True)
    except KeyboardInterrupt:
        print("ended early; the clones that were compared count", flush=True)
    finally:
        for process in multiprocessing.active_children():
            process.kill()
    return kills, totals


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is generated")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--without-ray", action="store_true", help="generate and train in the process that is killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print-only", action="store_true", help="record nothing")
    arguments = parser.parse_args()
    began, storage = time.monotonic(), Path(arguments.storage).resolve()
    storage.mkdir(parents=True, exist_ok=True)
    if arguments.without_ray and set(arguments.ways) & set(NEED_RAY):
        parser.error(f"without Ray, leave out {', '.join(NEED_RAY)}")
    os.environ.pop("RAY_ADDRESS", None)
    with nullcontext() if arguments.without_ray else small_cluster():
        kills, totals = run(storage, arguments.kills, arguments.ways, arguments.seed)
    parts = Counter()
    for (phase, what), count in kills.items():
        parts[f"in {phase}" if phase != "between" else "between two phases"] += count
        parts[f"of an {what}" if what == "actor" else f"of the {what}"] += count
    about = ", ".join(f"{count} {name}" for name, count in sorted(parts.items()))
    ways = ", ".join(arguments.ways[: totals["clones"]])
    about += f"; {totals['clones']} adaptive clones ({ways}), {time.monotonic() - began:.0f} s"
    about += ", generated and trained in the process that is killed" if arguments.without_ray else ""
    names = ("images_lost", "images_doubled", "images_differing", "classifiers_differing", "rows_differing")
    failed = any(totals[name] for name in names)
    written = [
        record.metric("adaptive_kills_survived", 0 if failed else kills.total(), "kills", "higher", COMMAND, about)
    ]
    baseline = "an undisturbed run of the same command"
    written += [
        record.metric(f"adaptive_{name}", totals[name], name.split("_")[0], "lower", COMMAND, baseline)
        for name in names
    ]
    if not arguments.print_only:
        record.write("adaptive_faults", written)
    sys.exit(failed)
