"""Scores beside a clone, and the filters that read them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stand_in import StandIn, actor_of, job_of
from tiny_models import image_text_models

from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import read_shard
from raysd.curation import near_duplicates as thumbnails
from raysd.curation.filters import filter_images
from raysd.curation.image_text_model import ImageTextModel, find_image_text_model
from raysd.curation.near_duplicates import Reference
from raysd.curation.scores import read_scores, resolve_scoring_spec
from raysd.curation.scoring import compare_classes, score_clone
from raysd.curation.settings import FilterSettings, ScoringSettings
from raysd.curation.shard_scorer import ShardScorer
from raysd.data.images import LeftOut
from raysd.errors import Failure, UserError
from raysd.generation.batch import GeneratedBatch

ONE_ACTOR = GenerationSettings(num_actors=1)


def noise(seed, size=32):
    return (
        np.random.default_rng(seed).integers(0, 255, (size // 8, size // 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    )


def encoded(pixels, codec="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, codec, **options)
    return buffer.getvalue()


def described(*images):
    return thumbnails.descriptors([thumbnails.thumbnail(data) for data in images])


def test_another_codec_size_brightness_or_contrast_is_the_same_image_and_another_one_is_not():
    image = noise(0, 64)
    larger = np.asarray(Image.fromarray(image).resize((80, 80), Image.Resampling.BICUBIC))
    darker = (image * 0.6).astype(np.uint8)
    alike = described(
        encoded(image), encoded(image, "JPEG", quality=50), encoded(larger), encoded(darker), encoded(noise(1, 64))
    )
    correlation = alike @ alike.T
    assert correlation[:4, :4].min() > 0.98 and correlation[4, :4].max() < 0.8


def test_a_flat_image_is_no_near_duplicate():
    values = described(*[encoded(np.full((32, 32), level, dtype=np.uint8)) for level in (0, 0, 90)])
    assert np.abs(values @ values.T).max() == 0


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 99))
def test_the_nearest_earlier_image_is_found_whatever_the_block(length, block, seed):
    values = np.random.default_rng(seed).normal(size=(length, 8)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    original, thumbnails.BLOCK = thumbnails.BLOCK, block
    try:
        similarity, index = thumbnails.nearest_earlier(values)
    finally:
        thumbnails.BLOCK = original
    for i in range(length):
        correlations = values[:i] @ values[i]
        assert similarity[i] == pytest.approx(correlations.max() if i else -1, abs=1e-5)
        assert index[i] == (correlations.argmax() if i else -1)


class Repeating(StandIn):
    """Generates the image of the class's first index for each third one."""

    def generate(self, spec, images):
        pixels = [noise(image.label if image.index % 3 == 0 else 1000 + image.position) for image in images]
        return GeneratedBatch(np.stack(pixels), [""] * len(images))


def whole_clone(folder, images_per_class=7):
    job = job_of(folder, images_per_class)
    for shard in range(job.num_shards):
        actor_of(job, Repeating()).generate_shard(job, shard)
    record = {
        "planned": [job.counts.to_json()],
        "complete": True,
        "num_classes": 10,
        "images_per_shard": 15,
        "num_images": len(job),
    }
    job.folder.write("clone.json", json.dumps(record).encode())
    return job


@pytest.fixture(scope="module")
def scored(ray_cluster, tmp_path_factory):
    """A clone of 7 images a class, of which 0, 3 and 6 are the same; the images 4 of all classes are in a test set."""
    job = whole_clone(tmp_path_factory.mktemp("clone"))
    tests = tuple(thumbnails.thumbnail(encoded(noise(1000 + 40 + label))) for label in range(10))
    reference = Reference("tests", "0" * 16, tests)
    spec = resolve_scoring_spec(ScoringSettings(), job.spec.table, [("tests", reference.fingerprint)])
    return job, spec, [reference], score_clone(job, spec, lambda: [reference], ONE_ACTOR, 8)


