import numpy as np
import pytest
import tiny_models
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_of, spec_of

from raysd.classifier.architecture import Architecture
from raysd.classifier.entropy import Entropy
from raysd.classifier.model import build_classifier, save_classifier
from raysd.diffusion.conventions import STEPPED
from raysd.diffusion.family import read_family
from raysd.diffusion.latent_steps import LatentSteps
from raysd.errors import UserError
from raysd.generation.pipeline import Generator
from raysd.storage.location import Location

ARCHITECTURE = Architecture("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, 10, 32, 2)
BATCH = 4
FAMILIES = ["sd1", "sdxl", "sd3", "sana"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier that is sure of its random answers."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(1)
    model = build_classifier(ARCHITECTURE)
    torch.nn.init.normal_(model.backbone.get_classifier().weight, std=10)
    save_classifier(Location(str(folder)), model, ARCHITECTURE, {"fingerprint": "aa"})
    return str(folder)


def guided(classifier, **changes):
    own = {name: changes.pop(name) for name in ("weight", "every", "through_denoiser") if name in changes}
    guidance = {"entropy_guidance": {"classifier": classifier, "every": 1, **own}}
    return spec_of(**{"num_inference_steps": 4, **guidance, **changes})


@pytest.fixture(scope="module")
def generator(classifier):
    torch.set_num_threads(1)
    return Generator(guided(classifier))


def generate(generator, spec, positions):
    plan = plan_of(10, 16, spec)
    return generator.generate(spec, [plan.image(position) for position in positions]).pixels


def entropies(classifier, pixels):
    images = torch.from_numpy(np.atleast_3d(pixels)).float().div(127.5).sub(1)
    entropy = Entropy(Location(classifier), torch.device("cpu"), "gray")
    return entropy(images[:, None].expand(-1, 3, -1, -1)).mean().item()


def test_without_weight_images_are_those_of_the_plain_clone_from_the_first_image_on(classifier, generator):
    plain = generate(generator, spec_of(num_inference_steps=4), range(20, 24))
    assert np.array_equal(generate(generator, guided(classifier, weight=0, first_image=2), range(4)), plain)
    assert not np.array_equal(generate(generator, guided(classifier, first_image=2), range(4)), plain)


@settings(max_examples=3, deadline=None)
@given(st.permutations(range(8)), st.booleans())
def test_an_image_does_not_depend_on_its_neighbors(classifier, generator, order, through_denoiser):
    spec = guided(classifier, through_denoiser=through_denoiser)
    alone = generate(generator, spec, [3] * BATCH)[0]
    positions = [3, *[position for position in order if position != 3]][:BATCH]
    place = order[0] % BATCH
    positions = [*positions[1 : place + 1], 3, *positions[place + 1 :]]
    assert np.array_equal(generate(generator, spec, positions)[place], alone)


@pytest.mark.parametrize("through_denoiser", [False, True])
def test_the_classifier_is_in_more_doubt_the_larger_the_weight(classifier, generator, through_denoiser):
    weights = [0, 0.02, 0.05]
    specs = [guided(classifier, weight=weight, through_denoiser=through_denoiser) for weight in weights]
    found = [entropies(classifier, generate(generator, spec, range(2 * BATCH))) for spec in specs]
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_guided_and_images_stay_independent(classifier, tmp_path, name):
    model = {"model": str(tiny_models.save_tiny(name, tmp_path)), "dtype": "float32", "num_inference_steps": 3}
    generator = Generator(spec_of(**model))
    plain, *others = (
        generate(generator, spec, [0, 1])
        for spec in (
            spec_of(**model),
            guided(classifier, weight=0.3, **model),
            guided(classifier, weight=0.3, through_denoiser=True, **model),
        )
    )
    for through_denoiser, found in zip((False, True), others, strict=True):
        assert not np.array_equal(found, plain)
        spec = guided(classifier, weight=0.3, through_denoiser=through_denoiser, **model)
        assert np.array_equal(generate(generator, spec, [5, 1])[1], found[1])
    assert not np.array_equal(*others)


def test_large_images_are_decoded_one_by_one_with_the_same_gradient(classifier, generator, monkeypatch):
    spec = guided(classifier)
    together = generate(generator, spec, range(BATCH))
    monkeypatch.setattr("raysd.generation.pipeline.SLICED_SIZE", 32)
    one_by_one = generate(generator, spec, range(BATCH))
    assert np.abs(together.astype(int) - one_by_one).max() <= 2


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_expected_image_is_that_of_diffusers(kind):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    pipeline = type("Pipeline", (), {"scheduler": scheduler, "unet": None})()
    steps = LatentSteps(pipeline, object(), lambda images, rows: images, 0.1, 1, 2, False, 2)
    sample, answer = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timestep = scheduler.timesteps[4]
    expected = scheduler.step(answer, timestep, sample).pred_original_sample
    assert torch.allclose(steps._image_latents(sample, answer, float(timestep)), expected, atol=1e-5)


def test_the_families_are_those_that_are_tried_here(tmp_path):
    folders = [tiny_models.save_tiny(name, tmp_path) for name in FAMILIES]
    assert [read_family(folder).pipeline for folder in folders] == list(STEPPED)


def test_what_cannot_be_guided_is_refused_in_one_line(classifier, tmp_path):
    pixart = str(tiny_models.save_tiny("pixart", tmp_path))
    wrong = {
        "does not hand out its latents": {"model": pixart},
        "holds no classifier": {"classifier": str(tmp_path)},
        "compile=false": {"compile": True, "through_denoiser": True},
        "generation.step_cache": {"step_cache": {"interval": 2}, "through_denoiser": True},
    }
    for words, changes in wrong.items():
        with pytest.raises(UserError, match=words) as found:
            guided(changes.pop("classifier", classifier), **changes)
        assert found.value.field.startswith("generation.entropy_guidance") and "\n" not in str(found.value)
    with pytest.raises(UserError, match="does not hand out"):
        guided(classifier, model="dummy")


def test_the_classifiers_weights_are_in_the_fingerprint_and_its_folder_is_not(classifier, tmp_path):
    same, other = tmp_path / "same", tmp_path / "other"
    for folder in (same, other):
        folder.mkdir()
    for file in Location(classifier).list_files(""):
        (same / file).write_bytes(Location(classifier).read(file))
    torch.manual_seed(2)
    save_classifier(Location(str(other)), build_classifier(ARCHITECTURE), ARCHITECTURE, {})
    plain, first, copied, another = (
        spec_of(num_inference_steps=4),
        guided(classifier),
        guided(str(same)),
        guided(str(other)),
    )
    assert first.fingerprint == copied.fingerprint
    assert len({spec.fingerprint for spec in (plain, first, another, guided(classifier, weight=0.1))}) == 4
    assert "entropy_guidance" not in plain.identity() and "first_image" not in plain.identity()
