"""One line for each thing that is wrong with the nodes of a cluster."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lora_files import write_lora

from raysd.cluster.preflight import EQUAL_VERSIONS, check_cluster, check_disk, survey_failures
from raysd.cluster.probe import Gpu, NodeReport
from raysd.cluster.resources import Node, ResourceRequest
from raysd.cluster.settings import ClusterSettings
from raysd.commands.checks import check_sweep
from raysd.config import load_experiment
from raysd.diffusion.checkpoint import EMBEDDED, Lora, Model, weight_bytes
from raysd.errors import UserError
from raysd.generation.memory import ActorMemory, memory_failures
from raysd.storage.location import Location

ROOT = Location("/data/runs")
HERE = dict.fromkeys(EQUAL_VERSIONS, "1.0")
MODEL = Model("owner/name", None, Path("/models/name"), "0" * 16)
ACTORS = ResourceRequest("generation.num_actors", 4, "generation actors", 4, 1)


def well(name="worker-0", **different):
    return replace(NodeReport(Node(name, name, 4), versions=tuple(HERE.items()), models=("same",)), **different)


def lines(*reports):
    return [str(failure) for failure in survey_failures(ROOT, reports, HERE, [MODEL])]


def test_sound_nodes_give_no_failures():
    assert lines(well(), well("worker-1", models=("fetchable",))) == []


def test_nodes_that_see_another_disk_are_named_in_one_line():
    (line,) = lines(well("worker-0", unseen="another disk"), well("worker-1"), well("worker-2", unseen="another disk"))
    assert (
        line
        == "storage = '/data/runs': another disk, on worker-0, worker-2; mount one folder on all nodes, or use s3:// or gs://"
    )


def test_each_reason_why_the_storage_cannot_be_used_has_a_line():
    assert (
        len(
            lines(
                well("worker-0", unseen="another disk"),
                well("worker-1", unseen="it cannot be used (Permission denied)"),
            )
        )
        == 2
    )


def test_a_package_that_differs_is_named_with_both_versions_and_the_nodes():
    other = tuple({**HERE, "timm": "0.9"}.items())
    without = tuple((name, version) for name, version in HERE.items() if name != "timm")
    (line,) = lines(well(), well("worker-1", versions=other), well("worker-2", versions=without))
    assert line.startswith("versions.timm = '1.0': is the driver's, but 0.9 on worker-1, absent on worker-2;")


@pytest.mark.parametrize(
    ("presence", "words"),
    [
        ("absent", "is not on worker-1"),
        ("other", "is another model on worker-1"),
        ("unreachable", "the hub cannot be reached"),
    ],
)
def test_a_model_that_a_node_lacks_is_said(presence, words):
    (line,) = lines(well(), well("worker-1", models=(presence,)))
    assert line.startswith("generation.model = 'owner/name': ") and words in line


@pytest.mark.parametrize(
    ("presence", "words"),
    [
        ("absent", "is not on worker-1; put it"),
        ("other", "is another file on worker-1; copy the driver's there"),
        ("unloadable", "needs the package peft, which is absent on"),
    ],
)
def test_lora_weights_that_a_node_lacks_are_said(presence, words):
    lora = Lora(Path("/weights/style.safetensors"), 1.0, "0" * 16)
    reports = [well(models=("same", "same")), well("worker-1", models=("same", presence))]
    (failure,) = survey_failures(ROOT, reports, HERE, [MODEL, lora])
    assert str(failure).startswith("generation.lora.path = '/weights/style.safetensors': ") and words in str(failure)


@pytest.mark.parametrize("words", [["generate"], ["grow", "--to", "200"], ["benchmark"]])
def test_a_job_looks_for_its_lora_weights_on_the_nodes_before_it_starts_actors(run_here, tmp_path, monkeypatch, words):
    monkeypatch.setattr("raysd.diffusion.checkpoint.has_peft", lambda: True)
    monkeypatch.setattr("raysd.cluster.session.ensure_ray", lambda: None)

    def stop(root, wanted, models):
        raise UserError("nodes", [model.name for model in models], "stop here")

    monkeypatch.setattr("raysd.cluster.preflight.check_cluster", stop)
    write_lora(tmp_path / "a.safetensors")
    finished = run_here(words[0], f"generation.lora=[{{path: {tmp_path / 'a.safetensors'}}}]", *words[1:])
    assert finished.returncode == 2 and finished.stderr.startswith(
        f"error: nodes = ['embedded', '{tmp_path / 'a.safetensors'}']: stop here"
    )


def test_a_sweep_looks_for_the_lora_weights_of_all_its_settings(tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.diffusion.checkpoint.has_peft", lambda: True)
    for name in ("a", "b"):
        write_lora(tmp_path / f"{name}.safetensors")  # of one content, and still both have to be there
    choices = ", ".join(f"[{{path: {tmp_path}/{name}.safetensors}}]" for name in ("a", "b"))
    words = ["evaluation.validation_set=fashion_mnist", f"sweep.space.generation.lora=[[], {choices}]"]
    weights = check_sweep(load_experiment(None, [f"storage={tmp_path / 'runs'}", *words]))
    assert [each.name for each in weights] == [
        "embedded",
        str(tmp_path / "a.safetensors"),
        str(tmp_path / "b.safetensors"),
    ]


def test_a_node_that_does_not_answer_is_named_once_and_nothing_else_is_said_of_it():
    (line,) = lines(well(), NodeReport(Node("worker-1", "worker-1", 4), dead="did not answer in 300 s"))
    assert line.startswith("node = 'worker-1': did not answer in 300 s;")


@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from(["1.0", "2.0"]), st.booleans()), max_size=6)
)
def test_every_failure_is_one_line_and_there_is_none_without_a_cause(kinds):
    reports = []
    for number, (unseen, ray_version, is_there) in enumerate(kinds):
        found = tuple({**HERE, "ray": ray_version}.items())
        reports.append(
            well(f"worker-{number}", unseen=unseen, versions=found, models=("same" if is_there else "absent",))
        )
    failures = lines(*reports)
    assert all("\n" not in line for line in failures)
    causes = (
        len({unseen for unseen, _, _ in kinds if unseen})
        + any(version != "1.0" for _, version, _ in kinds)
        + any(not is_there for *_, is_there in kinds)
    )
    assert len(failures) == causes


def test_actors_that_the_memory_of_their_node_cannot_hold_are_refused():
    small, large = well("worker-0", memory=16 * 10**9), well("worker-1", memory=64 * 10**9)
    memory = ActorMemory(4_000_000_000, {"unet": 800_000_000})
    assert memory_failures(ACTORS, [small, large], memory) == []
    (failure,) = memory_failures(replace(ACTORS, count=8), [small, large], memory)
    assert str(failure).startswith(
        "generation.num_actors = 4: 8 generation actors x about 6.3 GB, and the nodes' memory has room for 6;"
    )
    assert "lower generation.batch_size" in str(failure)


def test_half_a_gpu_holds_half_a_gpu_s_memory():
    report = replace(well(), node=Node("w", "w", 8, 2), gpus=(Gpu("A", 16 * 10**9), Gpu("A", 16 * 10**9)))
    assert (
        memory_failures(replace(ACTORS, gpus=0.5), [report], ActorMemory(5_000_000_000, {"unet": 2_000_000_000})) == []
    )
    (failure,) = memory_failures(
        replace(ACTORS, gpus=0.5), [report], ActorMemory(5_000_000_000, {"unet": 3_000_000_000})
    )
    assert "GPU memory has room for 2" in str(failure)
    assert (
        memory_failures(
            replace(ACTORS, gpus=0.6, count=2), [report], ActorMemory(10_000_000_000, {"unet": 3_000_000_000})
        )
        == []
    )


def test_unknown_memory_counts_as_enough():
    assert memory_failures(ACTORS, [well()], ActorMemory(10**15)) == []


def test_actors_that_fit_no_node_get_no_failure_about_memory():
    assert memory_failures(replace(ACTORS, cpus=999), [well(memory=10**9)], ActorMemory(1)) == []


def test_weights_are_counted_as_they_are_loaded(tmp_path):
    stored = sum(path.stat().st_size for path in EMBEDDED.rglob("*.safetensors"))
    assert weight_bytes(EMBEDDED, "float16") == pytest.approx(stored, rel=0.05)  # as it lies on disk
    assert weight_bytes(EMBEDDED, "float32") == pytest.approx(2 * stored, rel=0.05)
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    header = json.dumps({"__metadata__": {}, "a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
    for name in ("model.safetensors", "model.fp16.safetensors"):
        (tmp_path / "unet" / name).write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))
    assert weight_bytes(tmp_path, "float32") == 24


def test_a_clone_that_the_disk_cannot_hold_is_refused(tmp_path):
    root = Location(str(tmp_path / "not" / "there" / "yet"))
    check_disk(root, 1.0)
    with pytest.raises(UserError, match=r"storage = .*about 1,000 TB are still to be written, and .* GB are free"):
        check_disk(root, 1e15)


def test_an_object_store_is_never_full():
    check_disk(Location("s3://bucket/runs?region=us-east-1"), 1e15)


def test_a_job_on_this_machine_alone_looks_at_no_node(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("raysd.cluster.session.ensure_ray", lambda: pytest.fail("Ray was started"))
    check_cluster(Location(str(tmp_path)), ClusterSettings(cpus=1000))  # which is for clusters alone
