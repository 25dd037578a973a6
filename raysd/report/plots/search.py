"""Figures of a search: what each factor does, and how scores grow with images per class."""

from collections.abc import Sequence

from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from raysd.report.inputs import Entry, ReportInputs, Rung
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
from raysd.report.text import factor_words, objective_words, value_words
from raysd.storage.row_types.sweep import Effect

MAX_COLORED = len(COLORS)


def effects_plot(inputs: ReportInputs) -> Plot | None:
    """Plot one panel per factor, a dot with its 95 % interval per value: points above or below the factor's mean. None
    where no effects are known."""
    stored = inputs.sweep["effects"] if inputs.sweep is not None else []
    shown: list[Effect] = [
        {**effect, "values": [value for value in effect["values"] if value["difference"] is not None]}
        for effect in stored
    ]
    effects = [effect for effect in shown if effect["values"]]
    if not effects:
        return None
    counts = [len(effect["values"]) for effect in effects]
    figure, panels = new_figure(
        WIDTH, 0.9 + sum(0.75 + ROW * count for count in counts), [0.6 + count for count in counts]
    )
    for axes, effect in zip(panels, effects, strict=True):
        values = effect["values"]
        axes.axvline(0, color=INK, linewidth=1)
        plot_dots(
            axes,
            [value_words(value["value"]) for value in values],
            [(value["difference"] or 0.0, value["low"], value["high"]) for value in values],
        )
        set_title(axes, factor_words(effect["factor"]))
    panels[-1].set_xlabel("points above or below the mean")
    return save_plot(figure, "effects", "What each factor does", _describe_effects(effects))


def scaling_plot(inputs: ReportInputs) -> Plot | None:
    """Plot score against images per class, a line per setting; None where all settings have the same number of images.

    The best settings that reached the last number are colored, all others gray; small dots are seeds.
    """
    budgets = inputs.budgets
    if len(budgets) < 2:
        return None
    lines = [
        (entry, rungs)
        for entry in inputs.entries
        if (rungs := [rung for rung in entry.rungs if rung.score is not None])
    ]
    lines.sort(key=lambda line: (-line[1][-1].images_per_class, -(line[1][-1].score or 0.0)))
    num_reached = sum(rungs[-1].images_per_class == budgets[-1] for _, rungs in lines)
    colored = min(num_reached, MAX_COLORED)
    figure, (axes,) = new_figure(WIDTH, 3.4)
    handles: list[tuple[Line2D, str]] = []
    for rank, (entry, rungs) in enumerate(lines):
        x, y = [rung.images_per_class for rung in rungs], [rung.score or 0.0 for rung in rungs]
        if rank >= colored:
            (handle,) = axes.plot(x, y, color=GRAY, linewidth=1.1, marker=".", markersize=6, zorder=1)
            handles[colored:] = [(handle, _others(inputs, num_reached))]
            continue
        (handle,) = axes.plot(
            x, y, color=COLORS[rank], linewidth=2.6 if rank == 0 else 1.7, marker=MARKERS[rank], markersize=6, zorder=3
        )
        handles.append((handle, legend_text(entry.label)))
        for rung in rungs:
            axes.plot(
                [rung.images_per_class] * len(rung.seed_scores),
                rung.seed_scores,
                ".",
                color=COLORS[rank],
                markersize=4,
                alpha=0.5,
                zorder=2,
            )
    axes.set_xscale("log")
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("images per class")
    axes.set_ylabel("score, %")
    set_title(axes, "Score by images per class")
    legend_below(figure, handles)
    return save_plot(figure, "scaling", "Score by images per class", _describe_scaling(inputs, lines, num_reached))


def _describe_effects(effects: Sequence[Effect]) -> str:
    parts = []
    for effect in effects:
        values = ", ".join(f"{value_words(value['value'])} {value['difference']:+.1f}" for value in effect["values"])
        parts.append(f"{factor_words(effect['factor'])}: {values}")
    return f"Difference of each value to its factor's mean score, in points. {'; '.join(parts)}."


def _others(inputs: ReportInputs, num_reached: int) -> str:
    if not inputs.is_sweep:
        return "other settings"
    return "dropped or failed settings" if num_reached <= MAX_COLORED else "dropped or failed settings, and others"


def _describe_scaling(inputs: ReportInputs, lines: Sequence[tuple[Entry, Sequence[Rung]]], num_reached: int) -> str:
    """Return a description of the figure as alternative text; `lines` begin with the settings of the most images."""
    last, rest = inputs.budgets[-1], len(inputs.entries) - num_reached
    said = [
        f"{entry.label}: " + ", ".join(f"{rung.score:.1f} at {rung.images_per_class:,}" for rung in rungs)
        for entry, rungs in lines[:num_reached]
    ]
    dropped = f" {rest} {'dropped before, or failed' if inputs.is_sweep else 'not measured there'}." if rest else ""
    what = f"Score by images per class, {objective_words(inputs.objective)}, in percent."
    return (
        f"{what} {num_reached} of {len(inputs.entries)} settings have {last:,}.{dropped} "
        f"{'; '.join(said[:MAX_COLORED])}."
    )
