"""A clone and a classifier on the hub: what is pushed is what `datasets` and timm read there, without raysd."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from hub_uploads import TOKEN, serve_uploads
from huggingface_hub import DatasetCard, ModelCard, constants
from plans import TABLE
from stand_in import StandIn, actor_of, job_of

import raysd
from raysd.classifier.architecture import Architecture
from raysd.classifier.model import build_classifier, save_classifier
from raysd.clone.record import begin_record, end_record
from raysd.clone.scan import check_shards
from raysd.commands.answers.classifier import TrainedClassifier
from raysd.commands.answers.clone import CloneHandle
from raysd.errors import UserError
from raysd.resolve import clone_of
from raysd.sharing import upload
from raysd.sharing.clone_contents import clone_contents
from raysd.sharing.licenses import agreed_license
from raysd.sharing.repository import without_paths
from raysd.storage.location import Location
from raysd.storage.rows import ACCURACY, write_row

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}


@pytest.fixture
def uploads(monkeypatch, tmp_path):
    """A stand-in for the hub that takes uploads, and the token that it wants."""
    with serve_uploads() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        url = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", served.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


def finish(clone):
    """Generate a clone's missing shards, and note that they are there."""
    begin_record(clone, 4, is_changed=True)
    for shard in range(clone.num_shards):
        actor_of(clone, StandIn()).generate_shard(clone, shard)
    end_record(clone, check_shards(clone), 0)
    return clone


def clone_in(folder, images_per_class=3, **changes):
    return finish(job_of(folder, images_per_class, image_size=8, **changes))


@pytest.fixture
def clone(tmp_path):
    return clone_in(tmp_path / "runs" / "clones" / "x")


def classifier_in(root, trained_on, architecture, rows=()):
    """A classifier with random weights, as a training leaves it, with measured accuracies."""
    folder = Location(f"{root}/classifiers/abc")
    record = {
        "trained_on": trained_on,
        "recipe": {"optimizer": "adamw"},
        "num_epochs": 2,
        "num_steps": 20,
        "seed": 0,
        "class_names": TABLE.names,
    }
    torch.manual_seed(0)
    model = build_classifier(architecture).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    save_classifier(folder, model, architecture, record)
    for row in rows:
        write_row(Location(str(root)), ACCURACY, row)
    return TrainedClassifier(0, "abc", folder, Location(str(root))), model


ROW = {
    "fingerprint": "aa",
    "role": "test",
    "dataset": "fashion_mnist",
    "shots": None,
    "probe_label": "",
    "metric": "top1",
    "classifier": "abc",
    "value": 85.75,
    "low": 85.01,
    "high": 86.42,
    "num_images": 10000,
}


def trained_on(clone):
    about = {"kind": "clone", "name": "name, g=2", "variant": "name", "guidance_scale": 2.0, "model": "embedded"}
    return {**about, "fingerprint": clone.folder.uri.rpartition("/")[2], "images_per_class": 3}


def run_apart(code, hub, folder, **environment):
    """Run code in a process that cannot import raysd, with the stand-in as the hub."""
    values = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
    values |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", **environment}
    block = "import sys\nsys.modules['raysd'] = None\n"
    finished = subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, cwd=folder, env=values, timeout=200
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


# Clones


def test_a_pushed_clone_is_what_datasets_reads_from_the_hub(clone, uploads, tmp_path):
    pushed = CloneHandle(clone).push_to_hub("owner/clone")
    assert pushed.num_sent == len(pushed.files) and pushed.url == f"{uploads.url}/datasets/owner/clone"
    code = """
import json
from datasets import load_dataset, load_dataset_builder
info = load_dataset_builder("owner/clone").info
rows = load_dataset("owner/clone", split="train")
names = rows.features["label"].names
print(json.dumps([len(rows), names, rows[4]["prompt"], rows[4]["seed"], rows[4]["image"].size,
                  info.splits["train"].num_examples, info.features["label"].names == names]))
"""
    shown = run_apart(code, uploads, tmp_path)
    image = clone.image(4)
    assert json.loads(shown.splitlines()[-1]) == [30, TABLE.names, image.prompt, image.seed, [8, 8], 30, True]


