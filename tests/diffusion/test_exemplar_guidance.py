"""Guidance by exemplars, with a classifier of random weights and images of one color."""

import io
import shlex
import shutil
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from plans import TABLE, plan_of
from stand_in import StandIn, actor_of

from raysd.classifier.architecture import Architecture
from raysd.classifier.exemplars import Nearness
from raysd.classifier.model import build_classifier, save_classifier
from raysd.clone.record import begin_record, end_record
from raysd.clone.scan import check_shards
from raysd.commands.apart import check_apart
from raysd.config import load_experiment
from raysd.data.images import decode_image
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.evaluation.medoids import k_medoids
from raysd.evaluation.teachers import saw_real
from raysd.generation.cost import guided_steps
from raysd.generation.pipeline import Generator
from raysd.resolve import clone_images, clone_of, clone_spec_of
from raysd.storage.location import Location

ARCHITECTURE = Architecture("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, 10, 32, 2)
BATCH, PER_CLASS = 4, 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a classifier and a real data set, whose images are noise of their own."""
    folder = tmp_path_factory.mktemp("exemplars")
    torch.manual_seed(1)
    record = {"fingerprint": "aa", "seed": 0, "trained_on": {"kind": "random", "name": "none"}}
    save_classifier(Location(str(folder / "classifier")), build_classifier(ARCHITECTURE), ARCHITECTURE, record)
    random = np.random.default_rng(0)
    for key in TABLE.keys:
        (folder / "real" / key).mkdir(parents=True)
        for number in range(2 * PER_CLASS):
            pixels = np.full((32, 32), random.integers(0, 256), np.uint8) + random.integers(0, 9, (32, 32), np.uint8)
            Image.fromarray(pixels).save(folder / "real" / key / f"{number}.png")
    return folder


def experiment_of(root, generation=None, **own):
    guidance = {"images": str(root / "real"), "model": str(root / "classifier"), "every": 1, "per_class": PER_CLASS}
    values = {"num_inference_steps": 4, "images_per_class": 8, **(generation or {})}
    return load_experiment(
        {
            "storage": str(root / "runs"),
            "generation": {"exemplar_guidance": {**guidance, **own}, **values},
            "lint": "off",
        }
    )


def spec_for(root, generation=None, **own):
    return clone_spec_of(experiment_of(root, generation, **own))


def plain(spec):
    return replace(spec, exemplar_guide=None)


@pytest.fixture(scope="module")
def generator(root):
    torch.set_num_threads(1)
    return Generator(spec_for(root))


def generate(generator, spec, positions):
    plan = plan_of(20, 16, spec)
    return generator.generate(spec, [plan.image(position) for position in positions]).pixels


def distances(spec, pixels, positions):
    """The squared distance of each image to the exemplar of its class and number, in features."""
    near = Nearness(spec.exemplar_guide, torch.device("cpu"), "gray")
    images = torch.from_numpy(np.atleast_3d(pixels)).float().div(127.5).sub(1)[:, None].expand(-1, 3, -1, -1)
    labels, numbers = [position % 10 for position in positions], [position // 10 for position in positions]
    return -near.of(labels, numbers)(images, slice(None)).numpy()


def test_without_weight_images_are_those_of_the_plain_clone(root, generator):
    spec = spec_for(root, weight=0)
    expected = generate(generator, plain(spec), range(BATCH))
    assert np.array_equal(generate(generator, spec, range(BATCH)), expected)
    assert not np.array_equal(generate(generator, spec_for(root), range(BATCH)), expected)


@pytest.mark.parametrize("through_denoiser", [False, True])
def test_an_image_does_not_depend_on_its_neighbors(root, generator, through_denoiser):
    spec = spec_for(root, through_denoiser=through_denoiser)
    alone = generate(generator, spec, [13] * BATCH)[0]
    for positions in ([13, 4, 25, 6], [7, 22, 13, 3], [33, 23, 3, 13]):
        assert np.array_equal(generate(generator, spec, positions)[positions.index(13)], alone)


def test_images_that_are_decoded_one_by_one_move_to_the_same_exemplars(root, generator, monkeypatch):
    spec = spec_for(root, weight=0.1)
    together = generate(generator, spec, [3, 14, 25, 36])
    monkeypatch.setattr("raysd.generation.pipeline.SLICED_SIZE", 32)
    one_by_one = generate(generator, spec, [3, 14, 25, 36])
    assert np.abs(together.astype(int) - one_by_one).max() <= 2


@pytest.mark.parametrize("through_denoiser", [False, True])
def test_images_are_nearer_to_their_exemplar_the_larger_the_weight(root, generator, through_denoiser):
    positions = [0, 11, 33, 77]
    specs = [spec_for(root, weight=weight, through_denoiser=through_denoiser) for weight in (0, 0.05, 0.15)]
    found = [distances(spec, generate(generator, spec, positions), positions).mean() for spec in specs]
    assert found[0] > found[1] > found[2]


def test_image_number_i_of_a_class_belongs_to_exemplar_i_modulo_their_number(root, generator, monkeypatch):
    spec, asked = spec_for(root, {"first_image": 2}), []
    target = Nearness.target
    monkeypatch.setattr(Nearness, "target", lambda *given: asked.append(given[1:]) or target(*given))
    generate(generator, spec, [3, 13, 24, 44])
    assert asked == [(3, 2), (3, 3), (4, 4), (4, 6)]
    near = Nearness(spec.exemplar_guide, torch.device("cpu"), "gray")
    images = np.stack([pixels[..., 0] for pixels in spec.exemplar_guide.exemplars.read(3)])
    assert len(images) == PER_CLASS
    for number in range(7):
        found = [distances(spec, image[None], [3 + 10 * number])[0] for image in images]
        assert np.argmin(found) == number % PER_CLASS and found[number % PER_CLASS] < 1e-6
    assert torch.equal(near.target(3, 1), near.target(3, 1 + PER_CLASS))


def test_exemplars_are_the_first_images_of_each_class_and_a_seed_takes_the_next(root):
    images = real_dataset(str(root / "real"), "train", Location(str(root / "runs")), table=TABLE)
    (file,) = images.files()
    rows = images.read_rows(file).to_pylist()
    for seed in (0, 1):
        exemplars = spec_for(root, seed=seed).exemplar_guide.exemplars
        for label in (0, 9):
            expected = [
                np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
                for row in sorted(rows, key=lambda row: row["index"])
                if images.to_labels(np.array([row["label"]]))[0] == label
            ][seed * PER_CLASS : (seed + 1) * PER_CLASS]
            assert np.array_equal([each[..., 0] for each in exemplars.read(label)], expected)


def test_a_classifier_of_timm_gives_the_features_that_timm_gives(root, tmp_path):
    folder = tmp_path / "timm"
    shutil.copytree(root / "classifier", folder)
    (folder / "record.json").unlink()
    guides = [spec_for(root, **own).exemplar_guide for own in ({}, {"model": str(folder)})]
    assert [guide.model.is_own for guide in guides] == [True, False]
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own, timms = (Nearness(guide, torch.device("cpu"), "rgb").features(images) for guide in guides)
    assert torch.allclose(own, timms, atol=1e-5) and own.shape == (2, 16)
    folder.rename(tmp_path / "away")
    with pytest.raises(UserError, match="is not on this node"):
        guides[1].model.load()


def test_rows_and_records_say_how_many_images_are_real(root):
    experiment = experiment_of(root)
    about = clone_images(clone_of(experiment)).about
    assert about["num_real_images"] == about["exemplars"]["num_real_images"] == 10 * PER_CLASS
    assert about["exemplars"]["model_saw_real"] == "no" and about["exemplars"]["source"] == "real-whole"
    assert clone_spec_of(experiment).describe()["num_real_images"] == 10 * PER_CLASS
    assert str(root) not in str(about)
    assert saw_real(about) == "yes" and saw_real({**about, "num_real_images": 0}) == "no"
    of_real = {**about["exemplars"], "model_saw_real": "yes"}
    assert saw_real({**about, "num_real_images": 0, "exemplars": of_real}) == "yes"


def test_what_shapes_images_is_in_the_fingerprint_and_nothing_is_without_guidance(root):
    specs = [spec_for(root), *(spec_for(root, **own) for own in ({"weight": 0.1}, {"per_class": 1}, {"seed": 1}))]
    assert len({spec.fingerprint for spec in [plain(specs[0]), *specs]}) == 5
    assert "exemplar_guidance" not in plain(specs[0]).identity()
    copied = spec_for(root, images=str(root / "real"), model=str(root / "runs" / ".." / "classifier"))
    assert copied.fingerprint == specs[0].fingerprint


def test_exemplars_are_kept_apart_from_images_that_are_measured_on(root):
    def check(generation=None, **evaluation):
        experiment = experiment_of(root, generation)
        experiment = load_experiment(experiment, evaluation=evaluation)
        check_apart(experiment, [], [clone_spec_of(experiment)])

    real = str(root / "real")
    for evaluation in ({"test_set": real}, {"transfer_sets": [{"name": real}]}):
        with pytest.raises(UserError, match="exemplars are also in evaluation") as found:
            check(**evaluation)
        assert found.value.field == "generation.exemplar_guidance.images" and "\n" not in str(found.value)
    validation = {"validation_set": real, "validation_images_per_class": PER_CLASS}
    check(**validation)  # the last images
    with pytest.raises(UserError, match="set another seed"):
        check(validation_set=real, validation_images_per_class=PER_CLASS + 1)


def test_moves_of_the_latents_are_counted_as_cost(root):
    weights = [guided_steps(spec_for(root, weight=weight)) for weight in (0, 0.1)]
    through = guided_steps(spec_for(root, through_denoiser=True))
    assert guided_steps(plain(spec_for(root))) == weights[0] == 4 < weights[1] < through


def test_bad_settings_are_refused_in_one_line(root, tmp_path):
    wrong = {
        "does not hand out its latents": {"generation": {"model": str(tiny_models.save_tiny("pixart", tmp_path))}},
        "compile=false": {"generation": {"compile": True}, "through_denoiser": True},
        "generation.step_cache": {"generation": {"step_cache": {"interval": 2}}, "through_denoiser": True},
        "guides no step of 4": {"every": 4},
        "no such set": {"images": "fashion"},
        "no such folder": {"model": str(tmp_path)[:-1]},
        "has no config.json": {"model": str(tmp_path)},
        "too few images of": {"seed": 2},
        "lower per_class or seed": {"per_class": 7},
        "raise pool": {"images": "own", "pool": 2},
        "needs the clone without guidance; run raysd generate with generation.guidance_scale=1": {"images": "own"},
        "both move the latents": {"generation": {"entropy_guidance": {"classifier": str(root / "classifier")}}},
        "less than or equal to 1": {"weight": 2},
    }
    for words, changes in wrong.items():
        with pytest.raises(UserError, match=words) as found:
            spec_for(root, changes.pop("generation", None), **changes)
        assert found.value.field.startswith("generation") and "\n" not in str(found.value)
    with pytest.raises(UserError, match="does not hand out"):
        spec_for(root, {"model": "dummy"})


def test_own_exemplars_are_medoids_of_the_unguided_clone_and_none_is_real(root):
    own = {"images": "own", "pool": 6, "per_class": 2}
    wanted = experiment_of(root, {"guidance_range": [1, 4], "seeds": [7, 8]}, **own)
    with pytest.raises(UserError, match="images_per_class=6") as found:
        clone_of(wanted)
    words = [word for word in shlex.split(found.value.remedy) if word.startswith("generation.")]
    assert "generation.guidance_range=null" in words and "generation.seeds=[]" in words
    unguided = clone_of(load_experiment(wanted, words))
    begin_record(unguided, 4, is_changed=True)
    for shard in range(unguided.num_shards):
        actor_of(unguided, StandIn()).generate_shard(unguided, shard)
    end_record(unguided, check_shards(unguided), 0)

    spec = clone_spec_of(wanted)
    exemplars = spec.exemplar_guide.exemplars
    assert exemplars.num_real_images == 0 == clone_images(clone_of(wanted)).about["num_real_images"]
    rows = clone_images(unguided).read_rows(clone_images(unguided).files()[0]).to_pylist()
    images = [decode_image(row["image"]["bytes"], 8).transpose(1, 2, 0) for row in rows if row["label"] == 3]
    assert len(images) == 6
    medoids = [next(i for i, image in enumerate(images) if np.array_equal(image, each)) for each in exemplars.read(3)]
    assert len(set(medoids)) == 2 and medoids == sorted(medoids)
    check_apart(load_experiment(wanted, evaluation={"test_set": str(root / "real")}), [], [spec])


def test_medoids_lie_in_the_middle_of_their_groups_and_are_the_same_each_time():
    random = np.random.default_rng(0)
    groups = [center + random.normal(size=(9, 5)) for center in (0, 50, -80)]
    features = np.concatenate(groups).astype(np.float32)
    found = k_medoids(features, 3)
    expected = [
        9 * number + int(np.square(group[:, None] - group[None]).sum(axis=(1, 2)).argmin())
        for number, group in enumerate(groups)
    ]
    assert found == expected == k_medoids(features.copy(), 3)
    assert k_medoids(np.ones((4, 2)), 3) == [0, 1, 2]
    order = random.permutation(len(features))
    assert sorted(order[k_medoids(features[order], 3)].tolist()) == found
    few = random.normal(size=(8, 3))
    distances = np.square(few[:, None] - few[None]).sum(axis=2)
    best = min(combinations(range(8), 2), key=lambda pair: distances[:, pair].min(axis=1).sum())
    assert k_medoids(few, 2) == list(best)
