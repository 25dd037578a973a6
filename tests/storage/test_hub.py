"""What is asked of the hub, and what is fetched; on a stand-in on loopback."""

import shutil
import time

import pytest
from hub_server import COMMIT

from raysd.diffusion.checkpoint import EMBEDDED
from raysd.errors import UserError
from raysd.storage.hub import FILES, asked_repository, cached_repository, fetch_files, fetch_model, find_repository


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "repository"
    for name in ("model.safetensors", "config.json", "merges.txt", "model.bin", "README.md", "onnx/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_classifier_s_files_are_fetched_once_and_then_found_without_any_request(hub, folder):
    hub.repositories["owner/name"] = folder
    there = fetch_model("evaluation.pretrained", "owner/name", None)
    wanted = ["config.json", "merges.txt", "model.safetensors", "onnx/config.json"]
    assert sorted(hub.fetched) == wanted and there.name == COMMIT
    hub.asked.clear()
    assert fetch_model("evaluation.pretrained", "owner/name", COMMIT) == there and hub.asked == []
    assert fetch_model("evaluation.pretrained", "owner/name", None) == there
    assert hub.asked == ["GET /api/models/owner/name"]


def test_without_network_the_last_commit_of_a_branch_is_taken_if_it_is_whole_and_at_once(hub, folder, monkeypatch):
    hub.repositories["owner/name"] = folder
    there = fetch_model("evaluation.pretrained", "owner/name", None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    shutil.rmtree(there.parents[1] / "trees")  # as an older client of the hub left it
    start = time.monotonic()
    for revision in (None, "main", COMMIT):
        monkeypatch.setattr("huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE", {})
        assert fetch_model("evaluation.pretrained", "owner/name", revision) == there
    assert time.monotonic() - start < 5


def test_a_model_that_is_no_longer_on_the_hub_is_used_from_the_cache(hub, folder):
    hub.repositories["owner/name"] = folder
    there = fetch_model("scoring.model", "owner/name", None)
    hub.repositories.clear()
    assert fetch_model("scoring.model", "owner/name", None) == there


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_part_of_a_repository_is_not_taken_for_the_whole(hub, folder, monkeypatch, revision):
    hub.repositories["owner/name"] = folder
    repository = find_repository("scoring.model", "owner/name", None)
    fetch_files("scoring.model", repository, ["config.json"])
    assert cached_repository("owner/name", None).missing(["config.json", "model.safetensors"]) == ["model.safetensors"]
    url = hub.url
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(UserError, match="is not whole in this machine's cache, and the hub does not answer") as raised:
        fetch_model("scoring.model", "owner/name", revision)
    assert raised.value.field == "scoring.model" and "\n" not in str(raised.value) and time.monotonic() - start < 5
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    fetch_model("scoring.model", "owner/name", revision)
    assert not cached_repository("owner/name", None).missing(repository.matching(FILES))
    assert hub.fetched.count("config.json") == 1


@pytest.mark.parametrize(
    ("name", "revision", "field", "words"),
    [
        (
            "owner/gated",
            None,
            "generation.model",
            "is gated; accept its license on https://huggingface.co/owner/gated,",
        ),
        (
            "owner/none",
            None,
            "generation.model",
            "is not on the hub, or private; check the id on https://",
        ),
        ("owner/name", "v9", "generation.revision", "is no branch, tag or commit of owner/name; see https://"),
        ("owner/a name", None, "generation.model", "is no id of the hub; write owner/name"),
    ],
)
def test_what_the_hub_refuses_is_told_apart_in_one_line(hub, folder, name, revision, field, words):
    hub.repositories |= {"owner/name": folder, "owner/gated": None}
    with pytest.raises(UserError) as raised:
        fetch_model("generation.model", name, revision)
    assert raised.value.field == field and words in str(raised.value) and "\n" not in str(raised.value)
    assert ("HF_TOKEN" in str(raised.value)) == (name in ("owner/gated", "owner/none"))


def test_a_machine_that_was_told_to_stay_offline_says_so(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch_model("generation.model", "owner/name", None)


def test_whether_the_hub_answers_for_a_commit(hub, folder, monkeypatch):
    hub.repositories["owner/name"] = folder
    asked = asked_repository("owner/name", COMMIT)
    assert asked.num_bytes(asked.matching(FILES)) == sum(map(len, asked.matching(FILES)))
    assert asked_repository("owner/name", "1" * 40) is None and hub.fetched == []
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert asked_repository("owner/name", COMMIT) is None


@pytest.mark.slow
def test_the_command_plans_a_hub_model_in_a_process_of_its_own(hub, run_cli, tmp_path):
    hub.repositories["owner/name"] = EMBEDDED
    words = ["plan", "generation.model=owner/name", "generation.color=gray"]
    shown = run_cli(*words, HF_ENDPOINT=hub.url, HF_HUB_CACHE=str(tmp_path / "hub_cache"))
    assert shown.returncode == 0 and "6.09 MB to be downloaded" in shown.stdout, shown.stderr
    assert "model_index.json" in hub.fetched and not [name for name in hub.fetched if name.endswith(".safetensors")]
    hub.asked.clear()
    options = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hub_cache"), "HF_HUB_OFFLINE": "1"}
    assert run_cli(*words, **options).stdout == shown.stdout and hub.asked == []
