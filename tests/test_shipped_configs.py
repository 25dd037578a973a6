"""Every experiment that ships, end to end: its own real data sets as tiny folders in their published layout, the
embedded model in the place of Stable Diffusion, two steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from in_process import run_main
from published_sets import EUROSAT, lay_out, lay_out_imagenet

from raysd.commands.checks import check_sweep, check_training
from raysd.config import load_experiment
from raysd.data.catalog import built_in_sets, class_keys
from raysd.data.splits import read_split
from raysd.errors import UserError
from raysd.evaluation.tasks import resolve_sets
from raysd.prompts.table import load_class_table
from raysd.resolve import clone_of
from raysd.training.train import train_here

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
NAMES = [file.stem for file in FILES]
ON_RAY_TRAIN = "imagenet100_paper"
CLASS_MAP = {"backpack": "n02769748", "banana": ["n07753592"], "air_freshener": None, "alarm_clock": "n02708093"}
GIF = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
SMALL = {
    "generation.model": "embedded",
    "generation.num_inference_steps": 2,
    "generation.images_per_class": 2,
    "generation.batch_size": 8,
    "generation.images_per_shard": 8,
    "generation.stored_size": 32,
    "generation.dtype": "auto",
    "generation.gpus_per_actor": None,
    "generation.num_actors": 1,
    "training.backbone": "resnet18",
    "training.backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "training.image_size": 32,
    "training.num_steps": 2,
    "training.batch_size": 8,
    "training.forward_size": 4,
    "training.num_workers": 2,
    "training.min_workers": None,
    "training.cpus_per_worker": 0.5,
    "training.seeds": [0],
    "training.logger": "none",
    "cluster.gpus": 0,
    "evaluation.skip_absent": False,
}
SMALL_SWEEP = {
    "training.num_workers": 1,
    "evaluation.validation_images_per_class": 5,
    "sweep.max_concurrent_trials": 1,
    "sweep.space": {"generation": {"guidance_scale": [1, 2], "variant": ["name"]}},
}


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A folder that looks as `/data` does in the experiments, with all sets."""
    folder = tmp_path_factory.mktemp("data")
    lay_out(folder, class_keys("imagenet1k"), class_keys("imagenet_r"), class_keys("imagenet_a"), CLASS_MAP)
    return folder


@pytest.fixture
def tiny_sets(monkeypatch, published):
    """The catalog with the sizes of the tiny sets; torchvision finds its own where it looks for them."""
    for name, entry in built_in_sets().items():
        if entry.download:
            classes = {"cog": 3, "obj": len(CLASS_MAP)}.get(name[:3], entry.classes)
            monkeypatch.setitem(built_in_sets(), name, entry.model_copy(update={"images": {}, "classes": classes}))
    halves = {name: np.arange(10) % 2 == 0 for name in EUROSAT}
    monkeypatch.setattr("raysd.data.splits.read_split", lambda name: halves if name == "eurosat" else read_split(name))
    monkeypatch.setattr("raysd.data.hub_readers.DOWNLOADS", published / "torchvision")
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda file, _: Path(file).is_file())
    return published


