"""A job on a real cluster of several raylets, through its job server on loopback; a raylet is killed in it.

`python benchmarks/clusters.py` does the same with train, evaluate and sweep, which takes minutes.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clusters():
    """The benchmark of the same name, whose small jobs these are."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import clusters

    yield clusters
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def jobs(clusters, tmp_path_factory):
    """`generate` with one raylet of two killed in it, and handed in once more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        storage = tmp_path_factory.mktemp("jobs")
        return storage / "disturbed", clusters.disturb(storage, ("generate",), against=False)


def test_a_clone_is_whole_after_a_node_was_lost_for_good(jobs):
    rows = jobs[1]["generate"]["rows"]
    assert rows == {(label, index): 1 for label in range(10) for index in range(24)}


def test_a_job_waits_for_the_nodes_that_it_asks_for(jobs, clusters):
    lines = [line for line in jobs[1]["generate"]["log"].splitlines() if clusters.WAITING in line]
    assert lines == ["waiting for nodes with 4 CPUs in all; there is 1 node of 0 CPUs, 1 node of 2 CPUs"]


def test_the_same_job_handed_in_again_draws_nothing(jobs):
    assert "0 drawn now" in jobs[1]["generate"]["log_again"] and not jobs[1]["generate"]["changed_again"]


def test_a_job_log_has_lines_and_no_bars_and_ends_with_what_comes_next(jobs):
    for verb, result in jobs[1].items():
        assert any(line.startswith("next: ") for line in result["log"].splitlines()[-40:]), verb  # behind it Ray may tell of the dead node
        assert "\r" not in result["log"] and "━" not in result["log"]
    assert any(line.startswith("drawn: ") for line in jobs[1]["generate"]["log"].splitlines())
