"""Figures of a search: what each factor does, and how scores grow with images per class."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from raysd.report.figure import COLORS, GREY, INK, MARKERS, WIDTH, Plot, legend_below, legend_text, literal, new_figure, save_plot, set_title, style
from raysd.report.material import Entry, Material
from raysd.report.words import factor_words, objective_words, short, value_words

ROW = 0.36  # inches
MAX_COLORED = len(COLORS)


def effects_plot(material: Material) -> Plot | None:
    """One panel per factor, a dot with its 95 % interval per value: points above or below the factor's mean. None where rows do not say."""
    stored: Sequence[dict[str, Any]] = material.sweep.get("effects") or ()
    effects = [{**effect, "values": [value for value in effect["values"] if value.get("difference") is not None]} for effect in stored]
    effects = [effect for effect in effects if effect["values"]]
    if not effects:
        return None
    counts = [len(effect["values"]) for effect in effects]
    figure = Figure(figsize=(WIDTH, 0.9 + sum(0.75 + ROW * count for count in counts)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(effects), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [0.6 + count for count in counts]})[:, 0]
    for axes, effect in zip(panels, effects, strict=True):
        style(axes)
        _draw_effect(axes, effect)
    panels[-1].set_xlabel("points above or below the mean")
    return save_plot(figure, "effects", "What each factor does", _describe_effects(effects))


def scaling_plot(material: Material) -> Plot | None:
    """Score against images per class, a line per setting; None where all settings have one number of images alone.

    In a sweep the settings that reached the last rung are coloured and the dropped ones grey; small dots are seeds.
    """
    budgets = material.budgets
    if len(budgets) < 2:
        return None
    lines = [(entry, [rung for rung in entry.rungs if rung.score is not None]) for entry in material.entries]
    lines = [(entry, rungs) for entry, rungs in lines if rungs]
    reached = sorted((pair for pair in lines if pair[1][-1].images_per_class == budgets[-1]), key=lambda pair: -(pair[1][-1].score or 0.0))
    colored = [entry.factors for entry, _ in reached[:MAX_COLORED]]
    figure, axes = new_figure(WIDTH, 3.4)
    others = 0
    for entry, rungs in lines:
        x, y = [rung.images_per_class for rung in rungs], [rung.score or 0.0 for rung in rungs]
        if entry.factors not in colored:
            label = None if others else _others(material, len(reached))
            axes.plot(x, y, color=GREY, linewidth=1.1, marker=".", markersize=6, label=label, zorder=1)
            others += 1
            continue
        rank = colored.index(entry.factors)
        color, wide = COLORS[rank], 2.6 if rank == 0 else 1.7
        axes.plot(x, y, color=color, linewidth=wide, marker=MARKERS[rank], markersize=6, label=legend_text(entry.label), zorder=3)
        for rung in rungs:
            axes.plot([rung.images_per_class] * len(rung.seed_scores), rung.seed_scores, ".", color=color, markersize=4, alpha=0.5, zorder=2)
    axes.set_xscale("log")
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("images per class")
    axes.set_ylabel("score, %")
    set_title(axes, "Score by images per class")
    handles, labels = axes.get_legend_handles_labels()
    ranks = {legend_text(entry.label): rank for rank, (entry, _) in enumerate(reached)}
    order = sorted(range(len(labels)), key=lambda i: ranks.get(labels[i], len(ranks)))
    legend_below(figure, [handles[i] for i in order], [labels[i] for i in order])
    return save_plot(figure, "scaling", "Score by images per class", _describe_scaling(material, lines, len(reached)))


def _draw_effect(axes: Axes, effect: dict[str, Any]) -> None:
    values = effect["values"]
    axes.axvline(0, color=INK, linewidth=1)
    for row, value in enumerate(values):
        difference, low, high = value["difference"], value.get("low"), value.get("high")
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=COLORS[0], linewidth=1.8, solid_capstyle="butt")
        axes.plot(difference, row, MARKERS[0], color=COLORS[0], markersize=7)
    axes.set_yticks(range(len(values)), [literal(short(value_words(value["value"]), 24)) for value in values])
    axes.set_ylim(len(values) - 0.4, -0.6)
    set_title(axes, factor_words(effect["factor"]))


def _describe_effects(effects: Sequence[dict[str, Any]]) -> str:
    parts = []
    for effect in effects:
        values = ", ".join(f"{value_words(value['value'])} {value['difference']:+.1f}" for value in effect["values"])
        parts.append(f"{factor_words(effect['factor'])}: {values}")
    return f"Difference of each value to its factor's mean score, in points. {'; '.join(parts)}."


def _others(material: Material, num_reached: int) -> str:
    if not material.is_sweep:
        return "other settings"
    return "dropped settings" if num_reached <= MAX_COLORED else "dropped settings, and others"


def _describe_scaling(material: Material, lines: Sequence[tuple[Entry, Sequence[Any]]], num_reached: int) -> str:
    last = material.budgets[-1]
    said = [
        f"{entry.label}: " + ", ".join(f"{rung.score:.1f} at {rung.images_per_class:,}" for rung in rungs)
        for entry, rungs in lines
        if rungs[-1].images_per_class == last
    ]
    rest = len(lines) - num_reached
    dropped = f" {rest} {'dropped before' if material.is_sweep else 'not measured there'}." if rest else ""
    what = f"Score by images per class, {objective_words(material.objective)}, in percent."
    return f"{what} {num_reached} of {len(lines)} settings have {last:,}.{dropped} {'; '.join(said[:MAX_COLORED])}."