def write_same(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(GIF)


def here(value, folder):
    """An experiment's values with its paths in another folder than `/data`, and hub sets as folders."""
    if isinstance(value, dict):
        named = {name: here(each, folder) for name, each in value.items()}
        return named | ({"path": str(folder / named["name"])} if named.get("name") in ("cars196", "sun397") else {})
    if isinstance(value, list):
        return [here(each, folder) for each in value]
    return value.replace("/data/", f"{folder}/") if isinstance(value, str) else value


def some_classes(file, folder):
    """The experiment's classes; of ImageNet's 1,000 those that the other sets have, and a few more."""
    if load_experiment(file).classes != "imagenet1k":
        return {}
    rows = load_class_table("imagenet1k")
    wanted = ["n02769748", "n07753592", "n02708093", "n01443537", "n01498041", "n01440764", "n02007558"]
    lines = ["label,key,name,hypernym,definition"]
    for label, key in enumerate(wanted):
        place = rows.keys.index(key)
        lines.append(f'{label},{key},"{rows.names[place]}",thing,"a thing"')
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    return {"classes": str(folder / "classes.csv")}


def written(file, folder, values):
    """The experiment as a file in `folder`, with other values under dotted keys."""
    body = yaml.safe_load(file.read_text())
    for key, value in values.items():
        *parents, last = key.split(".")
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    (folder / file.name).write_text(yaml.safe_dump(body))
    return folder / file.name


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_each_experiment_passes_the_checks_before_a_job_and_has_a_plan(file, tmp_path, run_here):
    is_of_hub = "/" in load_experiment(file).generation.model
    model = ["generation.model=dummy", "generation.stored_size=32"] if is_of_hub else []
    words = [f"storage={tmp_path / 'runs'}", *model]
    done = run_here("plan", file, *words)
    assert done.returncode == 0, done.stderr
    experiment = load_experiment(file, words)
    assert clone_of(experiment).spec.table.keys == experiment.table.keys
    check_training(experiment)
    objective = experiment.sweep.objective
    if "sweep" in yaml.safe_load(file.read_text()) and (objective != "test" or experiment.evaluation.test_set):
        check_sweep(experiment)


def test_imagenets_validation_folder_is_the_test_set_of_the_hundred_classes(tmp_path, monkeypatch):
    folder, keys, table = tmp_path / "imagenet", class_keys("imagenet1k"), load_class_table("imagenet100")
    learnt = [*table.keys, "n01440764", "n01443537"]
    lay_out_imagenet(folder, keys, learnt, lambda *files: [write_same(file) for file in files])
    entry = built_in_sets()["imagenet_val"]
    monkeypatch.setitem(built_in_sets(), "imagenet_val", entry.model_copy(update={"images": {"test": 1000}}))
    named = {"name": "imagenet_val", "path": str(folder / "val")}
    own = {"name": str(folder / "val"), "shared_classes": True}
    split = {"name": str(folder), "shared_classes": True}
    for test_set in (named, own):
        evaluation = {"test_set": test_set, "validation_set": split, "validation_images_per_class": 1}
        experiment = load_experiment(CONFIGS / "imagenet100_paper.yaml", storage=str(tmp_path), evaluation=evaluation)
        check_training(experiment)
        (validation, measured), _ = resolve_sets(experiment.root, experiment.evaluation, experiment.table)
        assert (measured.role, measured.num_left_out, measured.shared) == ("test", 900, None)
        assert validation.role == "validation" and validation.num_left_out == 2 * len(set(learnt) - set(table.keys))
    with pytest.raises(UserError, match=r"give a test set as \{name: \.\., shared_classes: true\}"):
        evaluation = {"test_set": own["name"]}
        experiment = load_experiment(CONFIGS / "imagenet100_paper.yaml", storage=str(tmp_path), evaluation=evaluation)
        resolve_sets(experiment.root, experiment.evaluation, experiment.table)


def values_of(file, published):
    """What makes an experiment tiny, beside its own values."""
    body = here(yaml.safe_load(file.read_text()), published)
    evaluation, sweep = body.get("evaluation", {}), body.get("sweep", {})
    values = {"evaluation": evaluation, **SMALL, **({"analysis": body["analysis"]} if "analysis" in body else {})}
    values["evaluation.transfer_sets"] = [
        {"probe": {}, **({"name": each} if isinstance(each, str) else each)}
        for each in evaluation.get("transfer_sets", [])
    ]
    for each in values["evaluation.transfer_sets"]:
        each["probe"] = {**each["probe"], "trials": 2, "max_iterations": 5, "epochs": 1}
        if each.get("shots"):
            each["shots"] = 2
    if "imagenet" in file.stem:
        values["evaluation.test_set"] = {"name": "imagenet_val", "path": str(published / "imagenet" / "val")}
    if file.stem == "own_classes":
        for key in body["classes"]:
            (published / "own" / key).mkdir(parents=True, exist_ok=True)
            image = next((published / "imagenet" / "val" / "n02007558").iterdir())
            (published / "own" / key / "1.jpg").write_bytes(image.read_bytes())
        values |= {"evaluation.test_set": str(published / "own"), "generation.images_per_class": 3}
    if body.get("generation", {}).get("sampler") == "paper":
        values["generation.num_inference_steps"] = 3  # its scheduler's least
    if "adaptive" in body:
        values |= {"adaptive": body["adaptive"], "adaptive.num_rounds": 2, "adaptive.every": 1}
        values["evaluation.generated_images_per_class"] = 1
    if sweep:
        values |= {"sweep": sweep, **SMALL_SWEEP}
        if "rungs" in sweep:
            values["sweep.rungs"] = [{"images_per_class": 1, "num_seeds": 1}, {"images_per_class": 2, "num_seeds": 1}]
    return values


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_each_experiment_runs_to_its_end(file, tmp_path, tiny_sets, ray_cluster, monkeypatch):
    values = {**values_of(file, tiny_sets), "storage": str(tmp_path / "runs"), **some_classes(file, tmp_path)}
    if file.stem != ON_RAY_TRAIN:  # each start of its workers takes a quarter of a minute
        values["training.num_workers"] = 1
        monkeypatch.setattr("raysd.training.train.train_classifiers", train_here)
    if "pretrained" in values["evaluation"]:
        values["evaluation.pretrained"] = [str(pretrained(tmp_path / "resnet"))]
        values["analysis.model"] = str(tmp_path / "resnet")
        values["analysis.neighbors"] = 2
    config = written(file, tmp_path, values)
    body = yaml.safe_load(config.read_text())
    has_sets = any(body["evaluation"].get(name) for name in ("test_set", "test_sets", "transfer_sets"))
    verbs = ["generate", "train", *(["evaluate"] if has_sets else [])]
    does_these_itself = file.stem.startswith(("sweep", "adapt"))
    verbs = ["plan", *([] if does_these_itself else verbs), *(["adapt"] if "adaptive" in body else [])]
    verbs += [*(["analyze"] if "analysis" in body else []), *(["sweep"] if "sweep" in body else []), "report"]
    for verb in verbs:
        done = run_main(tmp_path, verb, config)
        assert done.returncode == 0, f"{verb}: {done.stderr[-3000:]}"
    rows = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "results" / "accuracy").glob("*.json")]
    wanted = [each["name"] if isinstance(each, dict) else each for each in body["evaluation"].get("test_sets", [])]
    wanted += [each["name"] for each in body["evaluation"]["transfer_sets"]]
    wanted += ["held-out"] if "adaptive" in body else []
    there = {row["dataset"] for row in rows if row["value"] is not None}
    assert all(any(name.startswith(each) for name in there) for each in wanted), (wanted, there)


def pretrained(folder):
    """A classifier of ImageNet's classes in timm's format, with random weights."""
    import timm
    from safetensors.torch import save_file

    model = timm.create_model("resnet18", layers=[1, 1, 1, 1], channels=[8, 8, 8, 8], num_classes=1000)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    settings = {"input_size": [3, 32, 32], "crop_pct": 1.0, "num_classes": 1000}
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    config = {"architecture": "resnet18", "num_classes": 1000, "model_args": options, "pretrained_cfg": settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
