"""Accuracy against guidance: a line per prompt variant, and per further searched field where settings differ in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from raysd.report.cells import Cell, Cells, MeasuredSet, Score
from raysd.report.figure import COLORS, INK, MARKERS, WIDTH, Plot, legend_below, legend_text, literal, new_figure, save_plot, set_title
from raysd.report.findings import Findings
from raysd.report.words import GUIDANCE, VARIANT, factor_words, short

FAR = 1.0  # heights of the plot; a level further below than this is not drawn
MAX_LINES = 8  # more, and each variant's settings are dots of one colour
ROW = 0.36  # inches of a setting in a figure of one guidance scale
MAX_TICKS = 10  # more guidance scales, and the axis is one of numbers


@dataclass(frozen=True)
class Line:
    """The settings that differ in guidance alone; or, with `joined` false, all settings of a variant."""

    label: str
    points: tuple[tuple[float, Score], ...]
    """(guidance scale, score), rising."""
    joined: bool = True


def guidance_plot(cells: Cells, findings: Findings, measured: MeasuredSet, name: str, title: str, images_per_class: int | None = None) -> Plot:
    """Top-1 accuracy on one set against guidance with 95 % intervals; real and random as horizontal lines.

    Args:
        cells: all settings.
        findings: with the baselines.
        measured: the set.
        name: file name without a suffix.
        title: stands above.
        images_per_class: of the settings that are shown; default the best one's.
    """
    budget = images_per_class or findings.best.setting.images_per_class
    lines = find_lines(cells, measured, budget)
    baselines = [found for found in _baselines(findings, budget) if measured in found[0].scores]
    scales = sorted({scale for line in lines for scale, _ in line.points})
    alt = _describe(lines, baselines, measured, title)
    if len(scales) == 1 and len(lines) > 1:
        return _dot_plot(lines, baselines, measured, name, title, alt)
    figure, axes = new_figure(WIDTH, 3.1)
    places = {scale: float(i) for i, scale in enumerate(scales)} if len(scales) <= MAX_TICKS else {scale: scale for scale in scales}
    for rank, line in enumerate(lines):
        # Lines are a little apart, or their error bars would lie on one another.
        shift = 0.12 * (rank - (len(lines) - 1) / 2) / max(1, len(lines) / 4) if len(scales) <= MAX_TICKS else 0.0
        _draw_line(axes, line, places, shift, rank)
    for cell, label, dash in baselines:
        _draw_level(axes, cell.scores[measured].mean, label, dash)
    if len(scales) <= MAX_TICKS:
        axes.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
        axes.set_xlim(-0.4, max(len(scales), 1) - 0.6)
    axes.set_xlabel("guidance scale")
    axes.set_ylabel("top-1, %")
    set_title(axes, title)
    # Error bars would come after the horizontal lines otherwise.
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: isinstance(handles[i], Line2D))
    columns = 1 if max((len(label) for label in labels), default=0) > 26 else 2
    legend_below(figure, [handles[i] for i in order], [labels[i] for i in order], columns)
    return save_plot(figure, name, title, alt)


def find_lines(cells: Cells, measured: MeasuredSet, images_per_class: int | None) -> list[Line]:
    """The lines of a figure, in the order of the settings."""
    shown = [c for c in cells.of_kind("clone") if measured in c.scores and c.setting.guidance_scale is not None]
    shown = [cell for cell in shown if cell.setting.images_per_class == images_per_class]
    groups: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in shown:
        groups.setdefault(_fields(cell), []).append(cell)
    variants = list(dict.fromkeys(str(cell.setting.variant) for cell in shown))
    lone = len(groups) > len(variants) and all(len(members) == 1 for members in groups.values())
    if len(groups) > MAX_LINES or lone:
        return [Line(name, _points([c for c in shown if str(c.setting.variant) == name], measured), False) for name in variants]
    telling = [name for name in dict.fromkeys(name for group in groups for name, _ in group) if len({dict(group).get(name) for group in groups}) > 1]
    return [Line(_label(group, telling), _points(members, measured)) for group, members in groups.items()]


def _fields(cell: Cell) -> tuple[tuple[str, str], ...]:
    """All that sets a line apart: (field in words, value)."""
    setting = cell.setting
    fields = {"prompt variant": str(setting.variant), "generator": setting.model or "", "steps": str(setting.num_inference_steps), "backbone": setting.backbone}
    fields |= {factor_words(name): value.strip('"') for name, value in setting.factors if name not in (GUIDANCE, VARIANT)}
    return tuple(fields.items())


def _label(group: Sequence[tuple[str, str]], telling: Sequence[str]) -> str:
    values = dict(group)
    further = [f"{name} {values[name]}" for name in telling if name != "prompt variant" and name in values]
    return ", ".join([values["prompt variant"], *further])


def _points(members: Sequence[Cell], measured: MeasuredSet) -> tuple[tuple[float, Score], ...]:
    return tuple(sorted(((c.setting.guidance_scale or 0.0, c.scores[measured]) for c in members), key=lambda point: point[0]))


def _baselines(findings: Findings, images_per_class: int | None) -> list[tuple[Cell, str, str]]:
    """Real and random with a label and a dash; real says how many pictures it has where that is another number."""
    count = findings.real.setting.images_per_class if findings.real else None
    real = "real pictures" if count == images_per_class else f"real pictures, {'all' if count is None else f'{count:,} per class'}"
    found = ((findings.real, real, "--"), (findings.random, "random weights", ":"))
    return [(cell, label, dash) for cell, label, dash in found if cell is not None]


def _draw_line(axes: Axes, line: Line, places: Mapping[float, float], shift: float, rank: int) -> None:
    x = [places[scale] + shift for scale, _ in line.points]
    scores = [score for _, score in line.points]
    below, above = _bars(scores)
    # The seventh line has the first one's colour, and another marker.
    color, marker = COLORS[rank % len(COLORS)], MARKERS[(rank + rank // len(COLORS)) % len(MARKERS)]
    dash = "none" if not line.joined else "-" if rank < len(COLORS) else "-."
    label = legend_text(line.label)
    means = [score.mean for score in scores]
    axes.errorbar(x, means, (below, above), color=color, marker=marker, linestyle=dash, markersize=5, linewidth=1.6, capsize=3, label=label)


def _dot_plot(lines: Sequence[Line], baselines: Sequence[tuple[Cell, str, str]], measured: MeasuredSet, name: str, title: str, alt: str) -> Plot:
    """Settings of one guidance scale: a row for each, real and random as vertical lines."""
    figure, axes = new_figure(WIDTH, 1.1 + ROW * len(lines))
    rows = [(row, score) for row, line in enumerate(lines) for _, score in line.points]
    scores = [score for _, score in rows]
    means = [score.mean for score in scores]
    axes.errorbar(means, [row for row, _ in rows], xerr=_bars(scores), fmt=MARKERS[0], color=COLORS[0], markersize=6, linewidth=1.8, capsize=3)
    for cell, label, dash in baselines:
        axes.axvline(cell.scores[measured].mean, color=INK, linestyle=dash, linewidth=1.4, label=label)
    axes.set_yticks(range(len(lines)), [literal(short(line.label, 24)) for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(f"top-1, %, at guidance {lines[0].points[0][0]:g}")
    set_title(axes, title)
    legend_below(figure, *axes.get_legend_handles_labels(), 2)
    return save_plot(figure, name, title, alt)


def _bars(scores: Sequence[Score]) -> tuple[list[float], list[float]]:
    """How far the 95 % intervals reach below and above the means."""
    below = [0.0 if score.low is None else max(0.0, score.mean - score.low) for score in scores]
    above = [0.0 if score.high is None else max(0.0, score.high - score.mean) for score in scores]
    return below, above


def _draw_level(axes: Axes, value: float, label: str, dash: str) -> None:
    """A horizontal line; one that would squeeze all others together stands in the legend only, with its value."""
    bottom, top = axes.get_ylim()
    if value < bottom - FAR * (top - bottom):
        axes.plot([], [], color=INK, linestyle=dash, linewidth=1.4, label=f"{label}: {value:.1f}, far below")
        return
    axes.axhline(value, color=INK, linestyle=dash, linewidth=1.4, label=label)


def _describe(lines: Sequence[Line], baselines: Sequence[tuple[Cell, str, str]], measured: MeasuredSet, title: str) -> str:
    """The figure in words, for those who do not see it."""
    parts = [f"{line.label}: " + ", ".join(f"{score.mean:.1f} at guidance {scale:g}" for scale, score in line.points) for line in lines]
    parts += [f"{label}: {cell.scores[measured].mean:.1f}" for cell, label, _ in baselines]
    return f"{title}. Top-1 accuracy in percent. " + "; ".join(parts) + "."