def test_the_card_of_a_clone_says_license_size_and_how_to_repeat_it(clone, uploads, tmp_path):
    CloneHandle(clone).push_to_hub("owner/clone")
    files = uploads.files("datasets", "owner/clone")
    card = DatasetCard(files["README.md"].decode())
    assert card.data.license == "mit"  # that of the embedded generator, by its own card
    assert card.data.size_categories == ["n<1K"] and set(card.data.tags) == {
        "synthetic",
        "raysd",
        "image-classification",
    }
    (split,) = card.data.dataset_info["splits"]
    assert split["name"] == "train" and split["num_examples"] == 30
    for part in (
        "![Sample images",
        "raysd generate experiment.yaml",
        clone.spec.fingerprint,
        f"raysd {raysd.__version__}",
    ):
        assert part in card.text
    assert files["samples.png"].startswith(b"\x89PNG")
    for name in ("experiment.yaml", "classes.csv"):
        (tmp_path / name).write_bytes(files[name])
    again = raysd.load_experiment(tmp_path / "experiment.yaml", classes=str(tmp_path / "classes.csv"))
    repeated = clone_of(again)
    assert repeated.spec.fingerprint == clone.spec.fingerprint and repeated.counts == clone.counts


def test_what_is_there_is_not_sent_again_and_a_grown_clone_sends_what_changed(clone, uploads, tmp_path):
    handle = CloneHandle(clone)
    handle.push_to_hub("owner/clone")
    num_commits = len(uploads.commits)
    assert handle.push_to_hub("owner/clone").num_sent == 0 and len(uploads.commits) == num_commits
    uploads.files("datasets", "owner/clone")["data/train-000099.parquet"] = b"of a larger plan"
    grown = finish(job_of(clone.folder.path, 6, image_size=8))
    sent = CloneHandle(grown).push_to_hub("owner/clone").num_sent
    changed = {path for paths in uploads.commits[num_commits:] for path in paths}
    shards = {path for path in changed if path.startswith("data/")}
    assert shards == {"data/train-000002.parquet", "data/train-000003.parquet", "data/train-000099.parquet"}
    assert "README.md" in changed and sent == len(changed) - 1
    assert "data/train-000099.parquet" not in uploads.files("datasets", "owner/clone")


def test_a_push_that_breaks_off_goes_on_in_commits_of_bounded_size(tmp_path, uploads, monkeypatch):
    monkeypatch.setattr(upload, "COMMIT_FILES", 3)
    handle = CloneHandle(clone_in(tmp_path / "clone", images_per_class=12))  # 8 shards
    uploads.breaks_after = 5
    with pytest.raises(UserError, match="push again, what has arrived is not sent twice"):
        handle.push_to_hub("owner/clone", token=TOKEN)
    assert "README.md" not in uploads.files("datasets", "owner/clone")  # the card comes last
    uploads.breaks_after = None
    handle.push_to_hub("owner/clone", token=TOKEN)
    assert max(map(len, uploads.commits)) <= 3
    assert len(uploads.puts) == len(set(uploads.puts)) == 9  # 8 shards and the sample images, once each
    assert len([path for path in uploads.files("datasets", "owner/clone") if path.startswith("data/")]) == 8


def test_a_branch_and_a_private_repository_are_made(clone, uploads):
    CloneHandle(clone).push_to_hub("owner/clone", private=True, revision="v1")
    assert uploads.repositories["datasets/owner/clone@main"].private
    assert "README.md" in uploads.files("datasets", "owner/clone", "v1")
    assert "README.md" not in uploads.files("datasets", "owner/clone")


def test_a_dry_run_lists_everything_and_asks_the_hub_for_nothing(clone, uploads):
    pushed = CloneHandle(clone).push_to_hub("owner/clone", dry_run=True)
    assert uploads.asked == [] and pushed.url is None and pushed.num_sent == 0
    shards = {f"data/{name}": size for name, size in clone.folder.child("data").list_sizes().items()}
    assert shards.items() <= pushed.files.items() and {"README.md", "samples.png"} <= set(pushed.files)
    assert DatasetCard(pushed.card).data.license == "mit"


