"""The published numbers beside ours: Sariyildiz et al., "Fake it till you make it", CVPR 2023 (arXiv 2212.08420)."""

from collections.abc import Sequence
from dataclasses import dataclass

from raysd.prompts.table import load_class_table
from raysd.report.cells import Cell, Cells, MeasuredSet
from raysd.report.summary import Findings, is_clone
from raysd.report.tables.tables import Column, Table, Value, number_columns
from raysd.report.text import USUAL_GUIDANCE

SETS = {
    "IN-Val": ("imagenet_val",),
    "IN-v2": ("imagenet_v2_matched_frequency", "imagenet_v2_threshold_0.7", "imagenet_v2_top_images"),
    "IN-Sketch": ("imagenet_sketch",),
    "IN-R": ("imagenet_r",),
    "IN-A": ("imagenet_a",),
}
"""The paper's test sets, and what raysd calls them; which of the three variants of IN-v2 the paper used is not
known."""
CLASS_TABLES = {1000: "imagenet1k", 100: "imagenet100"}
WHAT = (
    "The paper's numbers: ResNet-50, 100 epochs, on Stable Diffusion images of 512 pixels and 50 steps, from "
    "class names alone; top-1 in percent."
)
OTHER_DATA = (
    "These numbers are of other data sets than ours, so the two cannot be compared; they stand here as context."
)
SAME_CLASSES = "Our classes are the paper's. Classifier, image size or number of images may still differ: {}."
GUIDANCE_GAIN = 16.7  # points from guidance 7.5 to 2, ImageNet-1K, name and definition


@dataclass(frozen=True)
class Published:
    """One published setting; scores are top-1 in percent on `SETS`, None where there is none."""

    data: str
    images: str
    guidance_scale: float | None
    prompt: str
    scores: tuple[float | None, float | None, float | None, float | None, float | None]


PUBLISHED = (
    Published("paper: IN-1K-SD", "1.3M", 7.5, "name, definition", (26.2, None, None, None, None)),
    Published("paper: IN-1K-SD", "1.3M", 7.5, "name, hypernym inside background", (30.1, None, None, None, None)),
    Published("paper: IN-1K-SD", "1.3M", 2.0, "name, definition", (42.9, 43.0, 16.6, 26.3, 3.6)),
    Published("paper: IN-100-SD", "130k", 2.0, "the best one", (63.5, 62.7, 41.8, 64.2, 13.7)),
    Published("paper: IN-100-SD", "6.5M", 2.0, "the best one", (73.3, 72.3, 42.0, 59.4, 17.1)),
    Published("real IN-1K, torchvision", "1.3M", None, "-", (76.2, None, None, None, None)),
    Published("real IN-1K, RSB-A1", "1.3M", None, "-", (80.4, None, None, None, None)),
)


def paper_table(cells: Cells, findings: Findings | None) -> Table:
    """Return the paper's table, then our best setting and the one at guidance 7.5. Ours are in a column of their own,
    unless the sets are the same."""
    ours = _ours(cells, findings)
    same = bool(ours) and same_classes(ours[0][1])
    columns = [
        Column("source"),
        *number_columns("images", "guidance"),
        Column("prompt"),
        *number_columns(*SETS, "our test set"),
    ]
    rows: list[tuple[Value, ...]] = []
    for entry in PUBLISHED:
        rows.append(
            (
                entry.data,
                entry.images,
                entry.guidance_scale,
                entry.prompt,
                *(_percent(score) for score in entry.scores),
                None,
            )
        )
    test = findings.test if findings else None
    for label, cell in ours:
        found = {name: _score_on(cell, datasets) if same else None for name, datasets in SETS.items()}
        other = (
            f"{cell.scores[test]} ({test.dataset})"
            if test and test in cell.scores and not (same and _is_known(test))
            else None
        )
        count = cell.setting.images_per_class
        images = None if count is None else f"{count:,} per class"
        rows.append(
            (f"ours: {label}", images, cell.setting.guidance_scale, cell.setting.variant, *found.values(), other)
        )
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    notes = [WHAT, f"From guidance 7.5 to 2 the paper gained {GUIDANCE_GAIN} points (IN-1K, name and definition)."]
    if ours:
        backbones = ", ".join(sorted({cell.setting.backbone for _, cell in ours}))
        notes.append(SAME_CLASSES.format(f"ours is {backbones}") if same else OTHER_DATA)
    return Table("paper", "The paper's numbers beside ours", tuple(columns), tuple(rows), tuple(notes))


def same_classes(cell: Cell) -> bool:
    """Return whether the classes are those of ImageNet-1K or ImageNet-100, by the class names of the cell's rows."""
    for row in cell.rows:
        names: Sequence[str] = row.get("class_names") or ()
        if len(names) in CLASS_TABLES:
            return list(names) == load_class_table(CLASS_TABLES[len(names)]).names
    return False


def _ours(cells: Cells, findings: Findings | None) -> list[tuple[str, Cell]]:
    """Return the best setting, and the best one at guidance 7.5 where that is another."""
    if findings is None or not is_clone(findings.best.setting):
        return []
    best, test = findings.best, findings.test
    usual = [
        cell
        for cell in cells.of_kind("clone")
        if cell.setting.guidance_scale == USUAL_GUIDANCE and is_clone(cell.setting) and test in cell.scores
    ]
    found = [(findings.word, best)]
    if usual and test is not None and best.setting.guidance_scale != USUAL_GUIDANCE:
        found.append(
            (
                "highest at guidance 7.5",
                max(usual, key=lambda cell: (cell.setting.images_per_class or 0, cell.scores[test].mean)),
            )
        )
    return found


def _score_on(cell: Cell, datasets: Sequence[str]) -> str | None:
    """Return the scores on sets of these names, one after the other."""
    found = [str(score) for measured, score in cell.scores.items() if _base(measured) in datasets]
    return "; ".join(found) or None


def _is_known(measured: MeasuredSet) -> bool:
    return any(_base(measured) in datasets for datasets in SETS.values())


def _base(measured: MeasuredSet) -> str:
    """Return the set's name without its part, as in `imagenet_val-test`."""
    return measured.dataset.removesuffix("-test").removesuffix("-train")


def _percent(score: float | None) -> str | None:
    return None if score is None else f"{score:.1f}"
