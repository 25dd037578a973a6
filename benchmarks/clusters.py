"""Jobs on a cluster that loses a node in each of them: python benchmarks/clusters.py --storage <an empty folder>

A head and two raylets of two CPUs, with a job server on loopback. `generate`, `train`, `evaluate` and `sweep` are
handed in with `ray job submit`. While a job works, one raylet gets a SIGKILL. Generating and training go on with the
node that is left; in the other two jobs a new node joins at once. Then each job is handed in once more, and has nothing
left to do. The same jobs without a kill, first on the same cluster, are what it is compared with.
"""

import argparse
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import record

from raysd.storage.location import Location
from raysd.storage.rows import ACCURACY, RUNG_RESULT, read_rows

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "python benchmarks/clusters.py"
NODE_CPUS = 2
PATIENCE = 500.0  # seconds until the moment of a kill, and for a job
CLASSIFIER = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "stem_stride": 2,
    "batch_size": 20,
    "logger": "none",
}
EXPERIMENT = {
    "name": "cluster",
    "cluster": {"cpus": 2 * NODE_CPUS},
    "generation": {
        "images_per_class": 24,
        "num_inference_steps": 10,
        "images_per_shard": 20,
        "batch_size": 10,
        "cpus_per_actor": 2,
    },
    "training": {
        **CLASSIFIER,
        "num_workers": 2,
        "min_workers": 1,
        "cpus_per_worker": 1.45,
        "num_steps": 1500,
        "checkpoint_steps": 50,
    },
    "evaluation": {
        "validation_set": "fashion_mnist",
        "validation_images_per_class": 5,
        "test_set": "fashion_mnist",
        "transfer_sets": [{"name": "digits", "shots": 4}, {"name": "mnist_5k", "shots": 4}],
    },
}
SWEEP = {
    **EXPERIMENT,
    "name": "cluster-sweep",
    "generation": {
        "images_per_class": 8,
        "num_inference_steps": 2,
        "images_per_shard": 20,
        "batch_size": 10,
        "num_actors": 2,
    },
    "training": {**CLASSIFIER, "num_workers": 1, "num_epochs": 2},
    "sweep": {"space": {"generation": {"guidance_scale": [1, 7.5]}}, "objective": "transfer", "random": False},
}
REPLACED = ("evaluate", "sweep")  # a new node joins at once
WAITING = "waiting for nodes"
VERBS = ("generate", "train", "evaluate", "sweep")