def test_a_repository_with_something_else_in_it_is_refused(clone, uploads, tmp_path):
    CloneHandle(clone).push_to_hub("owner/clone")
    other = CloneHandle(clone_in(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match=f"holds clone {clone.spec.fingerprint}; choose another repository"):
        other.push_to_hub("owner/clone")
    with pytest.raises(UserError, match="is no id of a repository on the hub; write owner/name"):
        other.push_to_hub("just-a-name")
    uploads.files("datasets", "owner/clone").pop("raysd.json")
    with pytest.raises(UserError, match="which raysd did not push"):
        other.push_to_hub("owner/clone")


@pytest.mark.parametrize("mark", [b"no json", b"[1]", b'{"holds": "clone"}', b"\xff", b"[" * 100_000])
def test_a_file_of_another_that_is_called_as_the_mark_is_refused_in_one_line(clone, uploads, mark):
    CloneHandle(clone).push_to_hub("owner/clone")
    uploads.files("datasets", "owner/clone")["raysd.json"] = mark
    with pytest.raises(UserError, match=r"holds a raysd\.json that raysd did not write; choose another repository"):
        CloneHandle(clone).push_to_hub("owner/clone")


def test_no_branch_is_made_of_something_else(clone, uploads, tmp_path):
    CloneHandle(clone).push_to_hub("owner/clone")
    with pytest.raises(UserError, match="choose another repository"):
        CloneHandle(clone_in(tmp_path / "other", seed=1)).push_to_hub("owner/clone", revision="v1")
    assert set(uploads.repositories) == {"datasets/owner/clone@main"}
    CloneHandle(clone).push_to_hub("owner/clone", revision="v1")
    assert "datasets/owner/clone@v1" in uploads.repositories


def test_a_hub_that_is_not_reached_or_breaks_off_is_one_line(clone, uploads, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    handle = CloneHandle(clone)
    handle.push_to_hub("owner/clone")

    def refuse(*_, **__):
        raise LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub")

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"the upload broke off .*; push again"):
        patch.setattr("huggingface_hub.HfApi.hf_hub_download", refuse)
        handle.push_to_hub("owner/clone")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"the upload broke off \(ConnectError\); push again"):
        handle.push_to_hub("owner/clone")


def test_a_hub_that_refuses_is_one_line_and_the_token_shows_nowhere(clone, uploads, monkeypatch, caplog, tmp_path):
    wrong = "hf_anotherSecretToken"
    caplog.set_level("DEBUG")
    with pytest.raises(
        UserError, match=r"the hub refuses \(401\); set HF_TOKEN to a token that may write to owner"
    ) as bad:
        CloneHandle(clone).push_to_hub("owner/clone", token=wrong)
    pushed = CloneHandle(clone).push_to_hub("owner/clone", token=TOKEN)
    shown = f"{bad.value}{pushed}{caplog.text}{upload.Target('owner/clone', token=TOKEN)}"
    stored = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    sent = b"".join(uploads.files("datasets", "owner/clone").values())
    assert not [token for token in (wrong, TOKEN) if token in shown or token.encode() in stored + sent]


def test_an_incomplete_clone_is_refused(tmp_path):
    clone = job_of(tmp_path / "clone", 3, image_size=8)
    with pytest.raises(UserError, match="is not complete; run raysd generate first"):
        CloneHandle(clone).push_to_hub("owner/clone", dry_run=True)


def test_a_clone_in_an_object_store_is_pushed(s3_server, uploads, tmp_path):
    place = f"s3://raysd/push/clones/x?endpoint_override=127.0.0.1:{s3_server}&scheme=http&region=us-east-1"
    clone = finish(
        job_of(tmp_path / "unused", 3, image_size=8).__class__.of(job_of("x", 3, image_size=8), Location(place))
    )
    pushed = CloneHandle(clone).push_to_hub("owner/clone")
    assert uploads.files("datasets", "owner/clone")["data/train-000000.parquet"] == clone.folder.child("data").read(
        "train-000000.parquet"
    )
    assert b"127.0.0.1" not in uploads.files("datasets", "owner/clone")["clone.json"] and pushed.num_sent


# Licenses


def test_a_license_is_taken_from_the_cards_or_asked_for():
    from raysd.sharing.licenses import License, Stated

    mit, other = Stated("generator a", License("mit", why="its card")), Stated("LoRA b", License("apache-2.0"))
    assert agreed_license([mit, mit], None).id == "mit"
    with pytest.raises(UserError, match="LoRA x states no license in a card; say it with --license"):
        agreed_license([mit, Stated("LoRA x", None)], None)
    with pytest.raises(UserError, match="its parts have several"):
        agreed_license([mit, other], None)
    assert agreed_license([mit, other], "cc-by-4.0").front == {"license": "cc-by-4.0"}
    with pytest.raises(UserError, match="is no license of the hub"):
        agreed_license([mit], "public domain")


