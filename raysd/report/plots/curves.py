"""Accuracy against guidance: a line per prompt variant, and per further searched field where settings differ in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from raysd.report.cells import Cell, Cells, MeasuredSet, telling
from raysd.report.inputs import widest_and_last
from raysd.report.plots.figure import (
    COLORS,
    GRAY,
    INK,
    MARKERS,
    ROW,
    WIDTH,
    Plot,
    legend_below,
    legend_text,
    new_figure,
    plot_dots,
    save_plot,
    set_title,
)
from raysd.report.summary import Findings
from raysd.report.text import FACTORS, GUIDANCE, VARIANT, metric_words, short, slug
from raysd.statistics.seeds import Score

FAR = 1.0  # heights of the plot; a level further below than this is not plotted
MAX_LINES = 8  # more, and only the best are colored
MAX_ROWS = 30  # settings in a figure of one guidance scale
MAX_TICKS = 10  # more guidance scales, and the axis is one of numbers


@dataclass(frozen=True)
class Line:
    """The settings that differ in guidance alone; or, with `joined` false, all settings of a variant."""

    label: str
    points: tuple[tuple[float, Score], ...]
    """(guidance scale, score), rising."""
    joined: bool = True

    @property
    def best(self) -> float:
        """The highest score."""
        return max(score.mean for _, score in self.points)


@dataclass(frozen=True)
class Level:
    """A baseline."""

    value: float
    label: str
    dash: str


def plot_curves(cells: Cells, findings: Findings | None, roles: Sequence[str]) -> list[Plot]:
    """Plot a figure for each set of some roles: at the images per class with the most settings measured on it, and at
    the largest number."""
    plots = []
    for measured in [s for role in roles for s in cells.of_role(role)]:
        shown = [
            cell
            for cell in cells.of_kind("clone")
            if measured in cell.scores and cell.setting.guidance_scale is not None
        ]
        budgets = widest_and_last(cell.setting.images_per_class or 0 for cell in shown)
        plots += [guidance_plot(cells, findings, measured, budget) for budget in budgets]
    return plots


def guidance_plot(cells: Cells, findings: Findings | None, measured: MeasuredSet, images_per_class: int) -> Plot:
    """Plot accuracy on one set against guidance with 95 % intervals, for the clones with this many images per class (0
    is unknown); real and random are levels."""
    found = find_lines(cells, measured, images_per_class)
    lines = sorted(found, key=lambda line: -line.best)
    kept, rest = [line for line in found if line in lines[:MAX_LINES]], lines[MAX_LINES:]
    name, size = cells.names[measured], f", {images_per_class:,} per class" if images_per_class else ""
    title = (
        f"{short(name, 26)} ({measured.num_images:,}){size}"  # the images per class are in it, however long the name is
    )
    kind = "transfer" if measured.role == "transfer" else "accuracy"
    file = f"{kind}-{slug(name.replace(', ', '-').replace(' ', '-'))}-{images_per_class}"
    baselines = _baselines(findings, measured, images_per_class)
    scales = sorted({scale for line in lines for scale, _ in line.points})
    what = metric_words(measured.metric)
    alt = (
        f"{name}, {measured.num_images:,} images{size}. {what.capitalize()} in percent. "
        f"{_describe(kept, len(rest), baselines)}"
    )
    if len(scales) == 1 and len(lines) > 1:
        return _dot_plot(lines, baselines, scales[0], what, file, title, alt)
    figure, (axes,) = new_figure(WIDTH, 3.1)
    few = len(scales) <= MAX_TICKS
    places = {scale: float(i) for i, scale in enumerate(scales)} if few else {scale: scale for scale in scales}
    handles: list[tuple[Line2D, str]] = []
    for rank, line in enumerate(kept):
        # Lines are a little apart, or their error bars would lie on one another.
        shift = 0.12 * (rank - (len(kept) - 1) / 2) / max(1, len(kept) / 4) if few else 0.0
        handles.append((_plot_line(axes, line, places, shift, rank), legend_text(line.label)))
    for line in rest:
        (handle,) = axes.plot(
            [places[scale] for scale, _ in line.points],
            [s.mean for _, s in line.points],
            "-" if line.joined else ".",
            color=GRAY,
            zorder=1,
        )
        handles[MAX_LINES:] = [(handle, f"{len(rest)} others, all lower at their best")]
    handles += [_plot_level(axes, level) for level in baselines]
    if few:
        axes.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
        axes.set_xlim(-0.4, len(scales) - 0.6)
    axes.set_xlabel("guidance scale")
    axes.set_ylabel(f"{what}, %")
    set_title(axes, title)
    legend_below(figure, handles, 1 if max(len(label) for _, label in handles) > 26 else 2)
    return save_plot(figure, file, title, alt)


def find_lines(cells: Cells, measured: MeasuredSet, images_per_class: int) -> list[Line]:
    """Return the lines of a figure, in the order of the settings."""
    shown = [c for c in cells.of_kind("clone") if measured in c.scores and c.setting.guidance_scale is not None]
    shown = [cell for cell in shown if (cell.setting.images_per_class or 0) == images_per_class]
    guidance, variant = FACTORS[GUIDANCE], FACTORS[VARIANT]
    fields = [{name: value for name, value in cell.setting.fields().items() if name != guidance} for cell in shown]
    further = [name for name in telling(fields) if name != variant]
    groups: dict[str, list[Cell]] = {}
    for cell, own in zip(shown, fields, strict=True):
        groups.setdefault(
            ", ".join([str(cell.setting.variant), *(f"{name} {own[name]}" for name in further if name in own)]), []
        ).append(cell)
    variants = list(dict.fromkeys(str(cell.setting.variant) for cell in shown))
    if len(groups) > len(variants) and all(len(members) == 1 for members in groups.values()):
        return [
            Line(name, _points([c for c in shown if str(c.setting.variant) == name], measured), False)
            for name in variants
        ]
    return [Line(label, _points(members, measured)) for label, members in groups.items()]


def _points(members: Sequence[Cell], measured: MeasuredSet) -> tuple[tuple[float, Score], ...]:
    return tuple(
        sorted(((c.setting.guidance_scale or 0.0, c.scores[measured]) for c in members), key=lambda point: point[0])
    )


def _baselines(findings: Findings | None, measured: MeasuredSet, images_per_class: int) -> list[Level]:
    """Return the levels of real and random; the label of real names its number of images where it differs."""
    if findings is None:
        return []
    count = findings.real.setting.images_per_class if findings.real else None
    real = (
        "real images"
        if count == images_per_class
        else f"real images, {'all' if count is None else f'{count:,} per class'}"
    )
    found = ((findings.real, real, "--"), (findings.random, "random weights", ":"))
    return [
        Level(cell.scores[measured].mean, label, dash)
        for cell, label, dash in found
        if cell is not None and measured in cell.scores
    ]


def _plot_line(axes: Axes, line: Line, places: Mapping[float, float], shift: float, rank: int) -> Line2D:
    x = [places[scale] + shift for scale, _ in line.points]
    means = [score.mean for _, score in line.points]
    bars = [[score.mean - score.low for _, score in line.points], [score.high - score.mean for _, score in line.points]]
    # The seventh line has the first one's color, and another marker.
    color, marker = COLORS[rank % len(COLORS)], MARKERS[(rank + rank // len(COLORS)) % len(MARKERS)]
    dash = "none" if not line.joined else "-" if rank < len(COLORS) else "-."
    return axes.errorbar(
        x, means, bars, color=color, marker=marker, linestyle=dash, markersize=5, linewidth=1.6, capsize=3
    )[0]


def _dot_plot(
    lines: Sequence[Line], baselines: Sequence[Level], scale: float, what: str, file: str, title: str, alt: str
) -> Plot:
    """Plot settings of one guidance scale, best first: a row for each, real and random as vertical lines."""
    rows = [(line.label, score) for line in lines for _, score in line.points]
    shown = sorted(rows, key=lambda row: -row[1].mean)[:MAX_ROWS]
    figure, (axes,) = new_figure(WIDTH, 1.1 + ROW * len(shown))
    plot_dots(axes, [label for label, _ in shown], [(score.mean, score.low, score.high) for _, score in shown])
    handles = [
        (axes.axvline(level.value, color=INK, linestyle=level.dash, linewidth=1.4), level.label) for level in baselines
    ]
    most = f", best {MAX_ROWS} of {len(rows)}" if len(rows) > MAX_ROWS else ""
    axes.set_xlabel(f"{what}, %, at guidance {scale:g}{most}")
    set_title(axes, title)
    legend_below(figure, handles, 2)
    return save_plot(figure, file, title, alt)


def _plot_level(axes: Axes, level: Level) -> tuple[Line2D, str]:
    """Plot a horizontal line; a value far below the others appears only in the legend."""
    bottom, top = axes.get_ylim()
    if level.value < bottom - FAR * (top - bottom):
        return Line2D(
            [], [], color=INK, linestyle=level.dash, linewidth=1.4
        ), f"{level.label}: {level.value:.1f}, far below"
    return axes.axhline(level.value, color=INK, linestyle=level.dash, linewidth=1.4), level.label


def _describe(lines: Sequence[Line], num_others: int, baselines: Sequence[Level]) -> str:
    """Return a description of the figure as alternative text."""
    parts = [
        f"{line.label}: "
        + ", ".join(f"{score.mean:.1f} at guidance {scale:g}" for scale, score in line.points[:MAX_TICKS])
        for line in lines
    ]
    parts += [f"{num_others} others, all lower at their best"] if num_others else []
    parts += [f"{level.label}: {level.value:.1f}" for level in baselines]
    return "; ".join(parts) + ". The accuracy rows hold all values."
