"""When a node is avoided, and when a job stops."""

import pytest
from plans import SPEC

from raysd.cluster.resources import Node
from raysd.diffusion.inspection import CheckpointError
from raysd.errors import UserError
from raysd.generation.failures import LIMITS, START_DEATHS, UNKNOWN, Failures, Place, of_loading

NODES = [Node(name, name, 4, 1) for name in ("a", "b", "c", "d", "e")]
CUDA = UserError("node", "a", "RuntimeError: CUDA error 0x7f at 3")


def place(name, *devices):
    return Place(name, name, devices)


def test_a_device_is_forgiven_twice_and_its_node_avoided_then():
    failures = Failures()
    failures.succeed(place("b", "0"))
    for _ in range(LIMITS["device"]):
        assert not failures.avoided and failures.verdict(NODES, 1) is None
        failures.fail(place("a", "0"), "device", CUDA)
    assert failures.avoided == {"a": CUDA} and failures.verdict(NODES, 1) is None
    assert failures.lines(NODES) == [f"node a was avoided: {CUDA}"]


def test_a_device_that_works_again_is_forgiven_and_another_of_its_node_does_not_speak_for_it():
    failures = Failures()
    for _ in range(10):
        failures.fail(place("a", "0"), "device", CUDA)
        failures.succeed(place("a", "0"))
    assert not failures.avoided
    for _ in range(LIMITS["device"]):
        failures.fail(place("a", "0"), "device", CUDA)
        failures.succeed(place("a", "1"))
    assert "a" in failures.avoided


def test_a_node_that_cannot_begin_is_avoided_at_once():
    failures = Failures()
    failures.fail(place("a"), "start", UserError("generation.model", "x", "is not on this node"))
    assert "a" in failures.avoided and failures.verdict(NODES, 0) is None


def test_the_job_stops_when_no_node_is_left_and_nobody_works():
    failures = Failures()
    failures.succeed(place("b"))
    for name in "ab":
        failures.fail(place(name), "start", UserError("node", name, f"cannot load, for reason {'xy'[name == 'a']}"))
    assert failures.verdict(NODES[:2], 1) is None and "for reason y" not in str(failures.verdict(NODES[:2], 0) or "")
    assert failures.verdict(NODES[:2], 0) is not None and failures.verdict(NODES[:3], 0) is None
    assert failures.verdict([], 0) is None  # they may join again


def test_the_same_error_on_half_of_the_nodes_stops_a_job_that_made_nothing():
    failures = Failures()
    for name in "ab":
        failures.fail(
            place(name, "0"), "device", UserError("node", name, f"{name}: CUDA error 0x7{name} in line {ord(name)}")
        )
    assert failures.verdict(NODES, 3) is None and failures.verdict(NODES[:4], 3) is not None
    failures.succeed(place("c"))
    assert failures.verdict(NODES[:4], 3) is None


def test_actors_that_die_before_they_say_where_they_are_end_the_job_in_the_end():
    failures = Failures()
    for _ in range(2 * START_DEATHS):
        assert failures.verdict(NODES, 0) is None
        failures.fail(place(UNKNOWN), "death", UserError("node", "a node", "an actor died"), 2)
    assert failures.verdict(NODES, 0) is not None and failures.verdict(NODES, 1) is None
    failures.succeed(place("b"))
    assert failures.verdict(NODES, 0) is None


def test_files_that_no_node_can_load_stop_the_job_at_once_unless_another_has_loaded_them():
    failures, torn = Failures(), UserError("generation.model", "x", "cannot be loaded: SafetensorError")
    failures.fail(place("a"), "model", torn)
    assert failures.verdict(NODES, 0) == failures.verdict(NODES, 4) == torn
    failures.begin()
    assert failures.verdict(NODES, 4) is None and not failures.avoided
    failures.fail(place("a"), "model", torn)
    assert failures.verdict(NODES, 4) is None and failures.avoided == {"a": torn}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("Cannot load because conv_in expected shape"), "model"),
        (RuntimeError("Error(s) in loading state_dict"), "model"),
        (OSError("Error no file named config.json found"), "model"),
        (CheckpointError("generation.lora.path", "x", "is for a model of another size"), "model"),
        (OSError(5, "Input/output error"), "start"),
        (MemoryError(), "start"),
        (RuntimeError("CUDA error: out of memory"), "start"),
        (ModuleNotFoundError("No module named 'sentencepiece'"), "start"),
        (UserError("generation.model", "x", "is not on this node"), "start"),
    ],
    ids=str,
)
def test_what_the_files_are_at_fault_for_is_told_apart_from_what_a_node_is(error, kind):
    found, shown = of_loading(error, SPEC, "worker-3")
    assert found == kind and "\n" not in str(shown)
    if kind == "start" and not isinstance(error, UserError):
        assert shown.field == "node" and shown.value == "worker-3"
