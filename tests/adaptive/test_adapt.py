import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import raysd
from raysd.adaptive.parts import Part
from raysd.clone.shard import DATA
from raysd.config import load_experiment
from raysd.data.images import ImageSet, decode_all
from raysd.data.pixels import to_rgb
from raysd.errors import UserError
from raysd.report.plots.rounds import Adapted
from raysd.report.samples.added import added_grid, added_samples
from raysd.storage.location import Location
from raysd.storage.rows import ADAPTIVE, ROUND, read_rows

SETTINGS = {
    "generation": {
        "num_inference_steps": 4,
        "images_per_class": 12,
        "images_per_shard": 40,
        "batch_size": 10,
        "num_actors": 1,
    },
    "training": {
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
        "stem_stride": 2,
        "num_epochs": 2,
        "batch_size": 20,
        "num_workers": 1,
        "logger": "none",
        "seeds": [0, 1],
    },
    "evaluation": {"generated_images_per_class": 4},
    "adaptive": {"way": "uniform", "num_rounds": 3, "first_share": 0.34},
}
DUMMY = {"model": "dummy", "guidance_scale": 1}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("adapt") / "runs"


@pytest.fixture(scope="module")
def adapted(root):
    """The ways, in one storage; two of them with images that cost nothing."""
    experiment = load_experiment({"storage": str(root), **SETTINGS})
    quick = load_experiment(experiment, generation=DUMMY)
    return {
        "uniform": raysd.adapt(experiment),
        "entropy": raysd.adapt(experiment, adaptive={"way": "entropy", "weight": 0, "every": 1}),
        "budgets": raysd.adapt(quick, adaptive={"way": "budgets"}),
        "select": raysd.adapt(quick, adaptive={"way": "select", "pool_factor": 2, "num_rounds": 2}),
    }


def clone_rows(root, answer):
    folder = root / "clones" / answer.rounds[-1]["clones"][0] / DATA
    return pq.read_table(folder, columns=["label", "index", "seed"]).to_pylist()


def pixels(root, clone):
    found = decode_all(ImageSet("clone", clone, Location(str(root / "clones" / clone / DATA))), 32)
    return {(label, index): image for label, index, image in _rows(root, clone, found)}


def _rows(root, clone, found):
    images = ImageSet("clone", clone, Location(str(root / "clones" / clone / DATA)))
    tables = [images.read_rows(file) for file in images.files()]
    places = [(label, index) for table in tables for label, index in zip(*_columns(table), strict=True)]
    return [(label, index, image) for (label, index), image in zip(places, found.images, strict=True)]


def _columns(table):
    return table["label"].to_pylist(), table["index"].to_pylist()


def test_the_control_ends_with_the_classifiers_of_the_plain_clone(adapted, root):
    experiment = load_experiment({"storage": str(root), **SETTINGS})
    before = {path: path.stat().st_mtime_ns for path in (root / "classifiers").iterdir()}
    plain = [classifier.fingerprint for classifier in raysd.train(experiment)]
    assert [classifier.fingerprint for classifier in adapted["uniform"].classifiers] == plain
    assert {path: path.stat().st_mtime_ns for path in (root / "classifiers").iterdir()} == before


def test_each_round_has_the_images_that_it_should(adapted):
    for way, answer in adapted.items():
        images = [40, 120] if way == "select" else [40, 80, 120]
        assert [row["num_images"] for row in answer.rounds] == images, way
        assert answer.num_images == 120 and answer.rounds[-1]["is_last"] and not answer.rounds[0]["is_last"]
        assert {row["decided_by"] for row in answer.rounds} == {"generated"}
    assert len(adapted["uniform"].to_pandas()) == 3


def test_budgets_give_more_to_classes_with_more_errors(adapted):
    first, second, _ = adapted["budgets"].rounds
    added = np.subtract(second["counts"], first["counts"])
    accuracies = np.array(first["per_class"])
    assert added.sum() == 40 and added[accuracies.argmin()] == added.max() and added.min() >= 2


def test_a_selection_has_its_images_from_a_larger_pool(adapted):
    first, last = adapted["select"].rounds
    assert [sum(row["parts"][0]["counts"]) for row in (first, last)] == [40, 200]
    assert [row["counts"] for row in (first, last)] == [[4] * 10, [12] * 10]
    part = Part.from_json(last["parts"][0])
    labels, index = np.tile(np.arange(10), 4), np.repeat(np.arange(4), 10)
    assert not part.left_out.contains(labels, index).any(), "the first round was not kept"
    assert adapted["select"].config is None