def test_a_named_license_keeps_its_name_and_link_and_no_card_is_no_license(tmp_path):
    from raysd.sharing.licenses import generator_license

    front = "license: other\nlicense_name: my-license\nlicense_link: https://example.com\n"
    (tmp_path / "README.md").write_text(f"---\n{front}---\n# A model\n")
    found = generator_license(str(tmp_path), None, tmp_path).license
    assert found.front == {"license": "other", "license_name": "my-license", "license_link": "https://example.com"}
    (tmp_path / "README.md").write_text("# A model\n")
    assert generator_license(str(tmp_path), None, tmp_path).license is None


def test_local_paths_stay_at_home():
    values = {"model": "/home/a/models/sd", "storage": "s3://bucket/runs?x=1", "name": "a/b", "list": ["~/x/y", 3]}
    assert without_paths(values) == {"model": "sd", "storage": "runs", "name": "a/b", "list": ["y", 3]}
    models = {"./models/customer/sd": "sd", "../x": "x", "models/customer/sd": "sd", "owner/sd": "owner/sd"}
    assert [without_paths({"model": name}) for name in models] == [{"model": name} for name in models.values()]
    parts = [{"kind": "real", "name": "customer/birds"}, {"kind": "clone", "name": "a/b", "model": "./customer/sd"}]
    cut = without_paths({"kind": "clone", "name": "customer/birds + a/b", "parts": parts})
    assert cut["name"] == "birds + a/b" and "customer" not in str(cut)


@pytest.mark.parametrize("name", ["models/customer/sd", "./models/customer/sd", "customer/sd", "../here/customer/sd"])
def test_a_model_in_a_folder_is_named_without_its_path_and_no_card_says_that_it_is_repeated(
    name, tmp_path, monkeypatch
):
    from raysd.diffusion.checkpoint import EMBEDDED

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(EMBEDDED, name)
    clone = clone_in(tmp_path / "runs" / "clones" / "x", model=name)
    contents = clone_contents(clone, "mit")
    texts = {file.path: file.data.decode() for file in contents.files if file.data and not file.path.endswith(".png")}
    assert "customer" not in f"{texts}{contents.card}{contents.notes}"
    assert "generates it again" not in contents.card and "Generates this clone again" not in texts["experiment.yaml"]
    assert "does not repeat it as it is" in contents.card and "the generator sd" in texts["experiment.yaml"]
    assert any("no command repeats this clone elsewhere" in note for note in contents.notes)


# Classifiers

ARCHITECTURES = {
    "resnet": Architecture("resnet18", SMALL, 10, 96, 1),
    "convnext": Architecture("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}, 10, 64, 1),
    "small": Architecture("resnet18", SMALL, 10, 32, 2),
}
AS_THE_CARD_SAYS = """
{code}
print("{name}", model(torch.linspace(-1, 1, 3 * {size} ** 2).view(1, 3, {size}, {size}))[0].tolist())
"""


def code_of(card):
    """The Python code of a card."""
    (code,) = [part.removeprefix("python") for part in card.text.split("```") if part.startswith("python")]
    return code


def test_timm_alone_gives_the_same_logits_as_the_cards_say(clone, uploads, tmp_path):
    expected, code = {}, "import torch\ntorch.set_grad_enabled(False)\n"
    for name, architecture in ARCHITECTURES.items():
        handle, model = classifier_in(tmp_path / name, {**trained_on(clone), "name": name}, architecture, [ROW])
        handle.push_to_hub(f"owner/{name}", license="mit")
        card = ModelCard(uploads.files("models", f"owner/{name}")["README.md"].decode())
        assert card.data.library_name == ("raysd" if name == "small" else "timm")
        size = architecture.image_size
        with torch.inference_mode():
            images = torch.linspace(-1, 1, 3 * size**2).view(1, 3, size, size)
            expected[name] = expected[f"local {name}"] = model(images)[0].tolist()
        opened = f"import timm\nmodel = timm.create_model('local-dir:{handle.path}', pretrained=True).eval()"
        for where, lines in ((name, code_of(card)), (f"local {name}", opened)):  # the module of small ones is loaded
            code += AS_THE_CARD_SAYS.format(code=lines, name=where, size=size)
    shown = run_apart(code, uploads, tmp_path)
    found = {line.partition(" [")[0]: json.loads("[" + line.partition(" [")[2]) for line in shown.splitlines()}
    assert {name: pytest.approx(logits, abs=1e-4) for name, logits in expected.items()} == found


def test_the_card_of_a_classifier_says_what_it_learned_from_and_how_well(clone, tmp_path):
    transfer = {**ROW, "fingerprint": "ab", "role": "transfer", "dataset": "/data/own/birds", "value": 40.0}
    architecture = Architecture("resnet18", SMALL, 10, 32, 2)
    handle, _ = classifier_in(tmp_path / "runs", trained_on(clone), architecture, [transfer, ROW])
    pushed = handle.push_to_hub("owner/classifier", dry_run=True)
    card = ModelCard(pushed.card)
    assert card.data.license == "mit" and "owner/classifier" in card.text and "OWNER/NAME" not in card.text
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.metric_value) == ("fashion_mnist", 85.75)
    assert r"| fashion\_mnist | test | top-1 | 85.75 | 85.01 to 86.42 | 10,000 |" in card.text
    assert "| birds | transfer | top-1 | 40.00 |" in card.text and "/data/own" not in card.text
    assert f"clone {trained_on(clone)['fingerprint']} (generator embedded" in card.text.replace("\\", "")
    assert any("timm has no small_resnet18" in note for note in pushed.notes)


