"""Jobs on a real cluster of several raylets, through its job server on loopback; a raylet is killed in each."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def clusters():
    """The benchmark of the same name, whose small jobs these are."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import clusters

    yield clusters
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def disturb(clusters, tmp_path_factory):
    """Submit the job of a command on one cluster for all of them, and kill a raylet in it. The cluster begins with one
    node."""
    storage = tmp_path_factory.mktemp("jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = clusters.Cluster(
            1, health_check_period_ms=1000, health_check_failure_threshold=3
        )  # Ray notes a death sooner than by default
        configs = clusters.write_configs(storage)

        def run(verb, *words, full=False, **options):
            if full:
                cluster.fill()
            return storage / "disturbed", clusters.disturb(
                cluster, verb, configs[verb], storage, *words, against=False, **options
            )

        yield run
        cluster.shutdown()


@pytest.fixture(scope="module")
def generated(disturb):
    return disturb("generate", "cluster.cpus=0", "generation.images_per_class=40", joins=True, again=False)


@pytest.fixture(scope="module")
def trained(generated, disturb):
    return disturb("train", "training.num_steps=500", full=True, again=False)


@pytest.fixture(scope="module")
def evaluated(trained, disturb):
    return disturb("evaluate", "training.num_steps=500", again=False)


@pytest.fixture(scope="module")
def swept(disturb):
    return disturb("sweep", again=False)


def assert_survived(job, title=None):
    """The job itself went on after the kill, and its log has lines, no bars, and in the end what comes next; behind
    it Ray may tell of the dead node."""
    assert job["submissions"] == 1
    lines = job["log"].splitlines()
    assert any(line.startswith("next: ") for line in lines[-40:])
    assert "\r" not in job["log"]
    assert all("━" not in line or line[0] in "┏┡" for line in lines)  # a bar, unless it is the rule of a table
    assert title is None or any(line.startswith(f"{title}: ") for line in lines)


def test_generation_spreads_onto_a_node_that_joins_and_goes_on_with_what_is_left(generated):
    _, job = generated
    assert job["rows"] == {(label, index): 1 for label in range(10) for index in range(40)}
    assert_survived(job, "generated")


def test_a_training_goes_on_with_the_worker_that_is_left(trained):
    root, job = trained
    (record,) = [json.loads(path.read_text()) for path in root.glob("classifiers/*/record.json")]
    assert [count for _, count in record["workers"]] == [2, 1]
    assert record["num_steps"] == 500 and record["loss"] < 2
    assert_survived(job, "trained")


def test_an_evaluation_has_every_row_once(evaluated):
    _, job = evaluated
    datasets = [json.loads(row)[1] for row in job["rows"].elements()]
    assert len(datasets) == len(set(datasets)) == 4  # test and validation set, and two transfer sets
    assert_survived(job)


def test_a_job_waits_for_the_nodes_that_it_asks_for(evaluated, clusters):
    lines = [line for line in evaluated[1]["log"].splitlines() if clusters.WAITING in line]
    assert len(lines) == 1 and lines[0].startswith("waiting for nodes with 4 CPUs in all; there is ")
    assert sorted(lines[0].split("there is ")[1].split(", ")) == ["1 node of 0 CPUs", "1 node of 2 CPUs"]


def test_a_sweep_takes_each_step_once(swept):
    _, job = swept
    steps = [tuple(map(str, json.loads(row))) for row in job["rows"].elements()]
    assert len(steps) == len(set(steps)) == 2
    assert_survived(job)