def test_near_duplicates_inside_the_clone_and_of_test_images_are_found(scored):
    job, spec, _, summary = scored
    assert (summary.num_images, summary.num_scored, summary.num_duplicates, summary.num_test_matches) == (
        70,
        70,
        20,
        10,
    )
    for row in read_scores(job, spec).to_pylist():
        assert (row["duplicate_similarity"] > 0.98) == (row["index"] in (3, 6)), row
        assert row["duplicate_of"] == {3: 0}.get(row["index"], row["duplicate_of"])
        assert (row["test_similarity"] > 0.98) == (row["index"] == 4)
        assert row["index"] != 4 or row["test_match"] == f"tests/{row['label']}"
        assert row["similarity"] is row["probability"] is None


def test_scoring_again_scores_nothing_and_a_grown_clone_only_what_is_new(scored, tmp_path):
    job, spec, references, _ = scored
    before = read_scores(job, spec)
    assert score_clone(job, spec, lambda: references, ONE_ACTOR, 8).num_scored == 0
    small = whole_clone(tmp_path, 6)
    assert score_clone(small, spec, lambda: references, ONE_ACTOR, 8).num_scored == 60
    large = whole_clone(tmp_path, 7)
    with pytest.raises(UserError, match="has grown since"):
        read_scores(large, spec)
    assert score_clone(large, spec, lambda: references, ONE_ACTOR, 8).num_scored == 10
    assert read_scores(large, spec).equals(before)


def test_scoring_an_unchanged_clone_again_opens_two_files_and_no_test_set(scored, monkeypatch):
    import pyarrow.parquet as pq

    job, spec, _, summary = scored
    opened = []
    for name in ("read_metadata", "read_table", "ParquetFile"):
        original = getattr(pq, name)
        monkeypatch.setattr(
            pq,
            name,
            lambda file, *args, original=original, **options: opened.append(file) or original(file, *args, **options),
        )
    assert (
        score_clone(job, spec, lambda: pytest.fail("the test sets were read"), ONE_ACTOR, 8).num_duplicates
        == summary.num_duplicates
    )
    assert sorted(file.rpartition("/")[2] for file in opened) == ["counts.parquet", "scores-00000.parquet"]


def test_a_shard_that_cannot_be_scored_takes_no_other_one_with_it_and_is_tried_again(scored, tmp_path):
    _, spec, references, _ = scored
    job = whole_clone(tmp_path, 7)
    kept = job.folder.child("data").read("train-000001.parquet")
    table = read_shard(job.folder, 1, job.spec).table
    images = [{**image, "bytes": b"no image"} for image in table["image"].to_pylist()]
    broken = table.set_column(table.schema.get_field_index("image"), table.schema.field("image"), pa.array(images))
    pq.write_table(broken.cast(table.schema), tmp_path / "data" / "train-000001.parquet")
    with pytest.raises(Failure, match=r"^1 of 5 shards could not be scored: UnidentifiedImageError"):
        score_clone(job, spec, lambda: references, ONE_ACTOR, 8)
    job.folder.child("data").write("train-000001.parquet", kept)
    assert score_clone(job, spec, lambda: references, ONE_ACTOR, 8).num_scored == 15


def test_a_part_of_a_clone_that_was_scored_does_not_pass_for_the_whole(scored, tmp_path):
    _, spec, references, _ = scored
    large = whole_clone(tmp_path, 7)
    small = job_of(tmp_path, 3)
    assert score_clone(small, spec, lambda: references, ONE_ACTOR, 8).num_images == 30
    with pytest.raises(UserError, match="or was scored in part"):
        filter_images(large, spec, FilterSettings(max_duplicate=0.98))
    assert score_clone(large, spec, lambda: references, ONE_ACTOR, 8).num_scored == 40
    assert len(filter_images(large, spec, FilterSettings(max_duplicate=0.98))) == 20
    assert len(filter_images(small, spec, FilterSettings(max_duplicate=0.98))) == 0


