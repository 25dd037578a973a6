"""No image is both chosen by, or trained on, and measured on: sets are compared by their images."""

import shutil

import numpy as np
import pytest
from PIL import Image

from raysd.commands.apart import check_apart
from raysd.commands.checks import check_sweep
from raysd.config import load_experiment
from raysd.data.overlap import HASHES, count_shared
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError

COUNT = 120


@pytest.fixture
def own(tmp_path):
    """A function that makes a folder of class folders with images of its own, from a seed."""

    def make(name, seed):
        random = np.random.default_rng(seed)
        for key in ("bag", "trouser"):
            (tmp_path / name / key).mkdir(parents=True)
            for number in range(COUNT):
                pixels = random.integers(0, 255, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / key / f"{number}.png", compress_level=0)
        return tmp_path / name

    return make


def checked(tmp_path, evaluation, real=None, **values):
    experiment = load_experiment(
        {"storage": str(tmp_path / "runs"), "classes": ["bag", "trouser"], "evaluation": evaluation, **values}
    )
    sets = [] if real is None else [real_dataset(str(real), "train", experiment.root, 10)]
    check_apart(experiment, sets)
    return experiment


def test_one_folder_for_choosing_and_for_reporting_is_refused_under_any_name(tmp_path, own):
    one, other = own("one", 0), own("other", 1)
    copy = tmp_path / "copy"
    shutil.copytree(one, copy)
    for reported in (
        {"test_set": str(one)},
        {"test_set": str(copy)},
        {"test_set": str(other), "test_sets": [str(copy)]},
        {"transfer_sets": [str(copy)]},
    ):
        with pytest.raises(UserError, match=r"of its .* images are also in what is chosen by .*; use other") as error:
            checked(tmp_path, {"validation_set": str(one), **reported})
        assert error.value.field.startswith("evaluation.t") and "\n" not in str(error.value)
        with pytest.raises(UserError, match="are also in what the classifiers are trained on"):
            checked(tmp_path, reported, real=one)
    checked(tmp_path, {"validation_set": str(one), "test_set": str(other)})


def test_a_set_that_is_trained_on_is_not_chosen_by_under_another_name(tmp_path, own):
    one = own("one", 0)
    shutil.copytree(one, tmp_path / "copy")
    evaluation = {"validation_set": str(tmp_path / "copy"), "validation_images_per_class": 100}
    checked(tmp_path, evaluation, real=one)  # 10 of each class are trained on, and the last 100 are chosen by
    evaluation["validation_images_per_class"] = 115
    with pytest.raises(UserError, match="validation_images_per_class = 115: meets the 10 images"):
        checked(tmp_path, evaluation, real=one)
    (tmp_path / "copy" / "bag" / "0.png").unlink()
    with pytest.raises(UserError, match=r"validation_set = .* are also in what the classifiers are trained on"):
        checked(tmp_path, evaluation, real=one)


def test_a_few_shared_images_are_said_and_the_splits_of_a_set_are_apart(tmp_path, own, caplog):
    one, other = own("one", 0), own("other", 1)
    shutil.copy(one / "bag" / "119.png", other / "bag" / "0.png")
    with caplog.at_level("INFO", logger="raysd"):
        checked(tmp_path, {"validation_set": str(one), "test_set": str(other)})
    (line,) = caplog.messages
    assert "evaluation.test_set" in line and "1 of its 240 images are also in what is chosen by" in line
    for name in ("one", "other"):
        shutil.copytree(tmp_path / name, tmp_path / "split" / {"one": "train", "other": "test"}[name])
    checked(tmp_path, {"validation_set": str(tmp_path / "split"), "test_set": str(tmp_path / "split")})


def test_a_sweep_without_a_real_baseline_is_checked_too(tmp_path, own):
    one = str(own("one", 0))
    experiment = load_experiment(
        {
            "storage": str(tmp_path / "runs"),
            "classes": ["bag", "trouser"],
            "generation": {"model": "dummy", "images_per_class": 4},
            "training": {"batch_size": 4},
            "evaluation": {"validation_set": one, "test_set": one},
            "sweep": {"space": {"generation": {"guidance_scale": [1, 2]}}},
            "lint": "off",
        }
    )
    with pytest.raises(UserError, match="are also in what is chosen by"):
        check_sweep(experiment)


def test_hashes_are_kept_beside_a_set_and_made_again_where_they_lack(tmp_path, own):
    from raysd.storage.location import Location

    root = Location(str(tmp_path / "runs"))
    first = real_dataset(str(own("one", 0)), "test", root, 5)
    whole = real_dataset(str(tmp_path / "one"), "test", root)
    assert count_shared(first, whole) == 10 and count_shared(whole, first) == 10
    (file,) = (tmp_path / "runs").rglob(f"{HASHES}/*.bin")
    stored = file.read_bytes()
    file.unlink()
    assert count_shared(first, whole) == 10 and file.read_bytes() == stored
