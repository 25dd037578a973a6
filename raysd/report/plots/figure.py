"""Common parts of all figures. Each is a white card, so that it reads the same on a light and on a dark page."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from raysd.report.text import short

# Okabe and Ito's palette: told apart with any color vision; markers differ as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GRID, GRAY = "#222222", "#dddddd", "#999999"
FONT_SIZE = 12
ROW = 0.36  # inches of a row of dots
WIDTH = 5.4  # inches; small enough that the text stays legible on a phone
PNG_DPI = 200
LEGEND_CHARACTERS, LEGEND_LINES = 46, 3
LEGEND_LINE, LEGEND_ROW = 0.17, 0.07  # inches of a line, and between two labels


@dataclass(frozen=True)
class Plot:
    """One figure."""

    name: str
    """File name without a suffix."""
    title: str
    alt: str
    png: bytes
    svg: str


def new_figure(width: float, height: float, parts: Sequence[float] = (1,)) -> tuple[Figure, list[Axes]]:
    """Return a figure, in inches, of panels one below the other; `parts` are their shares of the height."""
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(
        figure.subplots(len(parts), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": parts})[:, 0]
    )
    for axes in panels:
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=FONT_SIZE, colors=INK)
        axes.xaxis.label.set_fontsize(FONT_SIZE)
        axes.yaxis.label.set_fontsize(FONT_SIZE)
    return figure, panels


def set_title(axes: Axes, title: str) -> None:
    """Set a title at the left, of at most one line."""
    axes.set_title(literal(short(title, 52)), fontsize=FONT_SIZE + 1, loc="left")


def save_plot(figure: Figure, name: str, title: str, alt: str) -> Plot:
    """Return the figure as PNG and SVG; the same rows give the same files."""
    png, svg = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(png, format="png", dpi=PNG_DPI)
    FigureCanvasSVG(figure)
    # A fixed salt and no date, or two runs would give two files.
    with matplotlib.rc_context({"svg.hashsalt": "raysd", "svg.fonttype": "path"}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(name, title, alt, png.getvalue(), svg.getvalue().decode())


def plot_dots(axes: Axes, labels: Sequence[str], values: Sequence[tuple[float, float | None, float | None]]) -> None:
    """Plot a row per value from the top: a dot, with its 95 % interval (low, high) where that is known."""
    for row, (value, low, high) in enumerate(values):
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=COLORS[0], linewidth=1.8, solid_capstyle="butt")
        axes.plot(value, row, MARKERS[0], color=COLORS[0], markersize=7)
    axes.set_yticks(range(len(labels)), [literal(short(label, 24)) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)


def legend_below(figure: Figure, handles: Sequence[tuple[Artist, str]], columns: int = 1) -> None:
    """Put a legend of the plotted artists and their labels below the panel; the figure grows by its lines, so that the
    panel keeps its height."""
    rows = [handles[start : start + columns] for start in range(0, len(handles), columns)]
    lines = sum(max(label.count("\n") + 1 for _, label in row) for row in rows)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * lines + LEGEND_ROW * len(rows))
    handle, labels = [handle for handle, _ in handles], [label for _, label in handles]
    figure.legend(handle, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=FONT_SIZE - 1)


def legend_text(text: str) -> str:
    """Return a label in at most three lines that fit below a figure."""
    lines = textwrap.wrap(" ".join(text.split()), LEGEND_CHARACTERS)
    return literal(
        "\n".join(lines)
        if len(lines) <= LEGEND_LINES
        else "\n".join([*lines[: LEGEND_LINES - 1], short(lines[LEGEND_LINES - 1] + " …", LEGEND_CHARACTERS)])
    )


def literal(text: str) -> str:
    """Return text with mathematics escaped: matplotlib reads text between two dollar signs as TeX."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines()).replace("$", r"\$")