def test_classes_are_compared_in_ranges_that_together_are_all(scored):
    job, spec, _, _ = scored
    folder = spec.folder(job)
    names = folder.child("parts").list_files(".parquet")
    for number, (first, last) in enumerate([(0, 3), (3, 10)]):
        compare_classes(folder.child("parts"), names, first, last, folder.child("two"), number)
    import pyarrow.parquet as pq

    both = [pq.read_table(folder.child("two").file(f"scores-0000{number}.parquet")) for number in range(2)]
    assert pa.concat_tables(both).equals(read_scores(job, spec))


def test_images_are_never_changed_for_a_score(scored):
    job, _, _, _ = scored
    data = job.folder.child("data")
    again = whole_clone(job.folder.child("again").path)
    assert {name: data.read(name) for name in data.list_files()} == {
        name: again.folder.child("data").read(name) for name in data.list_files()
    }


@pytest.mark.parametrize(
    ("filters", "left_out"),
    [
        ({}, set()),
        ({"max_duplicate": 0.98}, {3, 6}),
        ({"max_test_match": 0.98}, {4}),
        ({"max_duplicate": 0.98, "max_test_match": 0.98}, {3, 4, 6}),
    ],
)
def test_filters_choose_when_the_images_are_read(scored, filters, left_out):
    from raysd.resolve import clone_images

    job, spec, _, _ = scored
    chosen = filter_images(job, spec, FilterSettings(**filters))
    assert len(chosen) == 10 * len(left_out)
    from dataclasses import replace

    images = replace(clone_images(job), left_out=chosen)
    indices = [index for file in images.files() for index in images.read_rows(file)["index"].to_pylist()]
    assert set(indices) == set(range(7)) - left_out and len(indices) == 70 - len(chosen)
    assert (images.identity() == clone_images(job).identity()) is False


def test_a_filter_needs_its_score(scored, tmp_path):
    job, spec, _, _ = scored
    with pytest.raises(UserError, match=r"training\.filters\.min_probability = 0\.5: needs an image-text model"):
        filter_images(job, spec, FilterSettings(min_probability=0.5))
    nothing = resolve_scoring_spec(ScoringSettings(), job.spec.table, [])
    with pytest.raises(UserError, match=r"training\.filters\.max_test_match = 0\.9: needs a test set"):
        filter_images(job, nothing, FilterSettings(max_test_match=0.9))
    with pytest.raises(UserError, match="the clone has no such scores; run raysd score"):
        filter_images(whole_clone(tmp_path), spec, FilterSettings(max_duplicate=0.9))


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 6))))
def test_left_out_is_exactly_what_was_marked(marked):
    mask = np.zeros(35, dtype=np.uint8)
    for label, index in marked:
        mask[index * 5 + label] = 1
    left_out = LeftOut(5, np.packbits(mask).tobytes())
    labels, index = (part.ravel() for part in np.meshgrid(np.arange(5), np.arange(100), indexing="ij"))
    found = left_out.contains(labels, index)
    assert set(zip(labels[found].tolist(), index[found].tolist(), strict=True)) == marked and len(left_out) == len(
        marked
    )


@pytest.fixture(scope="module", params=["clip", "siglip2"])
def model_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model, processor = image_text_models()[request.param]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_similarities_are_those_of_the_plain_model(model_folder):
    import torch
    from transformers import AutoModel, AutoProcessor

    texts = ("a photo of a bag", "a photo of a coat", "shirt")
    images = [Image.fromarray(noise(seed)).convert("RGB") for seed in range(3)]
    model, processor = AutoModel.from_pretrained(model_folder).eval(), AutoProcessor.from_pretrained(model_folder)
    inputs = processor(
        text=list(texts),
        images=images,
        padding="max_length",
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    )
    with torch.inference_mode():
        output = model(**inputs)
    expected = (output.image_embeds @ output.text_embeds.T).numpy()
    np.testing.assert_allclose(ImageTextModel(model_folder, texts).similarities(images), expected, atol=1e-5)


