"""Classes: accuracy of each, those that lag behind real images, and the mix-ups."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysd.report.cells import Cell, MeasuredSet
from raysd.report.plots.figure import COLORS, FONT_SIZE, GRID, WIDTH, Plot, literal, new_figure, save_plot, set_title
from raysd.report.summary import Findings
from raysd.report.tables.tables import Column, Number, Table, Value, number_columns
from raysd.report.text import short

MAX_CLASSES = 30
MAX_LAGS = 10
MAX_PAIRS = 10
NAMED = 3  # classes in the sentence


@dataclass(frozen=True)
class ClassScores:
    """Accuracy in percent of each class on the test images, the mean over seeds; NaN for a class without images."""

    names: tuple[str, ...]
    clone: tuple[float, ...]
    real: tuple[float, ...] | None
    """None where no classifier was trained on real images."""

    @property
    def order(self) -> list[int]:
        """The classes with images, those furthest behind real first; by their accuracy where real is unknown."""
        there = [i for i, value in enumerate(self.clone) if not math.isnan(value)]
        return sorted(there, key=lambda i: self.clone[i] - (self.real[i] if self.real else 0.0))


def class_scores(findings: Findings) -> ClassScores | None:
    """Return the accuracy of each class for the best setting and for real images; None where the rows lack it."""
    best = _per_class(findings.best, findings.test)
    real = _per_class(findings.real, findings.test) if findings.real and findings.real is not findings.best else None
    if best is None:
        return None
    names, values = best
    others = tuple(real[1]) if real and len(real[1]) == len(values) else None
    return ClassScores(tuple(names), tuple(values), others)


def per_class_plot(scores: ClassScores, heading: str = "best clone") -> Plot:
    """Plot the accuracy of each class, the clone beside real; the 30 classes furthest behind where there are more."""
    order, title = sorted(scores.order), "Accuracy of each class, %"
    if len(order) > MAX_CLASSES:
        title = (
            f"The {MAX_CLASSES} classes {'furthest behind real' if scores.real else 'of lowest accuracy'}, of "
            f"{len(order):,}"
        )
        order = scores.order[:MAX_CLASSES]
    figure, (axes,) = new_figure(WIDTH, 1.2 + 0.4 * len(order))
    rows = range(len(order))
    axes.barh([row - 0.2 for row in rows], [scores.clone[i] for i in order], 0.38, color=COLORS[0], label=heading)
    if scores.real:
        axes.barh(
            [row + 0.2 for row in rows],
            [scores.real[i] for i in order],
            0.38,
            color="#bbbbbb",
            hatch="///",
            edgecolor="#666666",
            label="real images",
        )
    axes.set_yticks(rows, [literal(short(scores.names[i])) for i in order])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color=GRID)
    axes.grid(axis="y", visible=False)
    set_title(axes, title)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=FONT_SIZE - 1)
    worst = min(order, key=lambda i: scores.clone[i])
    return save_plot(
        figure,
        "per-class",
        title,
        f"{title}. Lowest for the {heading}: {scores.names[worst]}, {scores.clone[worst]:.1f} %.",
    )


def lag_sentence(scores: ClassScores) -> str | None:
    """Return the classes that lag most behind real images; None where no class does, or real is unknown."""
    if scores.real is None:
        return None
    lags = [(scores.names[i], scores.clone[i] - scores.real[i]) for i in _behind(scores)[:NAMED]]
    if not lags:
        return "No class lags behind real images."
    named = ", ".join(f"{name} ({lag:+.1f} points)" for name, lag in lags)
    return (
        f"Furthest behind real images, of {len(scores.order):,} classes: {named}. The extremes of many classes "
        "are partly chance."
    )


def lag_table(scores: ClassScores, heading: str = "best clone") -> Table | None:
    """Return the classes furthest behind real; None where no class is, or real is unknown."""
    if scores.real is None or not _behind(scores):
        return None
    columns = (Column("class"), *number_columns(heading, "real", "difference"))
    rows = [
        (
            scores.names[i],
            Number(scores.clone[i]),
            Number(scores.real[i]),
            Number(scores.clone[i] - scores.real[i], "+.1f"),
        )
        for i in _behind(scores)[:MAX_LAGS]
    ]
    return Table(
        "classes",
        "Classes furthest behind real",
        columns,
        tuple(rows),
        ("Accuracy in percent on the test images, mean over seeds.",),
    )


def confusion_table(findings: Findings) -> Table | None:
    """Return the most frequent mix-ups of the best setting beside those of real images; None where rows hold none.

    Each row lists its most frequent mix-ups alone. So a pair's count is the mean over the seeds that list it, and a
    pair that real images' rows do not list is known to be at most as frequent as the last one listed.
    """
    best = _confusions(findings.best, findings.test)
    if not best:
        return None
    real = _confusions(findings.real, findings.test) if findings.real and findings.real is not findings.best else []
    columns = [
        Column("class"),
        Column("taken for"),
        *number_columns(findings.heading, "seeds that list it", *(["real"] if real else [])),
    ]
    rows: list[tuple[Value, ...]] = []
    pairs = sorted(
        {pair for seed in best for pair in seed}, key=lambda pair: (-sum(seed.get(pair, 0) for seed in best), pair)
    )
    for pair in pairs[:MAX_PAIRS]:
        listed = [seed[pair] for seed in best if pair in seed]
        rows.append(
            (
                *pair,
                _count(sum(listed) / len(listed)),
                f"{len(listed)} of {len(best)}",
                *([_real_count(pair, real)] if real else []),
            )
        )
    assert findings.test is not None
    notes = [
        (
            f"Images of {findings.test.num_images:,}, mean over the seeds that list the pair; each seed lists its "
            "most frequent pairs alone."
        )
    ]
    if real:
        notes.append("“at most” stands where no seed of real images lists the pair.")
    return Table("confusions", "Most frequent mix-ups", tuple(columns), tuple(rows), tuple(notes))


def _behind(scores: ClassScores) -> list[int]:
    return [i for i in scores.order if scores.real is not None and scores.clone[i] < scores.real[i]]


def _real_count(pair: tuple[str, str], seeds: Sequence[Mapping[tuple[str, str], int]]) -> str:
    listed = [seed[pair] for seed in seeds if pair in seed]
    if listed:
        return _count(sum(listed) / len(listed))
    return f"at most {max(min(seed.values()) for seed in seeds)}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _confusions(cell: Cell, test: MeasuredSet | None) -> list[Counter[tuple[str, str]]]:
    """Return the images by (class, taken for), for each seed that lists some. Classes that share a name are added
    up."""
    found = []
    for row in cell.rows_on(test) if test is not None else []:
        pairs: Counter[tuple[str, str]] = Counter()
        for pair in row.get("confusions") or ():
            pairs[pair["label"], pair["prediction"]] += pair["count"]
        found.append(pairs)
    return [pairs for pairs in found if pairs]


def _per_class(cell: Cell, test: MeasuredSet | None) -> tuple[list[str], list[float]] | None:
    """Return class names and accuracies in percent [num_classes], averaged over seeds; NaN for a class without
    images."""
    rows = cell.rows_on(test) if test is not None else []
    names = next((row["class_names"] for row in rows if row["per_class"]), None)
    found = [[math.nan if value is None else value for value in row["per_class"]] for row in rows if row["per_class"]]
    if names is None or len({len(values) for values in found}) > 1:
        return None
    return names, [sum(column) / len(found) for column in zip(*found, strict=True)]