def test_the_report_shows_what_the_last_growth_of_each_way_added(adapted, root):
    shown = {way: added_samples(answer.rounds, Location(str(root))) for way, answer in adapted.items()}
    whole = pixels(root, adapted["uniform"].rounds[-1]["clones"][0])
    wanted = {(label, place) for label in range(10) for place in range(3)}
    for way in ("uniform", "entropy"):  # without weight the same images
        assert shown[way].images.keys() == wanted
        for (label, place), sample in shown[way].images.items():
            shown_pixels = np.asarray(to_rgb(Image.open(io.BytesIO(sample.data))))
            assert np.array_equal(shown_pixels.transpose(2, 0, 1), whole[label, 8 + place])
    before, after = (row["counts"] for row in adapted["budgets"].rounds[-2:])
    seeds = {(row["label"], row["index"]): row["seed"] for row in clone_rows(root, adapted["budgets"])}
    assert {place: sample.seed for place, sample in shown["budgets"].images.items()} == {
        (label, place): seeds[label, first + place]
        for label, (first, end) in enumerate(zip(before, after, strict=True))
        for place in range(min(3, end - first))
    }
    assert shown["select"].images.keys() == wanted
    part = Part.from_json(adapted["select"].rounds[-1]["parts"][0])
    seeds = {(row["label"], row["index"]): row["seed"] for row in clone_rows(root, adapted["select"])}
    chosen = {seeds[place] for place in seeds if place[1] >= 4 and not part.left_out.contains(*map(np.array, place))}
    assert {sample.seed for sample in shown["select"].images.values()} <= chosen
    ways = [Adapted(way, answer.row, tuple(answer.rounds)) for way, answer in adapted.items()]
    grid = added_grid(ways, Location(str(root)))
    assert grid.caption.startswith("Some images of each class") and "uniform, entropy, budgets" in grid.caption
    assert added_grid(ways, Location(str(root / "moved"))) is None and added_grid(ways[:1], Location(str(root))) is None


def test_guidance_without_weight_generates_the_images_of_the_control(adapted, root):
    whole = pixels(root, adapted["uniform"].rounds[-1]["clones"][0])
    first = 0
    for part, clone in zip(
        adapted["entropy"].rounds[-1]["parts"], adapted["entropy"].rounds[-1]["clones"], strict=True
    ):
        for (label, index), image in pixels(root, clone).items():
            if index < part["counts"][label]:
                assert np.array_equal(image, whole[label, first + index])
        first += part["counts"][0]
    assert first == 12


def test_the_same_command_again_makes_nothing(adapted, root, monkeypatch):
    monkeypatch.setattr("raysd.adaptive.loop.Actors.grow", None)
    monkeypatch.setattr("raysd.generation.actor_pool.ActorPool.__init__", None)
    monkeypatch.setattr("raysd.training.loop.train_seeds", None)
    rows = {kind.name: len(read_rows(Location(str(root)), kind)) for kind in (ROUND, ADAPTIVE)}
    again = raysd.adapt({"storage": str(root), **SETTINGS}, generation=DUMMY, adaptive={"way": "budgets"})
    assert again.row == adapted["budgets"].row and again.rounds == adapted["budgets"].rounds
    assert {kind.name: len(read_rows(Location(str(root)), kind)) for kind in (ROUND, ADAPTIVE)} == rows


def test_other_commands_go_on_from_the_written_file(adapted, root):
    for way in ("budgets", "entropy"):
        experiment = load_experiment(adapted[way].config)
        found = [classifier.fingerprint for classifier in raysd.train(experiment)]
        there = [classifier.fingerprint for classifier in adapted[way].classifiers]
        assert len(found) == 2
        if way == "budgets":
            text = Path(adapted[way].config).read_text()
            assert "class_counts" in text and "The images of the last round" in text
        records = [json.loads((root / "classifiers" / name / "record.json").read_text()) for name in (*found, *there)]
        assert len({record["trained_on"]["images_per_class"] for record in records}) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"training": {"real": "fashion_mnist"}}, "training.real"),
        ({"generation": {"class_counts": {"Bag": 3}}}, "generation.class_counts"),
        ({"generation": {"first_image": 3}}, "generation.first_image"),
        ({"adaptive": {"num_rounds": 30}}, "adaptive.num_rounds"),
        ({"adaptive": {"patience": 2}}, "adaptive"),
        ({"adaptive": {"way": "entropy"}, "generation": {"model": "dummy"}}, "adaptive.way"),
        (
            {"adaptive": {"way": "entropy"}, "generation": {"exemplar_guidance": {"images": "own", "model": "any"}}},
            "generation.exemplar_guidance",
        ),
        ({"training": {"batch_size": 100}}, "training.batch_size"),
    ],
)
def test_what_the_rounds_would_overrule_is_refused_in_one_line(root, changes, field):
    with pytest.raises(UserError) as found:
        raysd.adapt({"storage": str(root), **SETTINGS}, **changes)
    assert found.value.field == field and "\n" not in str(found.value)