def test_images_are_scored_by_how_they_fit_their_class(model_folder, tmp_path):
    job = whole_clone(tmp_path, 3)
    spec = resolve_scoring_spec(ScoringSettings(model=str(model_folder), template="{name}"), job.spec.table, [])
    scorer = ShardScorer(job, spec, [], batch_size=4, num_threads=1)
    for shard in range(job.num_shards):
        scorer.score_shard(shard)
    parts = spec.folder(job).child("parts")
    compare_classes(parts, parts.list_files(), 0, 10, spec.folder(job), 0)
    spec.folder(job).write("scores.json", json.dumps({"num_files": 1, "counts": {"default": 3, "own": []}}).encode())
    rows = read_scores(job, spec).to_pylist()
    model = ImageTextModel(model_folder, spec.texts)
    images = [
        row for shard in range(job.num_shards) for row in read_shard(job.folder, shard, job.spec).table.to_pylist()
    ]
    by_place = {(row["label"], row["index"]): row["image"]["bytes"] for row in images}
    for row in rows:
        similarities = model.similarities([Image.open(io.BytesIO(by_place[row["label"], row["index"]]))])[0]
        assert row["similarity"] == pytest.approx(similarities[row["label"]], abs=1e-4)
        assert 0 < row["probability"] < 1 and row["guess"] == similarities.argmax()
    best = filter_images(job, spec, FilterSettings(best_share=0.5))
    for label in range(10):
        own = sorted((row["similarity"], row["index"]) for row in rows if row["label"] == label)
        assert [bool(best.contains(np.array([label]), np.array([index]))[0]) for _, index in own] == [
            True,
            False,
            False,
        ]
    middle = float(np.median([row["similarity"] for row in rows]))
    assert len(filter_images(job, spec, FilterSettings(min_similarity=middle))) == sum(
        row["similarity"] < middle for row in rows
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "no_such_model"}, r"scoring\.model = 'no_such_model': no such folder"),
        ({"template": "a {color} {name}"}, r"scoring\.template = .*unknown variable {color}"),
    ],
)
def test_bad_scoring_settings_are_said_in_one_line(settings, message):
    from raysd.config import Experiment

    with pytest.raises(UserError, match=message):
        resolve_scoring_spec(ScoringSettings(**settings), Experiment().table, [])


def test_a_model_without_texts_is_refused(tmp_path):
    from tiny_models import clip_config
    from transformers import CLIPTextModel

    CLIPTextModel(clip_config()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="gives no features of both images and texts"):
        find_image_text_model(str(tmp_path))


@pytest.mark.slow
def test_the_command_scores_a_clone_and_the_classifier_learns_from_what_is_left(run_here, ray_cluster):
    words = [
        "storage=runs",
        "generation.model=dummy",
        "generation.images_per_class=8",
        "training.num_epochs=1",
        "training.batch_size=20",
    ]
    words += [
        "training.backbone_options={layers: [1,1,1,1], channels: [8,8,8,8]}",
        "scoring.against=[digits]",
        "training.num_workers=1",
        "generation.num_actors=1",
    ]
    filtered = [*words, "training.filters.max_duplicate=0.95"]
    assert run_here("generate", *words).returncode == 0
    early = run_here("train", *filtered)
    assert early.returncode == 2 and "run raysd score" in early.stderr and "Traceback" not in early.stderr
    scored = run_here("score", *words)
    assert scored.returncode == 0, scored.stderr
    assert (
        "80 images have scores, 80 scored now" in scored.stdout and "near-duplicates of a test image" in scored.stdout
    )
    trained = run_here("train", *filtered)
    assert trained.returncode == 0, trained.stderr
