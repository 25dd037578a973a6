"""Sample grids: classes down, guidance scales across, the first few pictures of each, read from the clones as they lie."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from raysd.clone.shard import DATA
from raysd.storage.location import Location

NUM_IMAGES = 3
MAX_CLASSES = 20
TILE, LARGEST = 60, 64  # pixels: small pictures grow by a whole number to about TILE, large ones shrink to LARGEST
GAP, BETWEEN, MARGIN, LINE = 3, 18, 14, 30
NAME_CHARACTERS = 26
INK, EMPTY, FLAGGED = "#222222", "#eeeeee", "#D55E00"


@dataclass(frozen=True)
class Sample:
    """One encoded picture of a clone."""

    data: bytes
    flag: str
    prompt: str


@dataclass(frozen=True)
class CloneSamples:
    """The first pictures of the first classes of one clone."""

    class_names: tuple[str, ...]
    """All class names, in label order; empty when the clone cannot be read."""
    images: Mapping[tuple[int, int], Sample]
    """(label, image index) -> picture; what is missing is not there."""


@dataclass(frozen=True)
class SampleGrid:
    """A grid of one prompt variant, drawn."""

    variant: str
    caption: str
    alt: str
    png: bytes
    class_names: tuple[str, ...]
    """All class names, in label order."""


def read_samples(folder: Location, num_images: int = NUM_IMAGES, num_classes: int = MAX_CLASSES) -> CloneSamples:
    """The pictures of labels < `num_classes` and indices < `num_images`, from the first shards only."""
    data = folder.child(DATA)
    names: tuple[str, ...] = ()
    images: dict[tuple[int, int], Sample] = {}
    try:
        for name in data.list_files(".parquet"):
            path = data.file(name)
            metadata = pq.read_metadata(path, filesystem=data.filesystem)
            names = names or _class_names(metadata.schema.to_arrow_schema())
            # Shards are in order of the image index, so the first one beyond the wanted images ends the search.
            if _least_index(metadata) >= num_images:
                break
            wanted = [("index", "<", num_images), ("label", "<", num_classes)]
            table = pq.read_table(path, filesystem=data.filesystem, columns=["image", "label", "index", "flag", "prompt"], filters=wanted, use_threads=False)
            for row in table.to_pylist():
                images[row["label"], row["index"]] = Sample(row["image"]["bytes"], row["flag"] or "", row["prompt"] or "")
            if names and len(images) >= num_images * min(num_classes, len(names)):
                break
    except (OSError, pa.ArrowInvalid):
        # A clone may have been removed since; its column stays empty, and the caption says so.
        pass
    return CloneSamples(names, images)


def sample_grid(variant: str, folders: Sequence[tuple[float, Location]], num_images: int = NUM_IMAGES, num_classes: int = MAX_CLASSES) -> SampleGrid:
    """The grid of one prompt variant.

    Args:
        variant: its name.
        folders: (guidance scale, clone folder), in any order.
        num_images: pictures per class and guidance scale.
        num_classes: at most this many rows.
    """
    columns = [(scale, read_samples(folder, num_images, num_classes)) for scale, folder in sorted(folders, key=lambda pair: pair[0])]
    names = max((samples.class_names for _, samples in columns), key=len, default=())
    png = draw_grid(names[:num_classes], columns, num_images)
    scales = ", ".join(f"{scale:g}" for scale, _ in columns)
    alt = f"Sample pictures of prompt variant {variant}: {min(len(names), num_classes)} classes down, guidance scales {scales} across."
    return SampleGrid(variant, _caption(names[:num_classes], len(names), columns, num_images), alt, png, names)


def draw_grid(names: Sequence[str], columns: Sequence[tuple[float, CloneSamples]], num_images: int) -> bytes:
    """A PNG with a row per class and `num_images` pictures per guidance scale; a missing picture is a grey square, a flagged one has a frame."""
    font, small = _font(15), _font(13)
    side = _tile_side(columns)
    shown = [_short(name) for name in names]
    left = MARGIN + int(max((font.getlength(name) for name in shown), default=0)) + MARGIN
    group = num_images * (side + GAP) - GAP
    top = MARGIN + LINE
    width = left + len(columns) * (group + BETWEEN) - BETWEEN + MARGIN
    sheet = Image.new("RGB", (max(width, 320), top + len(shown) * (side + GAP) + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (scale, samples) in enumerate(columns):
        x = left + column * (group + BETWEEN)
        draw.text((x, MARGIN), f"guidance {scale:g}", INK, small)
        for label in range(len(shown)):
            for index in range(num_images):
                corner = (x + index * (side + GAP), top + label * (side + GAP))
                _draw_tile(sheet, draw, corner, side, samples.images.get((label, index)))
    for label, name in enumerate(shown):
        draw.text((left - MARGIN, top + label * (side + GAP) + side / 2), name, INK, font, anchor="rm")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], side: int, sample: Sample | None) -> None:
    box = (corner[0], corner[1], corner[0] + side - 1, corner[1] + side - 1)
    tile = _decode(sample.data, side) if sample else None
    if tile is None:
        draw.rectangle(box, EMPTY)
        return
    sheet.paste(tile, (corner[0] + (side - tile.width) // 2, corner[1] + (side - tile.height) // 2))
    if sample and sample.flag:
        draw.rectangle(box, outline=FLAGGED, width=3)


def _decode(data: bytes, side: int) -> Image.Image | None:
    """The picture as RGB, at most `side` wide and high; None when it cannot be read."""
    try:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError):
        return None
    longest = max(picture.size)
    factor = side // longest if longest <= side else side / longest
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)


def _tile_side(columns: Sequence[tuple[float, CloneSamples]]) -> int:
    """The side of a tile in pixels, from the first picture that can be read."""
    for _, samples in columns:
        for sample in samples.images.values():
            try:
                longest = max(Image.open(io.BytesIO(sample.data)).size)
            except (OSError, ValueError):
                continue
            return LARGEST if longest > LARGEST else longest * max(1, round(TILE / longest))
    return TILE


def _caption(shown: Sequence[str], num_classes: int, columns: Sequence[tuple[float, CloneSamples]], num_images: int) -> str:
    which = f"the first {len(shown)} of {num_classes:,} classes" if len(shown) < num_classes else "one class per row"
    parts = [
        f"Rows: {which}. Columns: guidance scales, images 0 to {num_images - 1} of each.",
        "The seed depends on the class and the image index alone, so a picture shares its noise with its neighbours at other guidance scales.",
    ]
    first = [samples.images[0, 0].prompt for _, samples in columns if (0, 0) in samples.images]
    if first:
        parts.append(f"First prompt: “{_short(first[0], 120)}”.")
    wanted = {(label, index) for label in range(len(shown)) for index in range(num_images)}
    lacking = [f"{scale:g}" for scale, samples in columns if not wanted or not wanted <= samples.images.keys()]
    if lacking:
        parts.append(f"Grey squares: pictures that could not be read, at guidance {', '.join(lacking)}.")
    if any(sample.flag for _, samples in columns for sample in samples.images.values()):
        parts.append("Framed pictures are flagged as suspect.")
    return " ".join(parts)


def _class_names(schema: pa.Schema) -> tuple[str, ...]:
    """Class names from the metadata that Hugging Face reads."""
    try:
        return tuple(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _least_index(metadata: pq.FileMetaData) -> int:
    """The lowest image index of a shard by its footer; 0 when the footer does not say."""
    # Columns of a footer are leaves, and `image` is two of them; so the column is found by its path.
    leaf = next((i for i in range(metadata.num_columns) if metadata.schema.column(i).path == "index"), None)
    if leaf is None or metadata.num_row_groups == 0:
        return 0
    statistics = metadata.row_group(0).column(leaf).statistics
    return int(statistics.min) if statistics is not None and statistics.has_min_max else 0


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as bundled with matplotlib."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _short(text: str, limit: int = NAME_CHARACTERS) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
