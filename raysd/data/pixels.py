"""What an image file shows as 8-bit RGB: one rule for each mode of Pillow. Whoever decodes an image asks here."""

from contextlib import suppress

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

GROUND = "white"
"""What shows through transparent pixels."""
SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose images of mode `I` hold values from 0 to 65,535."""
BITS_PER_SAMPLE = 258  # a tag of TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation."""


# Editors write more than a megabyte of text into a PNG file, which Pillow refuses by default.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 * 2**20


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB, upright. Of several frames it is the first.

    - Gray values of 16 bits are scaled by 1/257, so that white stays white.
    - Transparent pixels show white.
    - The EXIF orientation is applied.
    - All other modes are what Pillow converts them to.

    Raises:
        ValueError: values of 32 bits, whose range no file says.
    """
    image.load()
    upright = _upright(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BITS):
        return _from_16_bits(upright, _highest(image))
    if image.mode in ("I", "F"):
        raise ValueError(f"its values have 32 bits (mode {image.mode}) and no known range; save it with 8 or 16 bits")
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    rgba = (upright.convert("LA") if upright.mode == "La" else upright).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, GROUND), rgba).convert("RGB")


def is_read_as_before(image: Image.Image, rgb: Image.Image) -> bool:
    """Return whether an image's RGB is what `convert("RGB")` alone would have given, as it was in version 0.1.0."""
    if image.mode in ("RGB", "L", "1", "P", "CMYK", "YCbCr") and not image.has_transparency_data:
        return _orientation(image) not in TURNS
    plain = image.convert("RGB")
    return plain.size == rgb.size and plain.tobytes() == rgb.tobytes()


def _from_16_bits(image: Image.Image, highest: int) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values * 255 + highest // 2) // highest).astype(np.uint8)).convert("RGB")


def _highest(image: Image.Image) -> int:
    """Return the value of white: 65,535, or less in a TIFF file with fewer bits."""
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    return int(2 ** bits[0] - 1)


def _upright(image: Image.Image) -> Image.Image:
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # damaged EXIF data: the image is as it is
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1
