"""Galleries: sample grids to switch between. One shows guidance scales side by side, the other prompt variants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from raysd.report.cells import Setting, telling
from raysd.report.inputs import Entry
from raysd.report.plots.grid import GridColumn, SampleGrid, sample_grid
from raysd.report.samples.samples import MAX_CLASSES, NUM_IMAGES, CloneSamples, read_samples
from raysd.report.text import FACTORS, GUIDANCE, USUAL_GUIDANCE, VARIANT, guidance_words, slug, value_words
from raysd.storage.location import Location

MAX_TABS = 12
MAX_COLUMNS = 8
MAX_TILES = 1000  # images in a gallery
MIN_CLASSES = 4
FIRST_IMAGES, FIRST_CLASSES, FIRST_WIDTH = 2, 9, 640  # of the grid on the first screen; width in pixels of the page
T = TypeVar("T")


@dataclass(frozen=True)
class Gallery:
    """Grids to switch between; one is shown."""

    name: str
    title: str
    legend: str
    """What the tabs choose."""
    grids: tuple[SampleGrid, ...]
    tabs: tuple[str, ...]
    note: str = ""
    """What was left out."""


def first_grid(entries: Sequence[Entry], best: Setting) -> SampleGrid | None:
    """Return a small grid of the best setting, and beside it the usual guidance scale, or the highest, with all else
    equal; None where no clone of the best one can be read."""
    known = {entry.setting.guidance_scale: entry for entry in entries if _is_like(entry.setting, best) and entry.folder}
    own = known.get(best.guidance_scale)
    if own is None or own.setting.guidance_scale is None:
        return None
    usual = known[USUAL_GUIDANCE if USUAL_GUIDANCE in known else max(scale for scale in known if scale is not None)]
    shown = list({entry.folder: entry for entry in (own, usual)}.values())
    columns = [
        GridColumn(
            guidance_words(entry.setting.guidance_scale), read_samples(Location(entry.folder)), entry.setting.model
        )
        for entry in shown
    ]
    label = " and ".join(column.label for column in columns)
    grid = sample_grid("samples-first", label, columns, FIRST_IMAGES, FIRST_CLASSES, FIRST_WIDTH)
    return grid if grid.has_images else None


def _is_like(one: Setting, other: Setting) -> bool:
    """Return whether two settings have equal images but for their guidance scale."""
    fields = [{**each.fields(of_images=True), FACTORS[GUIDANCE]: ""} for each in (one, other)]
    return one.kind == other.kind and fields[0] == fields[1]


def sample_galleries(entries: Sequence[Entry]) -> list[Gallery]:
    """Return both galleries; nothing where no clone can be read."""
    clones = list({entry.folder: entry for entry in reversed(entries) if entry.folder}.values())[::-1]
    read = cache(lambda folder: read_samples(Location(folder)))
    by_variant, by_guidance = _groups(clones, "variant"), _groups(clones, "guidance_scale")
    pairs = {
        guidance: members
        for guidance, members in sorted(by_guidance.items())
        if len({entry.setting.variant for entry in members}) > 1
    }
    found = [
        _gallery("prompt", "Guidance scales side by side", "Prompt variant", by_variant, read),
        _gallery("guidance", "Prompt variants side by side", "Guidance scale", pairs, read),
    ]
    return [gallery for gallery in found if any(grid.has_images for grid in gallery.grids)]


def _groups(entries: Sequence[Entry], attribute: str) -> dict[str | float, list[Entry]]:
    groups: dict[str | float, list[Entry]] = {}
    for entry in entries:
        if (value := getattr(entry.setting, attribute)) is not None:
            groups.setdefault(value, []).append(entry)
    return groups


def _gallery(
    name: str, title: str, legend: str, groups: Mapping[str | float, list[Entry]], read: Callable[[str], CloneSamples]
) -> Gallery:
    values = _spread(list(groups), MAX_TABS)
    notes = [f"Shown: {len(values)} of {len(groups)}."] if len(values) < len(groups) else []
    shown: dict[str | float, list[Entry]] = {}
    for value in values:
        members = sorted(groups[value], key=lambda entry: entry.setting.guidance_scale or 0.0)
        shown[value] = _spread(members, MAX_COLUMNS)
        if len(shown[value]) < len(members):
            notes.append(f"{value_words(value)}: {len(shown[value])} of {len(members)} settings.")
    # A page of megabytes of images opens slowly, so many columns show fewer classes.
    num_columns = sum(len(kept) for kept in shown.values())
    num_classes = max(MIN_CLASSES, min(MAX_CLASSES, MAX_TILES // (NUM_IMAGES * max(1, num_columns))))
    grids = []
    for value, kept in shown.items():
        labels = column_labels([entry.setting for entry in kept])
        columns = [
            GridColumn(label, read(entry.folder), entry.setting.model)
            for label, entry in zip(labels, kept, strict=True)
        ]
        label = f"prompt variant {value}" if isinstance(value, str) else guidance_words(value)
        grids.append(sample_grid(f"samples-{name}-{slug(value_words(value))}", label, columns, num_classes=num_classes))
    return Gallery(name, title, legend, tuple(grids), tuple(value_words(value) for value in values), " ".join(notes))


def column_labels(settings: Sequence[Setting]) -> list[str]:
    """Return labels that tell the columns of a grid apart; fields of training do not shape images."""
    fields = [setting.fields(of_images=True) for setting in settings]
    names = telling(fields) or [FACTORS[GUIDANCE]]
    labels = [
        [own[name] if name == FACTORS[VARIANT] else f"{name} {own[name]}" for name in names if name in own]
        for own in fields
    ]
    return [", ".join(parts) or guidance_words(None) for parts in labels]


def _spread(items: list[T], most: int) -> list[T]:
    """Return at most `most` of the items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]
