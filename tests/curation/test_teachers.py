"""Teachers' distributions beside a clone: how they are kept, the soft labels of a training, and filters by them."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from stand_in import StandIn, actor_of, job_of
from tiny_models import image_text_models

from raysd.commands.checks import check_training
from raysd.config import load_experiment
from raysd.curation.filters import filter_images
from raysd.curation.scores import read_scores, resolve_scoring_spec
from raysd.curation.scoring import compare_classes
from raysd.curation.settings import FilterSettings, ScoringSettings
from raysd.curation.shard_scorer import ShardScorer
from raysd.curation.soft_labels import with_soft_labels
from raysd.curation.teachers import mean_logs, teacher_columns
from raysd.data.soft_labels import MOST_CLASSES, SoftLabels
from raysd.errors import UserError
from raysd.resolve import clone_images
from raysd.storage.fingerprint import fingerprint
from raysd.training.losses.soft_labels import softened
from raysd.training.recipe import Recipe

IMAGES = 6
"""Images of each of ten classes."""


@dataclass(frozen=True)
class ByContent:
    """A teacher whose distribution is a hash of the image's bytes, whatever stands beside it in a batch."""

    seed: int
    saw_real: str = "no"

    @property
    def fingerprint(self):
        return f"{self.seed:016x}"

    name = "by content"

    def load(self):
        return self

    def of(self, data):
        values = np.random.default_rng([self.seed, int(fingerprint(data.hex()), 16)]).normal(size=10) * 3
        return values - np.log(np.exp(values).sum())

    def log_probabilities(self, encoded):
        return np.stack([self.of(data) for data in encoded])


def score_all(job, spec):
    """Score a clone without Ray."""
    scorer = ShardScorer(job, spec, [], batch_size=4, num_threads=1)
    for shard in range(job.num_shards):
        scorer.score_shard(shard)
    parts, counts = spec.folder(job).child("parts"), {"default": IMAGES, "own": []}
    compare_classes(parts, parts.list_files(), 0, 10, spec.folder(job), 0, spec.scores)
    spec.folder(job).write("scores.json", json.dumps({**spec.describe(), "num_files": 1, "counts": counts}).encode())