def test_a_classifier_of_real_images_needs_a_license_where_their_publisher_states_none(tmp_path):
    real = {"kind": "real", "name": "cifar10", "fingerprint": "f", "images_per_class": None}
    handle, _ = classifier_in(tmp_path, real, Architecture("resnet18", SMALL, 10, 32, 2))
    with pytest.raises(UserError, match="real data set cifar10 states no license"):
        handle.push_to_hub("owner/classifier", dry_run=True)
    pushed = handle.push_to_hub("owner/classifier", license="cc-by-4.0", dry_run=True)
    assert ModelCard(pushed.card).data.license == "cc-by-4.0" and "Not measured." in pushed.card
    assert ModelCard(pushed.card).data.eval_results is None


def test_with_a_projector_the_card_promises_features_and_no_classes(clone, tmp_path):
    projector = {"layers": 1, "width": 32, "bottleneck": 8, "temperature": 0.1}
    handle, _ = classifier_in(
        tmp_path / "runs", trained_on(clone), Architecture("resnet18", SMALL, 10, 96, 1, projector)
    )
    pushed = handle.push_to_hub("owner/classifier", dry_run=True)
    assert ModelCard(pushed.card).data.pipeline_tag == "image-feature-extraction"
    assert "the head of its training needs raysd" in pushed.card and "head.safetensors" in pushed.files


# The command


def test_the_command_pushes_and_lists(uploads, tmp_path, run_here):
    values = {"model": "dummy", "images_per_class": 2, "image_size": 8}
    experiment = {"classes": ["a", "b"], "storage": str(tmp_path / "runs"), "generation": values}
    (tmp_path / "my.yaml").write_text(json.dumps(experiment))
    finish(clone_of(raysd.load_experiment(tmp_path / "my.yaml")))
    asked = run_here("push", "my.yaml", "--to", "owner/clone", "--dry-run")
    assert asked.returncode == 2 and "error: license = None: generator dummy states no license" in asked.stderr
    listed = run_here("push", "my.yaml", "--to", "owner/clone", "--dry-run", "--license", "cc0-1.0")
    assert listed.returncode == 0 and "data/train-000000.parquet" in listed.stdout
    assert "nothing was sent" in listed.stdout and "license: cc0-1.0" in listed.stdout and uploads.asked == []
    pushed = run_here("push", "my.yaml", "--to", "owner/clone", "--license", "cc0-1.0")
    assert pushed.returncode == 0 and f"{uploads.url}/datasets/owner/clone: " in pushed.stdout, pushed.stderr
    again = run_here("push", "my.yaml", "--to", "owner/clone", "--license", "cc0-1.0")
    assert "in 0 files sent now" in again.stdout
    bad = run_here("push", "my.yaml", "--to", "owner/clone", "--what", "model")
    assert bad.returncode == 2 and "use clone or classifier" in bad.stderr


def test_of_several_clone_seeds_one_is_to_be_named(tmp_path, uploads):
    generation = {"model": "dummy", "images_per_class": 2, "image_size": 8, "seeds": [3, 4]}
    values = {
        "classes": ["a", "b"],
        "storage": str(tmp_path / "runs"),
        "generation": generation,
        "training": {"seeds": [0, 1]},
    }
    with pytest.raises(UserError, match=r"choose it with --seed, of generation\.seeds: 3, 4"):
        raysd.push(values, to="owner/clone")
    finish(clone_of(raysd.load_experiment(values, generation={**generation, "seed": 4, "seeds": []})))
    assert raysd.push(values, to="owner/clone", seed=4, license="mit", dry_run=True).files
