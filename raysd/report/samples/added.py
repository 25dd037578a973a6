"""Sample images of adaptive clones: what the last growth of each way added."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raysd.adaptive.parts import Part
from raysd.data.images import LeftOut
from raysd.report.plots.grid import GridColumn, SampleGrid, sample_grid
from raysd.report.plots.rounds import Adapted
from raysd.report.samples.samples import MAX_CLASSES, NUM_IMAGES, CloneSamples, Sample, read_places
from raysd.storage.location import Location
from raysd.storage.row_types.adaptive import RoundRow

MAX_COLUMNS = 8
LOOKED_AT = 4 * NUM_IMAGES  # of each class, from which the first are taken that were not dropped or flagged
CAPTION = (
    "Some images of {classes} that the last growth added, of clone seed {seed}. Columns, left to right: {columns}. "
    "Gray squares: fewer were added, or the clone cannot be read."
)


def added_grid(adapted: Sequence[Adapted], root: Location) -> SampleGrid | None:
    """Return images that each way added beside each other; None for fewer than two ways, and where no clone can be
    read."""
    shown = adapted[:MAX_COLUMNS]
    if len(shown) < 2:
        return None
    columns = [GridColumn(each.label, added_samples(each.rounds, root)) for each in shown]
    names = ", ".join(column.label for column in columns)
    grid = sample_grid("samples-adaptive", "adaptive clones", columns)
    if not grid.has_images:
        return None
    num_classes = len(shown[0].rounds[0]["class_names"])
    classes = f"the first {MAX_CLASSES} of {num_classes:,} classes" if num_classes > MAX_CLASSES else "each class"
    seed = shown[0].rounds[0]["clone_seed"]
    return replace(grid, caption=CAPTION.format(classes=classes, seed=seed, columns=names))


def added_samples(rounds: Sequence[RoundRow], root: Location) -> CloneSamples:
    """Return the first images of each class that the last growth of the first clone seed added."""
    own = [row for row in rounds if row["loop"] == rounds[0]["loop"]]
    last = max(number for number, row in enumerate(own) if row.get("grew", True))
    parts = [[Part.from_json(part) for part in row["parts"]] for row in (own[last], own[max(0, last - 1)])]
    after, before = parts
    part, goes_on = after[-1], last > 0 and len(after) == len(before)
    counts, left_out = part.counts.array, part.left_out or LeftOut(part.counts.num_classes, b"")
    starts = before[-1].counts.array if goes_on else 0 * counts
    places = dict[tuple[int, int], tuple[int, int]]()
    for label in range(min(MAX_CLASSES, len(counts))):
        planned = np.arange(starts[label], counts[label])
        kept = planned[~left_out.contains(np.full(len(planned), label), planned)][:LOOKED_AT]
        places |= {(label, int(index)): (label, place) for place, index in enumerate(kept)}
    found = read_places(root.child("clones", own[last]["clones"][-1]), places).images
    images = dict[tuple[int, int], Sample]()
    for label in range(min(MAX_CLASSES, len(counts))):
        there = [found[label, place] for place in range(LOOKED_AT) if (label, place) in found]
        fine = [sample for sample in there if not sample.flag][:NUM_IMAGES]
        images |= {(label, place): sample for place, sample in enumerate(fine)}
    return CloneSamples(tuple(own[0]["class_names"]), images)
