"""Figures of a report. Each is a white card, so that it reads the same on a light and on a dark page."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raysd.report.cells import Cell, Cells, MeasuredSet, Score
from raysd.report.findings import Findings

# Okabe and Ito's palette: told apart with any colour vision; markers differ as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GRID = "#222222", "#dddddd"
FONT_SIZE = 12
WIDTH = 5.4  # inches; small enough that the text stays legible on a phone
FAR = 1.0  # heights of the plot; a level further below than this is not drawn
PNG_DPI = 200
MAX_CLASSES = 30


@dataclass(frozen=True)
class Plot:
    """One figure."""

    name: str
    """File name without a suffix."""
    title: str
    alt: str
    png: bytes
    svg: str


def guidance_plot(cells: Cells, findings: Findings, measured: MeasuredSet, name: str, title: str) -> Plot:
    """Top-1 accuracy on one set against guidance: a line per prompt variant with 95 % intervals, real and random as horizontal lines."""
    scales = sorted({c.setting.guidance_scale for c in cells.of_kind("clone") if c.setting.guidance_scale is not None})
    figure, axes = _new_figure(WIDTH, 4.2)
    for rank, variant in enumerate(cells.variants):
        # Lines are a little apart, or their error bars would lie on one another.
        shift = 0.12 * (rank - (len(cells.variants) - 1) / 2) / max(1, len(cells.variants) / 4)
        _draw_line(axes, _line(cells, findings, variant, measured), scales, shift, rank, variant)
    for cell, label, style in ((findings.real, "real pictures", "--"), (findings.random, "random weights", ":")):
        if cell is not None and measured in cell.scores:
            _draw_level(axes, cell.scores[measured].mean, label, style)
    axes.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
    axes.set_xlim(-0.4, max(len(scales), 1) - 0.6)
    axes.set_xlabel("guidance scale")
    axes.set_ylabel("top-1, %")
    axes.set_title(_literal(title), fontsize=FONT_SIZE + 1, loc="left")
    # Error bars would come after the horizontal lines otherwise.
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: isinstance(handles[i], Line2D))
    figure.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside lower center", ncols=2, frameon=False, fontsize=FONT_SIZE - 1)
    return _plot(figure, name, title, _describe(cells, findings, measured, title))


def per_class_plot(findings: Findings, class_names: Sequence[str] | None = None) -> Plot | None:
    """Accuracy of each class, best setting beside real; the 30 classes furthest behind real where there are more. None without such rows."""
    best = _per_class(findings.best, findings.test)
    real = _per_class(findings.real, findings.test) if findings.real else None
    if best is None:
        return None
    names, values = best
    if class_names is not None and len(class_names) == len(values):
        names = list(class_names)
    others = real[1] if real and len(real[1]) == len(values) else None
    order = [i for i, value in enumerate(values) if not math.isnan(value)]
    title = "Accuracy of each class, %"
    if len(order) > MAX_CLASSES:
        title = f"The {MAX_CLASSES} classes furthest behind, of {len(order):,}"
        order = sorted(order, key=lambda i: values[i] - (others[i] if others else 0))[:MAX_CLASSES]
    figure, axes = _new_figure(WIDTH, 1.2 + 0.4 * len(order))
    rows = range(len(order))
    axes.barh([row - 0.2 for row in rows], [values[i] for i in order], 0.38, color=COLORS[0], label="best clone")
    if others:
        axes.barh([row + 0.2 for row in rows], [others[i] for i in order], 0.38, color="#bbbbbb", hatch="///", edgecolor="#666666", label="real pictures")
    axes.set_yticks(rows, [_literal(_short(names[i])) for i in order])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color=GRID)
    axes.grid(axis="y", visible=False)
    axes.set_title(title, fontsize=FONT_SIZE + 1, loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=FONT_SIZE - 1)
    worst = min(order, key=lambda i: values[i])
    return _plot(figure, "per-class", title, f"{title}. Lowest for the best clone: {names[worst]}, {values[worst]:.1f} %.")


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = figure.add_subplot(facecolor="white")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=FONT_SIZE, colors=INK)
    axes.xaxis.label.set_fontsize(FONT_SIZE)
    axes.yaxis.label.set_fontsize(FONT_SIZE)
    return figure, axes


def _line(cells: Cells, findings: Findings, variant: str, measured: MeasuredSet) -> dict[float, Score]:
    """Scores by guidance of the cells that agree with the best setting in all else; so one point per scale."""
    like = findings.best.setting
    fields = ("images_per_class", "backbone", "model", "num_inference_steps")
    return {
        cell.setting.guidance_scale: cell.scores[measured]
        for cell in cells.of_kind("clone")
        if cell.setting.variant == variant
        and cell.setting.guidance_scale is not None
        and measured in cell.scores
        and all(getattr(cell.setting, field) == getattr(like, field) for field in fields)
    }


def _draw_line(axes: Axes, line: Mapping[float, Score], scales: list[float], shift: float, rank: int, label: str) -> None:
    if not line:
        return
    x = [scales.index(scale) + shift for scale in line]
    means = [score.mean for score in line.values()]
    below = [0.0 if score.low is None else max(0.0, score.mean - score.low) for score in line.values()]
    above = [0.0 if score.high is None else max(0.0, score.high - score.mean) for score in line.values()]
    color, marker = COLORS[rank % len(COLORS)], MARKERS[rank % len(MARKERS)]
    style = "-" if rank < len(COLORS) else "-."
    axes.errorbar(x, means, (below, above), color=color, marker=marker, linestyle=style, markersize=5, linewidth=1.6, capsize=3, label=_literal(_short(label)))


def _draw_level(axes: Axes, value: float, label: str, style: str) -> None:
    """A horizontal line; one that would squeeze all others together stands in the legend only, with its value."""
    bottom, top = axes.get_ylim()
    if value < bottom - FAR * (top - bottom):
        axes.plot([], [], color=INK, linestyle=style, linewidth=1.4, label=f"{label}: {value:.1f}, far below")
        return
    axes.axhline(value, color=INK, linestyle=style, linewidth=1.4, label=label)


def _per_class(cell: Cell, test: MeasuredSet | None) -> tuple[list[str], list[float]] | None:
    """Class names and accuracies in percent [num_classes], averaged over seeds; NaN for a class without pictures."""
    if test is None:
        return None
    rows = [
        r
        for r in cell.rows
        if r["role"] == test.role and r["dataset_fingerprint"] == test.fingerprint and r["num_images"] == test.num_images and r["per_class"]
    ]
    if not rows or len({len(row["per_class"]) for row in rows}) > 1:
        return None
    columns = zip(*(row["per_class"] for row in rows), strict=True)
    values = [math.nan if None in column else sum(column) / len(rows) for column in columns]
    return rows[0]["class_names"] or [str(label) for label in range(len(values))], values


def _describe(cells: Cells, findings: Findings, measured: MeasuredSet, title: str) -> str:
    """The figure in words, for those who do not see it."""
    parts = []
    for variant in cells.variants:
        if line := _line(cells, findings, variant, measured):
            parts.append(f"{variant}: " + ", ".join(f"{score.mean:.1f} at guidance {scale:g}" for scale, score in line.items()))
    for cell, label in ((findings.real, "real pictures"), (findings.random, "random weights")):
        if cell is not None and measured in cell.scores:
            parts.append(f"{label}: {cell.scores[measured].mean:.1f}")
    return f"{title}. Top-1 accuracy in percent. " + "; ".join(parts) + "."


def _plot(figure: Figure, name: str, title: str, alt: str) -> Plot:
    png, svg = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(png, format="png", dpi=PNG_DPI)
    FigureCanvasSVG(figure)
    # A fixed salt and no date: the same rows give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "raysd", "svg.fonttype": "path"}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(name, title, alt, png.getvalue(), svg.getvalue().decode())


def _literal(text: str) -> str:
    """Text without mathematics: matplotlib would read what stands between two dollar signs as TeX."""
    return " ".join(text.split()).replace("$", r"\$")


def _short(text: str, limit: int = 32) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
