"""What a node's process says of its machine."""

import os
import shutil

import pytest

from raysd.cluster.probe import DRIVER, Gpu, gpus_here, look, memory_bytes, model_mark, survey
from raysd.cluster.resources import Node, cluster_nodes
from raysd.diffusion.checkpoint import EMBEDDED, find_lora, find_model, plan_model
from raysd.storage.hub import fetch_files, find_repository
from raysd.storage.location import Location

NODE, TOKEN = Node("n0", "node-0", 1), "token"


def seen(folder, *marked, thorough=True):
    return look(NODE, Location(str(folder)), TOKEN, list(marked), thorough)


def test_a_node_that_reads_the_driver_s_token_writes_its_own(tmp_path):
    (tmp_path / DRIVER).write_text(TOKEN)
    assert seen(tmp_path).unseen is None
    assert (tmp_path / NODE.id).read_text() == TOKEN


@pytest.mark.parametrize("token", [None, "of another run"])
def test_a_node_that_does_not_read_it_says_so_and_writes_nothing(tmp_path, token):
    if token is not None:
        (tmp_path / DRIVER).write_text(token)
    before = sorted(os.listdir(tmp_path))
    assert seen(tmp_path).unseen == "another disk than the driver’s is there"
    assert sorted(os.listdir(tmp_path)) == before


def test_a_storage_that_cannot_be_written_to_is_said(tmp_path, monkeypatch):
    (tmp_path / DRIVER).write_text(TOKEN)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Location, "write", refuse)
    assert seen(tmp_path).unseen == "it cannot be used (Permission denied)"


def test_versions_and_memory_are_those_of_the_process(tmp_path):
    report = seen(tmp_path)
    assert dict(report.versions)["python"] and 10**8 < memory_bytes() == report.memory


def test_gpus_are_read_from_the_driver_s_own_tool(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-80GB, 81920'\necho 'Tesla T4, [N/A]'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus_here() == (Gpu("NVIDIA A100-SXM4-80GB", 81920 * 2**20),)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpus_here() == ()


@pytest.fixture
def model(tmp_path):
    """The embedded model as a folder of your own."""
    shutil.copytree(EMBEDDED, tmp_path / "model")
    return find_model(str(tmp_path / "model"))


def test_weights_that_differ_are_seen_when_it_is_thorough_and_sizes_always(model, tmp_path):
    marks = {thorough: model_mark(model, thorough) for thorough in (True, False)}
    assert marks[True] == model.digest
    weights = tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert seen(tmp_path, (model, marks[True])).models == ("other",)
    assert seen(tmp_path, (model, marks[False]), thorough=False).models == ("same",)
    weights.write_bytes(content[:-1])
    assert seen(tmp_path, (model, marks[False]), thorough=False).models == ("other",)


def test_a_folder_that_is_not_there_is_absent(model, tmp_path):
    mark = model_mark(model, True)
    shutil.rmtree(tmp_path / "model")
    assert seen(tmp_path, (model, mark), (find_model("embedded"), model_mark(find_model("embedded"), True))).models == (
        "absent",
        "same",
    )


@pytest.mark.parametrize("thorough", [True, False])
def test_lora_weights_are_compared_by_their_content(tmp_path, monkeypatch, thorough):
    monkeypatch.setattr("raysd.diffusion.checkpoint.has_peft", lambda: True)
    file = tmp_path / "style.safetensors"
    file.write_bytes(b"weights")
    lora = find_lora(str(file), 1.0)
    assert seen(tmp_path, (lora, lora.digest), thorough=thorough).models == ("same",)
    monkeypatch.setattr("raysd.diffusion.checkpoint.has_peft", lambda: False)
    assert seen(tmp_path, (lora, lora.digest), thorough=thorough).models == ("unloadable",)
    file.write_bytes(b"WEIGHTS")  # as many bytes
    assert seen(tmp_path, (lora, lora.digest), thorough=thorough).models == ("other",)
    file.unlink()
    assert seen(tmp_path, (lora, lora.digest), thorough=thorough).models == ("absent",)


def test_a_hub_model_that_is_not_here_or_in_part_is_asked_for_and_not_fetched(hub, model, tmp_path, monkeypatch):
    hub.repositories["owner/name"] = model.folder
    here = plan_model("owner/name")
    mark = model_mark(find_model("owner/name"), False)
    shutil.rmtree(tmp_path / "hub_cache")
    hub.fetched.clear()
    assert here.missing_bytes and seen(tmp_path, (here, mark), thorough=False).models == ("fetchable",)
    assert hub.fetched == []
    fetch_files("generation.model", find_repository("generation.model", "owner/name", None), ["model_index.json"])
    assert seen(tmp_path, (here, mark), thorough=False).models == ("fetchable",)
    here.find_here()
    assert seen(tmp_path, (here, mark), thorough=False).models == ("same",)
    shutil.rmtree(tmp_path / "hub_cache")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert seen(tmp_path, (here, mark), thorough=False).models == ("unreachable",)


@pytest.mark.slow
def test_a_node_that_is_gone_is_left_out_and_does_not_call_the_job_off(ray_cluster, tmp_path):
    here, gone = cluster_nodes(), Node("0" * 56, "gone", 1)
    (report,) = survey([*here, gone], Location(str(tmp_path)))
    assert report.node == here[0] and report.dead is None
