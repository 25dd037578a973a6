"""Sample grids: a row per image, a column per setting, class below class; each row shows the same noise in all
settings."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from raysd.data.images import UNDECODABLE
from raysd.data.pixels import to_rgb
from raysd.report.samples.samples import MAX_CLASSES, NUM_IMAGES, CloneSamples, Sample
from raysd.report.text import short

TILE, LARGEST = 60, 176  # pixels: small images grow by a whole number to about TILE, large ones shrink to LARGEST
DENSITY = 2  # pixels of a shrunk grid to one of the page, so that it is sharp when it is enlarged
NARROWEST = 58  # pixels of a column, or its heading would not fit
GAP, ROW_GAP, BETWEEN, MARGIN, LINE, NAME = 4, 6, 24, 12, 14, 24
WIDEST = 1230  # pixels; classes stand in several blocks side by side up to this
HEADING_LINES = 4
NAME_CHARACTERS = 34
INK, EMPTY, FLAGGED = "#222222", "#eeeeee", "#D55E00"
WEBP_QUALITY = 82


@dataclass(frozen=True)
class GridColumn:
    """A column: what it is called, and its images."""

    label: str
    samples: CloneSamples
    model: str | None = None
    """The generator."""


@dataclass(frozen=True)
class SampleGrid:
    """A plotted grid."""

    name: str
    """File name without a suffix."""
    label: str
    """What all its columns share, as `guidance 2`."""
    caption: str
    alt: str
    png: bytes
    webp: bytes
    """The same in fewer bytes, for the page."""
    has_images: bool
    """False when no clone could be read."""
    width: int
    """On the page, in its pixels."""
    is_shrunk: bool
    """Whether its images are smaller than in the clone; others were enlarged by whole numbers."""


def sample_grid(
    name: str,
    label: str,
    columns: Sequence[GridColumn],
    num_images: int = NUM_IMAGES,
    num_classes: int = MAX_CLASSES,
    widest: int = WIDEST,
) -> SampleGrid:
    """Plot a grid.

    Args:
        name: file name without a suffix.
        label: what all columns share.
        columns: from left to right.
        num_images: at most this many images per class.
        num_classes: at most this many classes.
        widest: on the page, in its pixels; one block of classes may be wider.
    """
    names = max((column.samples.class_names for column in columns), key=len, default=())
    shown = names[:num_classes]
    indices = [index for column in columns for label, index in column.samples.images if label < len(shown)]
    num_images = max(1, min(num_images, max(indices, default=0) + 1))
    side, shrunk = _tile_side(columns)
    density = DENSITY if shrunk else 1
    image = _paste_grid(shown, columns, num_images, side, density, widest)
    png, webp = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG")
    image.save(webp, "WEBP", lossless=not shrunk, quality=WEBP_QUALITY, method=3)
    labels = ", ".join(column.label for column in columns)
    alt = f"Sample images, {label}. {len(shown)} classes, images of each: {num_images}. Columns: {labels}."
    return SampleGrid(
        name,
        label,
        _caption(shown, len(names), columns, num_images),
        alt,
        png.getvalue(),
        webp.getvalue(),
        bool(indices),
        image.width // density,
        shrunk,
    )


def _paste_grid(
    names: Sequence[str], columns: Sequence[GridColumn], num_images: int, side: int, density: int, widest: int
) -> Image.Image:
    """Return the grid of tiles of `side` pixels; `density` is the pixels of the grid to one of the page. A missing
    image is a gray square, a flagged one has a frame."""
    font, small = _font(13 * density), _font(11 * density)
    gap, row_gap, between, margin, line, name = (
        density * length for length in (GAP, ROW_GAP, BETWEEN, MARGIN, LINE, NAME)
    )
    pitch = max(side, density * NARROWEST) + gap
    width = len(columns) * pitch
    num_blocks = max(1, min(len(names), (density * widest - 2 * margin + between) // (width + between)))
    per_block = -(-len(names) // num_blocks) if names else 0
    num_blocks = -(-len(names) // per_block) if per_block else 1
    headings = [_wrap(column.label, pitch - gap, small) for column in columns]
    top = margin + line * max((len(lines) for lines in headings), default=1)
    one_class = name + num_images * (side + row_gap)
    size = (2 * margin + num_blocks * (width + between) - between, top + per_block * one_class + margin)
    sheet = Image.new("RGB", (max(size[0], 200 * density), size[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for block in range(num_blocks):
        left = margin + block * (width + between)
        for place, lines in enumerate(headings):
            draw.multiline_text((left + place * pitch, margin), "\n".join(lines), INK, small, spacing=2 * density)
        for row, label in enumerate(range(block * per_block, min((block + 1) * per_block, len(names)))):
            y = top + row * one_class
            draw.text(
                (left, y + name - 5 * density),
                short(names[label], max(6, min(NAME_CHARACTERS, width // (8 * density)))),
                INK,
                font,
                anchor="ls",
            )
            for place, column in enumerate(columns):
                for index in range(num_images):
                    corner = (left + place * pitch, y + name + index * (side + row_gap))
                    _paste_tile(sheet, draw, corner, side, column.samples.images.get((label, index)))
    return sheet


def _paste_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], side: int, sample: Sample | None
) -> None:
    box = (corner[0], corner[1], corner[0] + side - 1, corner[1] + side - 1)
    tile = _decode(sample.data, side) if sample else None
    if tile is None:
        draw.rectangle(box, EMPTY)
        return
    sheet.paste(tile, (corner[0] + (side - tile.width) // 2, corner[1] + (side - tile.height) // 2))
    if sample and sample.flag:
        draw.rectangle(box, outline=FLAGGED, width=3)


def _decode(data: bytes, side: int) -> Image.Image | None:
    """Return the image as RGB, at most `side` pixels wide and high; None when it cannot be read."""
    try:
        image = to_rgb(Image.open(io.BytesIO(data)))
    except UNDECODABLE:
        return None
    longest = max(image.size)
    factor = side // longest if longest <= side else side / longest
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)


def _tile_side(columns: Sequence[GridColumn]) -> tuple[int, bool]:
    """Return the side of a tile in pixels, and whether images shrink to it; from the first image that can be read."""
    for column in columns:
        for sample in column.samples.images.values():
            if (size := _size(sample)) is None:
                continue
            longest = max(size)
            return (LARGEST, True) if longest > LARGEST else (longest * max(1, round(TILE / longest)), False)
    return TILE, False


def _size(sample: Sample) -> tuple[int, int] | None:
    """Return width and height in pixels; None when the image cannot be read."""
    try:
        return Image.open(io.BytesIO(sample.data)).size
    except UNDECODABLE:
        return None


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Break text into lines of at most `width` pixels, after blanks and underscores, or within a word that is too
    long."""
    lines = [""]
    for word in " ".join(text.split()).replace("_", "_ ").split(" "):
        gap = "" if not lines[-1] or lines[-1].endswith("_") else " "
        if font.getlength(lines[-1] + gap + word) <= width:
            lines[-1] += gap + word
            continue
        lines += [""] if lines[-1] else []
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines if len(lines) <= HEADING_LINES else [*lines[: HEADING_LINES - 1], lines[HEADING_LINES - 1][:-1] + "…"]


