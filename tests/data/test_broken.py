import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysd.data.images import decode_all
from raysd.data.readers import encode_png
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.storage.location import Location


def png(value):
    return encode_png(np.full((8, 8), value, dtype=np.uint8))


def opened(name, tmp_path):
    return real_dataset(str(name), "test", Location(str(tmp_path / "root")))


def own_file(tmp_path, cells):
    pq.write_table(
        pa.table({"image": pa.array(cells, pa.binary()), "label": [0] * len(cells)}), tmp_path / "own.parquet"
    )
    return tmp_path / "own.parquet"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (b"no image", "no format that Pillow knows"),
        (png(7)[:-30], "truncated|broken|unrecognized"),
        (b"", "row 7 has no image"),
        (None, "row 7 has no image"),
    ],
    ids=["text", "short", "empty", "none"],
)
def test_a_broken_image_is_named_by_file_and_row_when_the_set_is_brought_in(tmp_path, cell, reason):
    path = own_file(tmp_path, [png(i) for i in range(7)] + [cell])
    with pytest.raises(UserError, match=rf"own\.parquet, row 7 \(.*({reason}).*; repair or remove it; or") as error:
        opened(path, tmp_path)
    assert str(path) in str(error.value) and f"{path}?on_broken=skip" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "root").rglob("*.parquet")), "nothing is stored"


def test_a_broken_file_is_named_by_its_path(tmp_path):
    for name, data in {"a/1.png": png(1), "b/2.png": png(2)[:50]}.items():
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"cannot be decoded: {tmp_path}/own/b/2\.png \("):
        opened(tmp_path / "own", tmp_path)


def test_skipped_images_are_counted_and_named_and_more_than_a_hundredth_is_refused(tmp_path, caplog):
    cells = [png(i) for i in range(200)]
    cells[3] = cells[150] = b"no image"
    path = own_file(tmp_path, cells)
    with caplog.at_level(logging.INFO, logger="raysd"):
        images = opened(f"{path}?on_broken=skip", tmp_path)
    (line,) = caplog.messages
    assert "2 of 200 images cannot be decoded and are left out: own.parquet, row 3 (" in line and "row 150 (" in line
    shades = decode_all(images, 8).images[:, 0, 0, 0].tolist()
    assert sorted(shades) == [i for i in range(200) if i not in (3, 150)]
    first = decode_all(real_dataset(f"{path}?on_broken=skip", "test", Location(str(tmp_path / "root")), 5), 8)
    assert len(first.images) == 5, "images are numbered without the skipped ones"
    with pytest.raises(UserError, match="row 3"):
        opened(path, tmp_path)
    cells[77] = b"no image"
    own_file(tmp_path, cells)
    with pytest.raises(UserError, match=r"more than 1 % of its 200 images cannot be decoded: own\.parquet, row 3 .*77"):
        opened(f"{path}?on_broken=skip", tmp_path)


def test_a_set_with_images_that_were_read_otherwise_has_another_fingerprint(tmp_path):
    import hashlib

    from PIL import Image

    def stored(name, image):
        (tmp_path / name / "a").mkdir(parents=True)
        image.save(tmp_path / name / "a" / "1.png")
        data = (tmp_path / name / "a" / "1.png").read_bytes()
        return opened(tmp_path / name, tmp_path).fingerprint, hashlib.blake2b(data + b"0", digest_size=8).hexdigest()

    fingerprint, of_content = stored("gray", Image.new("L", (8, 8), 9))
    assert fingerprint == of_content
    fingerprint, of_content = stored("wide", Image.new("I;16", (8, 8), 9000))
    assert fingerprint != of_content
