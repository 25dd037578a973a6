"""Heat maps: the score of each prompt variant at each guidance scale."""

import math
from collections.abc import Sequence

from raysd.report.inputs import ReportInputs
from raysd.report.plots.figure import FONT_SIZE, WIDTH, Plot, literal, new_figure, save_plot, set_title
from raysd.report.text import objective_words, short

MAX_SCALES = 12  # more, and the guidance scales are a range, not values
CELL = 0.62  # inches
COLORS = "cividis"  # rises in lightness with any color vision
DARK = 0.45  # share of the range below which a number is written in white


def heat_maps(inputs: ReportInputs) -> list[Plot]:
    """Plot one map at the images per class that the most settings share, and one at the largest number where that
    differs."""
    return [plot for budget in inputs.shown_budgets if (plot := heat_map(inputs, budget)) is not None]


def heat_map(inputs: ReportInputs, images_per_class: int) -> Plot | None:
    """Plot the map at one number of images per class; None without two scores, two variants, and two to twelve guidance
    scales."""
    scored = [
        (entry.setting, score) for entry in inputs.entries if (score := entry.score_at(images_per_class)) is not None
    ]
    variants = list(dict.fromkeys(str(entry.setting.variant) for entry in inputs.entries))
    scales = sorted(
        {entry.setting.guidance_scale for entry in inputs.entries if entry.setting.guidance_scale is not None}
    )
    found: dict[tuple[str, float], list[float]] = {}
    for setting, score in scored:
        if setting.guidance_scale is not None:
            found.setdefault((str(setting.variant), setting.guidance_scale), []).append(score)
    if len(variants) < 2 or not 2 <= len(scales) <= MAX_SCALES or len(found) < 2:
        return None
    scores = [[max(found.get((variant, scale), [math.nan])) for scale in scales] for variant in variants]
    mixed = any(len(values) > 1 for values in found.values())
    title = f"Score at {images_per_class:,} images per class" + (", best of the other fields" if mixed else "")
    figure, (axes,) = new_figure(max(WIDTH, 2.4 + CELL * len(scales)), 1.3 + CELL * len(variants))
    image = axes.imshow(scores, cmap=COLORS, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
    axes.set_yticks(range(len(variants)), [literal(short(name, 22)) for name in variants])
    axes.tick_params(length=0)
    axes.set_xlabel("guidance scale")
    set_title(axes, title)
    bottom, top = image.get_clim()
    for row, line in enumerate(scores):
        for column, score in enumerate(line):
            if math.isnan(score):
                axes.text(column, row, "–", ha="center", va="center", fontsize=FONT_SIZE, color="#777777")
                continue
            color = "white" if score < bottom + DARK * (top - bottom) or bottom == top else "black"
            axes.text(column, row, f"{score:.1f}", ha="center", va="center", fontsize=FONT_SIZE, color=color)
    return save_plot(figure, f"heat-map-{images_per_class}", title, _describe(inputs, title, variants, scales, scores))


def _describe(
    inputs: ReportInputs,
    title: str,
    variants: Sequence[str],
    scales: Sequence[float],
    scores: Sequence[Sequence[float]],
) -> str:
    lines = []
    for variant, line in zip(variants, scores, strict=True):
        known = [
            f"{score:.1f} at guidance {scale:g}"
            for scale, score in zip(scales, line, strict=True)
            if not math.isnan(score)
        ]
        lines.append(f"{variant}: {', '.join(known) or 'no setting has a score'}")
    return f"{title}: {objective_words(inputs.objective)}, in percent. {'; '.join(lines)}."