def _caption(shown: Sequence[str], num_classes: int, columns: Sequence[GridColumn], num_images: int) -> str:
    which = f"the first {len(shown)} of {num_classes:,} classes" if len(shown) < num_classes else "each class"
    images = f"Images 0 to {num_images - 1}" if num_images > 1 else "Image 0"
    parts = [f"{images} of {which}. Columns, left to right: {', '.join(column.label for column in columns)}."]
    first = [(column.label, column.samples.images[0, 0]) for column in columns if (0, 0) in column.samples.images]
    # The same seed is the same noise only for one generator and one size.
    if (
        len(first) > 1
        and len({(sample.seed, _size(sample)) for _, sample in first}) == 1
        and len({column.model for column in columns}) == 1
    ):
        parts.append("Images of one row share their noise: the seed depends on the class and the image's number alone.")
    prompts = {sample.prompt: label for label, sample in reversed(first)}
    if len(prompts) == 1:
        parts.append(f"First prompt: “{short(next(iter(prompts)), 120)}”.")
    elif prompts:
        parts.append(
            "First prompts: "
            f"{'; '.join(f'{label}: “{short(prompt, 90)}”' for prompt, label in reversed(prompts.items()))}."
        )
    wanted = {(label, index) for label in range(len(shown)) for index in range(num_images)}
    lacking = [column.label for column in columns if not wanted or not wanted <= column.samples.images.keys()]
    if lacking:
        parts.append(f"Gray squares: images that are not in the clone, or cannot be read, of {', '.join(lacking)}.")
    if any(sample.flag for column in columns for sample in column.samples.images.values()):
        parts.append("Framed images are flagged as suspect.")
    return " ".join(parts)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans as bundled with matplotlib."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