def spec_of(job, *teachers, **settings):
    return resolve_scoring_spec(ScoringSettings(**settings), job.spec.table, [], teachers)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A clone with the scores of two teachers, and the bytes of each image by its place."""
    job = job_of(tmp_path_factory.mktemp("clone"), IMAGES)
    for shard in range(job.num_shards):
        actor_of(job, StandIn()).generate_shard(job, shard)
    job.folder.write("clone.json", json.dumps({"planned": [job.counts.to_json()], "complete": True}).encode())
    spec = spec_of(job, ByContent(1), ByContent(2))
    score_all(job, spec)
    images = clone_images(job)
    rows = [row for file in images.files() for row in images.read_rows(file).to_pylist()]
    return job, spec, {(row["label"], row["index"]): row["image"]["bytes"] for row in rows}


def mean_of(data):
    """The mean distribution of both teachers, in the plainest way."""
    return (np.exp(ByContent(1).of(data)) + np.exp(ByContent(2).of(data))) / 2


def test_scores_hold_the_mean_distribution_of_the_teachers(taught):
    job, spec, images = taught
    rows = read_scores(job, spec).to_pylist()
    assert len(rows) == 10 * IMAGES
    for row in rows:
        expected = mean_of(images[row["label"], row["index"]])
        np.testing.assert_allclose(np.exp(np.float64(row["teacher_logs"])), expected, rtol=5e-3)
        assert row["teacher_classes"] == list(range(10)) and row["teacher_guess"] == expected.argmax()
        others = np.delete(expected, row["label"]).max()
        assert row["margin"] == pytest.approx(expected[row["label"]] - others, abs=1e-6)
        assert row["teacher_probability"] == pytest.approx(expected[row["label"]], rel=1e-5)
        assert row["entropy"] == pytest.approx(-(expected * np.log(expected)).sum(), rel=1e-5)


def test_teachers_are_part_of_the_scores_name_and_scores_without_them_keep_theirs(taught):
    job, spec, _ = taught
    plain = spec_of(job)
    assert plain.fingerprint == fingerprint({"model": None, "references": []})
    assert len({plain.fingerprint, spec.fingerprint, spec_of(job, ByContent(1)).fingerprint}) == 3
    assert spec.describe()["teachers"]["saw_real"] == "no"
    assert spec_of(job, ByContent(1), ByContent(2, "yes")).describe()["teachers"]["saw_real"] == "yes"
    assert FilterSettings(max_duplicate=0.9).model_dump().keys() == {
        "min_similarity",
        "min_probability",
        "best_share",
        "max_duplicate",
        "max_test_match",
    }
    assert "teachers" not in ScoringSettings().model_dump() and "soft_weight" not in Recipe().model_dump()


def test_soft_labels_are_found_by_label_and_number_in_any_order(taught):
    job, spec, images = taught
    chosen = with_soft_labels(clone_images(job), job, spec, Recipe(soft_weight=0.5, soft_temperature=4))
    for file in chosen.files():
        rows = chosen.read_rows(file).take(np.random.default_rng(0).permutation(len(chosen.read_rows(file)))[:7])
        labels, index = rows["label"].to_numpy(), rows["index"].to_numpy()
        soft = chosen.soft_labels.read(file, labels, index)
        expected = [mean_of(images[place]) for place in zip(labels.tolist(), index.tolist(), strict=True)]
        np.testing.assert_allclose(softened(torch.from_numpy(soft), 10, 1.0), expected, rtol=5e-3)
        with pytest.raises(UserError, match=r"scoring\.teachers.*lacks images that the clone has; run raysd score"):
            chosen.soft_labels.read(file, labels, index + 100)
    assert chosen.identity() != clone_images(job).identity()
    about = chosen.about["teacher"]
    assert (about["saw_real"], about["weight"], about["temperature"]) == ("no", 0.5, 4)
    absent = SoftLabels(spec.folder(job).child("nowhere"), 10, "")
    with pytest.raises(UserError, match="run raysd score"):
        absent.read("train-000000.parquet", np.array([0]), np.array([0]))


def test_soft_labels_need_teachers_and_scores(taught):
    job, _, _ = taught
    recipe = Recipe(soft_weight=0.5)
    with pytest.raises(UserError, match=r"soft_weight = 0\.5: needs teachers; name them in scoring\.teachers"):
        with_soft_labels(clone_images(job), job, spec_of(job), recipe)
    with pytest.raises(UserError, match="the clone has no such scores; run raysd score"):
        with_soft_labels(clone_images(job), job, spec_of(job, ByContent(3)), recipe)
    with pytest.raises(UserError, match=r"scoring\.teachers = 'model': is the image-text model as a teacher"):
        spec_of(job, teachers=["model"])
    with pytest.raises(UserError, match=r"training\.filters\.margin = .*needs teachers; name them in scoring"):
        filter_images(job, spec_of(job), FilterSettings(margin=(0.2, 1)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.recipe_options.soft_weight=0.5", r"soft_weight = 0\.5: needs teachers; name them in"),
        ("training.filters.agreement=true", r"training\.filters\.agreement = True: needs teachers"),
        (
            "training.sources=[{clone: {}, filters: {margin: [0, 0.5]}}]",
            r"sources\.0\.filters\.margin = .*needs teach",
        ),
    ],
)
def test_a_training_that_needs_teachers_is_refused_before_anything_is_generated(override, message):
    with pytest.raises(UserError, match=message):
        check_training(load_experiment(None, [override]))


@pytest.mark.parametrize("real", ["training.real=fashion_mnist", "training.sources=[{clone: {}}, {real: digits}]"])
def test_real_images_have_no_soft_labels(real):
    with pytest.raises(UserError, match=r"soft_weight = 0\.5: the real images of \w+ have no scores"):
        check_training(load_experiment(None, ["training.recipe_options.soft_weight=0.5", real]))


def test_of_many_classes_the_likeliest_are_kept_and_the_rest_is_spread_evenly():
    logits = np.random.default_rng(0).normal(size=(3, 100)) * 4
    logs = mean_logs([logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))])
    columns = teacher_columns(logs, np.array([5, 6, 7]))
    soft = np.stack([np.stack(columns[name]).astype(np.float32) for name in ("teacher_classes", "teacher_logs")], 1)
    assert soft.shape == (3, 2, MOST_CLASSES)
    found = softened(torch.from_numpy(soft), 100, 1.0).double().numpy()
    for one, expected, kept in zip(found, np.exp(logs), soft[:, 0].astype(int), strict=True):
        others = np.setdiff1d(np.arange(100), kept)
        assert expected[kept].min() >= expected[others].max()
        np.testing.assert_allclose(one[kept], expected[kept], rtol=2e-2)
        assert one.sum() == pytest.approx(1, abs=1e-5) and np.ptp(one[others]) < 1e-6
        assert one[others].sum() == pytest.approx(expected[others].sum(), abs=5e-3)


def left_out(job, spec, **filters):
    """How many images of each class the filters leave out."""
    chosen = filter_images(job, spec, FilterSettings(**filters))
    labels, index = (part.ravel() for part in np.meshgrid(np.arange(10), np.arange(IMAGES), indexing="ij"))
    marked = chosen.contains(labels, index)
    return np.bincount(labels[marked], minlength=10), set(zip(labels[marked], index[marked], strict=True))


def test_a_window_of_quantiles_keeps_the_same_share_of_each_class_or_of_all_images(taught):
    job, spec, _ = taught
    entropy = {(row["label"], row["index"]): row["entropy"] for row in read_scores(job, spec).to_pylist()}
    counts, marked = left_out(job, spec, entropy=[0.5, 1])
    assert counts.tolist() == [3] * 10
    for label in range(10):
        own = sorted(range(IMAGES), key=lambda index, label=label: entropy[label, index])
        assert {index for other, index in marked if other == label} == set(own[:3])
    _, marked = left_out(job, spec, entropy=[0.5, 1], over_all_classes=True)
    assert marked == set(sorted(entropy, key=entropy.get)[:30])
    assert left_out(job, spec, entropy=[0, 1])[1] == set()
    assert left_out(job, spec, margin=[0.2, 0.9])[0].tolist() == [1] * 10  # 1.2 and 5.4 of six: ranks 1 to 5


def test_agreement_keeps_the_images_whose_guess_is_their_label(taught):
    job, spec, _ = taught
    rows = read_scores(job, spec).to_pylist()
    wrong = {(row["label"], row["index"]) for row in rows if row["teacher_guess"] != row["label"]}
    assert 0 < len(wrong) < len(rows) and left_out(job, spec, agreement=True)[1] == wrong
    assert not FilterSettings(agreement=False, over_all_classes=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.filters.entropy=[0.8, 0.2]", "the first must be less than the second"),
        ("training.filters.margin=[0, 1.5]", r"training\.filters\.margin"),
        ("training.recipe_options.soft_weight=1.5", "soft_weight"),
        ("training.recipe_options.soft_temperature=0", "soft_temperature"),
        ("scoring.teachers=[a, a]", "a teacher is given twice"),
    ],
)
def test_bad_settings_are_said_in_one_line(override, message):
    with pytest.raises(UserError, match=message) as caught:
        load_experiment(None, [override]).training.resolve_recipe()
    assert "\n" not in str(caught.value)


def test_an_image_text_model_teaches_by_the_softmax_over_its_texts(taught, tmp_path):
    model, processor = image_text_models()["clip"]()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    job, _, _ = taught
    spec = spec_of(job, model=str(tmp_path), teachers=["model"])
    score_all(job, spec)
    for row in read_scores(job, spec).to_pylist():
        assert np.exp(row["teacher_logs"][row["label"]]) == pytest.approx(row["probability"], rel=1e-2)
        assert row["teacher_guess"] == row["guess"]
    assert spec.describe()["teachers"]["saw_real"] == "unknown"
