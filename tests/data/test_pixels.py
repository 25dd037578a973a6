import io

import numpy as np
import pytest
from PIL import Image

from raysd.curation.near_duplicates import thumbnail
from raysd.data.images import decode_image
from raysd.data.pixels import is_read_as_before, to_rgb
from raysd.data.readers import encode_png

GRAYS = np.tile(np.linspace(0, 255, 8).astype(np.uint8), (8, 1))
RED, GREEN, BLACK, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 0], [255, 255, 255]


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def shown(data):
    """What the decoder of training and evaluation returns, as [8, 8, 3]."""
    return decode_image(data, 8).transpose(1, 2, 0)


def gray(data):
    image = shown(data)
    assert (image == image[:, :, :1]).all()
    return image[:, :, 0]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_to_their_twin_of_eight_bits(form):
    wide = Image.fromarray(GRAYS.astype(np.uint16) * 257)
    data = encoded(wide, form)
    assert np.array_equal(gray(data), GRAYS)
    assert thumbnail(data) == thumbnail(encode_png(GRAYS))
    big = Image.fromarray((GRAYS.astype(np.uint16) * 257).astype(">u2"))
    assert big.mode == "I;16B" and np.array_equal(np.asarray(to_rgb(big))[:, :, 0], GRAYS)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_of_thirty_two_bits_say_no_range_and_are_refused(dtype):
    with pytest.raises(ValueError, match=r"its values have 32 bits .* save it with 8 or 16 bits"):
        shown(encoded(Image.fromarray(GRAYS.astype(dtype)), "TIFF"))


def half_transparent(mode):
    """Red or black; its left half is transparent."""
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :, 0] = 0 if mode in ("LA", "La") else 255
    pixels[:, 4:, 3] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
def test_transparent_pixels_show_white(mode):
    image = half_transparent(mode)
    if mode in ("LA", "La"):
        image = image.convert("LA") if mode == "LA" else image.convert("LA").convert("La")
    elif mode == "PA":
        image = _with_palette(image)
    elif mode == "RGBa":
        image = image.convert("RGBa")
    assert image.mode == mode
    right = BLACK if mode in ("LA", "La") else RED
    assert np.asarray(to_rgb(image)).tolist() == [[WHITE] * 4 + [right] * 4] * 8


def _with_palette(image):
    made = Image.new("PA", image.size)
    made.putpalette([255, 0, 0] * 256)
    made.putalpha(image.getchannel("A"))
    return made


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "TIFF"])
def test_transparency_in_files_shows_white(form):
    image = half_transparent("RGBA")
    options = {"lossless": True} if form == "WEBP" else {}
    assert shown(encoded(image, form, **options)).tolist() == [[WHITE] * 4 + [RED] * 4] * 8


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_color_that_stands_for_transparency_shows_white(mode):
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[:, 4:] = 9
    image = Image.fromarray(pixels).convert(mode)
    data = encoded(image, "PNG", transparency=0 if mode == "L" else (0, 0, 0))
    assert shown(data).tolist() == [[WHITE] * 4 + [[9, 9, 9]] * 4] * 8


@pytest.mark.parametrize(
    ("mode", "form"), [("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF")]
)
def test_other_modes_are_what_pillow_converts_them_to(mode, form):
    image = Image.fromarray(np.where(GRAYS[:, :, None] > 99, RED, GREEN).astype(np.uint8)).convert(mode)
    data = encoded(image, form)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == mode
        assert np.array_equal(shown(data), np.asarray(opened.convert("RGB")))
        assert is_read_as_before(opened, to_rgb(opened))


def test_the_first_frame_counts():
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0))]
    for form in ("GIF", "PNG", "TIFF"):
        assert shown(encoded(frames[0], form, save_all=True, append_images=frames[1:])).tolist() == [[RED] * 8] * 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_an_image_is_turned_as_its_exif_orientation_says(orientation, form):
    upright = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif)
    assert np.array_equal(shown(data), upright)
    if form == "PNG":
        image = Image.open(io.BytesIO(data))
        assert is_read_as_before(image, to_rgb(image)) == (orientation == 1)
    damaged = encoded(Image.fromarray(upright), "PNG", exif=b"Exif\0\0no EXIF data")
    assert np.array_equal(shown(damaged), upright)


def test_an_opaque_image_is_read_as_before():
    image = Image.fromarray(np.full((8, 8, 4), 255, dtype=np.uint8))
    assert is_read_as_before(image, to_rgb(image))
    assert not is_read_as_before(half_transparent("RGBA"), to_rgb(half_transparent("RGBA")))