class Cluster:
    """A head without CPUs, its job server, and two nodes. Each has a folder of its own, where Ray unpacks a job's
    working directory."""

    def __init__(self, num_nodes=2, **system_config):
        from ray.cluster_utils import Cluster as Raylets

        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # jobs call `python`
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="nodes-"))
        head = {
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_port": port,
            "dashboard_agent_listen_port": free_port(),
            "temp_dir": str(self.folder / "head"),
            "_system_config": system_config,
        }
        self.raylets = Raylets(initialize_head=True, head_node_args=head)
        # Ray's job server looks here for its own cluster; without it a job may end in another Ray of this machine.
        (self.folder / "head" / "ray_current_cluster").write_text(self.raylets.address)
        self.url = f"http://127.0.0.1:{port}"
        self.nodes, self.num_added = [], 0
        self.fill(num_nodes)

    def fill(self, count=2):
        """Let nodes join until there are so many."""
        while len(self.nodes) < count:
            self.num_added += 1
            self.nodes.append(
                self.raylets.add_node(
                    num_cpus=NODE_CPUS,
                    dashboard_agent_listen_port=free_port(),
                    temp_dir=str(self.folder / str(self.num_added)),
                )
            )

    def kill_node(self):
        """SIGKILL the raylet that joined first; its workers end with it."""
        doomed = self.nodes.pop(0)
        held = self.actors(doomed)
        doomed.kill_raylet()
        self.raylets.remove_node(doomed, allow_graceful=False)
        for actor in held:  # a paused one would not notice
            with suppress(psutil.NoSuchProcess):
                actor.kill()

    def actors(self, node):
        """The processes of a node's generation actors that are up."""
        found = []
        for child in psutil.Process(node.all_processes["raylet"][0].process.pid).children():
            with suppress(psutil.NoSuchProcess, IndexError):
                title = child.cmdline()[0]
                if "GenerationActor" in title and "__init__" not in title:
                    found.append(child)
        return found

    def pause_oldest(self):
        """Hold the generation actors of the node that joined first, so that work is left for one that joins."""
        for actor in self.actors(self.nodes[0]):
            actor.suspend()

    def generates_on_newest(self):
        """True when a generation actor is up on the node that joined last."""
        return bool(self.actors(self.nodes[-1]))

    def submit(self, verb, config, storage, *words):
        """Hand a job in, as a user does; the process that shows its log and ends with its exit code."""
        command = [f"jobs/{verb}.py", str(config), f"storage={storage}", *words]
        words = ["ray", "job", "submit", "--address", self.url, "--working-dir", ".", "--", "python", *command]
        return subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def shutdown(self):
        self.raylets.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    """Ray's own default may be taken by another Ray on this machine; then no job could be handed in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def moment(verb, root):
    """True when there is something to lose."""
    if verb == "generate":
        return len(list(root.glob("clones/*/data/train-*.parquet"))) >= 2
    if verb == "train":
        return any(
            "checkpoint_dir_name" in path.read_text() for path in root.glob("runs/*/checkpoint_manager_snapshot.json")
        )
    return any(root.glob("features/*/*" if verb == "evaluate" else f"results/{RUNG_RESULT.name}/*.json"))


def run_job(cluster, verb, config, root, *more, kill=False, joins=False, replace=False):
    """Submit a job, and kill a node in it if asked; its log and its seconds.

    Args:
        cluster: where to.
        verb: of the job.
        config: its experiment file.
        root: its storage.
        more: settings over the file's.
        kill: the node that joined first.
        joins: before the kill another node joins, and is waited for until it generates.
        replace: after the kill a new node joins at once.

    Raises:
        RuntimeError: it failed, or came to no end.
    """
    began, joined, killed = time.monotonic(), False, False
    with tempfile.TemporaryFile("w+") as log:
        words = cluster.submit(verb, config, root, *more)
        for line in watched(words, began):
            log.write(line)
            if WAITING in line:
                cluster.fill()
            if kill and not killed and moment(verb, root):
                if joins and not joined:
                    cluster.pause_oldest()
                    cluster.fill()
                    joined = True
                if not joins or cluster.generates_on_newest():
                    cluster.kill_node()
                    killed = True
                    if replace:
                        cluster.fill()
        log.seek(0)
        text = log.read()
    seconds = time.monotonic() - began
    if words.returncode or (kill and not killed):
        own = "\n".join(
            line for line in text.splitlines() if "(raylet)" not in line
        )  # without what Ray tells of the dead one
        raise RuntimeError(
            f"{verb}: exit code {words.returncode}, {'a' if killed else 'no'} node was killed\n{own[-6000:]}"
        )
    return text, seconds


def run_disturbed(cluster, verb, config, root, *more, **kill):
    """As `run_job` with a kill; a job that ends in an error for it is handed in again, as a user would, and that
    counts."""
    began = time.monotonic()
    try:
        return *run_job(cluster, verb, config, root, *more, kill=True, **kill), 1
    except RuntimeError as error:
        print(f"handed in again: {error}", flush=True)
        cluster.fill()
        return run_job(cluster, verb, config, root, *more)[0], time.monotonic() - began, 2


def watched(process, began):
    """The lines of a process, and an empty one every twentieth of a second, until it ends."""
    import selectors

    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        os.set_blocking(process.stdout.fileno(), False)
        while True:
            if selector.select(0.05):
                text = process.stdout.read()
                if text == "":
                    process.wait()
                    return
                yield text or ""
            else:
                yield ""
            if time.monotonic() - began > PATIENCE:
                os.killpg(process.pid, signal.SIGKILL)


def found(verb, root):
    """What a verb leaves, each by what it is, with how often it is there."""
    if verb == "generate":
        rows = Counter()
        for path in root.glob("clones/*/data/train-*.parquet"):
            table = pq.read_table(io.BytesIO(path.read_bytes()), columns=["label", "index"])
            rows.update(zip(table["label"].to_pylist(), table["index"].to_pylist(), strict=True))
        return rows
    if verb == "train":
        return Counter(json.loads(path.read_text())["fingerprint"] for path in root.glob("classifiers/*/record.json"))
    evaluated = verb == "evaluate"
    rows = read_rows(Location(str(root)), ACCURACY if evaluated else RUNG_RESULT)
    keys = ("classifier", "dataset") if evaluated else ("setting", "rung")
    return Counter(json.dumps([row[key] for key in keys], sort_keys=True) for row in rows)


def write_configs(storage):
    """The experiment file of each verb."""
    for name, values in (("experiment", EXPERIMENT), ("sweep", SWEEP)):
        (storage / f"{name}.yaml").write_text(json.dumps(values))
    return {verb: storage / ("sweep.yaml" if verb == "sweep" else "experiment.yaml") for verb in VERBS}


def disturb(cluster, verb, config, storage, *more, against=True, again=True, joins=False, replace=False):
    """Run a job with a kill in it: what was lost and doubled, and its seconds with a kill, without, and once more.

    Args:
        cluster: with one node or two.
        verb: of the job; a later one needs what earlier ones made.
        config: its experiment file.
        storage: a folder.
        more: settings over the file's.
        against: run it undisturbed before.
        again: hand it in once more after.
        joins: a second node joins in the job, before the first one is killed.
        replace: a new node joins right after the kill.
    """
    row = {}
    if against:
        cluster.fill()
        _, row["undisturbed"] = run_job(cluster, verb, config, storage / "undisturbed", *more)
        expected = found(verb, storage / "undisturbed")
    row["log"], row["disturbed"], row["submissions"] = run_disturbed(
        cluster, verb, config, storage / "disturbed", *more, joins=joins, replace=replace
    )
    row["rows"] = found(verb, storage / "disturbed")
    if against:
        row |= {"lost": (expected - row["rows"]).total(), "doubled": (row["rows"] - expected).total()}
        cluster.fill()
    if again:
        row["log_again"], row["again"] = run_job(cluster, verb, config, storage / "disturbed", *more)
        row["changed_again"] = found(verb, storage / "disturbed") != row["rows"]
    print(verb, {name: value for name, value in row.items() if isinstance(value, int | float)}, flush=True)
    return row


def upload_bytes():
    """What `ray job submit --working-dir .` sends of a checkout."""
    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import create_package

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package.zip"
        create_package(
            str(ROOT), package, include_gitignore=True, excludes=ray_constants.get_runtime_env_default_excludes()
        )
        return package.stat().st_size


def worker_counts(root):
    """The numbers of workers that a training had, one after the other."""
    return [
        [count for _, count in json.loads(path.read_text())["workers"]]
        for path in root.glob("classifiers/*/record.json")
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is made; it is emptied")
    storage = Path(parser.parse_args().storage).resolve()
    shutil.rmtree(storage, ignore_errors=True)
    storage.mkdir(parents=True)
    metrics = [
        record.metric(
            "job_upload_bytes",
            upload_bytes(),
            "bytes",
            "lower",
            COMMAND,
            baseline="the zip file of `ray job submit --working-dir .`",
        )
    ]
    configs, cluster = write_configs(storage), Cluster()
    try:
        rows = {
            verb: disturb(cluster, verb, config, storage, replace=verb in REPLACED) for verb, config in configs.items()
        }
    finally:
        cluster.shutdown()
    for verb, row in rows.items():
        about = (
            f"one raylet of two killed; {row['disturbed']:.0f} s, undisturbed {row['undisturbed']:.0f} s, handed "
            f"in once more {row['again']:.0f} s"
        )
        metrics.append(record.metric(f"{verb}_rows_lost", row["lost"], "rows", "lower", COMMAND, baseline=about))
        metrics.append(record.metric(f"{verb}_rows_doubled", row["doubled"], "rows", "lower", COMMAND, baseline=about))
        metrics.append(
            record.metric(
                f"{verb}_submissions",
                row["submissions"],
                "jobs",
                "lower",
                COMMAND,
                baseline="1 where the job itself survived the kill",
            )
        )
        metrics.append(
            record.metric(
                f"{verb}_seconds_lost",
                round(row["disturbed"] - row["undisturbed"], 1),
                "s",
                "lower",
                COMMAND,
                baseline=about,
            )
        )
    print("workers of the training:", worker_counts(storage / "disturbed"))
    record.write("clusters", metrics)
