"""What the rounds of adaptive clones reached, and what they asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb

from raysd.adaptive.settings import AdaptiveSettings
from raysd.report.plots.figure import (
    COLORS,
    FONT_SIZE,
    MARKERS,
    ROW,
    WIDTH,
    Plot,
    legend_below,
    legend_text,
    literal,
    new_figure,
    save_plot,
    set_title,
)
from raysd.report.text import short
from raysd.storage.row_types.adaptive import AdaptiveRow, RoundRow

SHARED = ("class_names", "decided_on", "training")
MOST_GROWTHS = 6
MOST_CLASSES = 40
"""Classes of the plot of counts: those that were given the most and the fewest images."""


@dataclass(frozen=True)
class Adapted:
    """An adaptive clone and its rounds."""

    label: str
    row: AdaptiveRow
    rounds: tuple[RoundRow, ...]

    def course(self, name: str) -> np.ndarray:
        """Return a value of each round that was the last one with its images, float [clone seeds, growth steps]; NaN
        where it is unknown. Of clone seeds that did not all take the same steps, those that all of them took."""
        return np.array([[_number(row[name]) for row in own.values()] for own in self.ends])  # type: ignore[literal-required]

    @property
    def ends(self) -> list[dict[int, RoundRow]]:
        """The last round with its images of each growth step, for each clone seed, by the number of the step."""
        found: dict[str, dict[int, RoundRow]] = {}
        for row in self.rounds:
            own = found.setdefault(row["loop"], {})
            own[self._step(row, max(own, default=-1))] = row
        shared = set.intersection(*(set(own) for own in found.values())) if found else set()
        return [{step: own[step] for step in sorted(shared)} for own in found.values()]

    def _step(self, row: RoundRow, before: int) -> int:
        """Return the growth step of a round; older versions wrote none, and the last round has taken all."""
        if "step" in row:
            return row["step"]
        return self.row["settings"]["num_rounds"] - 1 if row["is_last"] else before + row.get("grew", True)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def comparable(rows: Sequence[AdaptiveRow], rounds: Sequence[RoundRow]) -> list[Adapted]:
    """Return the newest adaptive clone and those that can be shown beside it: of as many images, of the same classes,
    and decided on the same images. Of each kind of settings the newest one."""
    by_name = {row["fingerprint"]: row for row in rounds}
    whole = [row for row in rows if all(name in by_name for name in row["rounds"])]
    if not whole:
        return []
    newest = max(whole, key=lambda row: (row["date"], row["fingerprint"]))
    model, found = by_name[newest["rounds"][0]], dict[str, Adapted]()
    for row in sorted(whole, key=lambda row: (row["date"], row["fingerprint"])):
        own = tuple(by_name[name] for name in row["rounds"])
        same = all(own[0][name] == model[name] for name in SHARED)  # type: ignore[literal-required]
        if same and own[0]["clones"] == model["clones"] and row["images_per_class"] == newest["images_per_class"]:
            label = _label(row)
            found[label] = Adapted(label, row, own)
    return sorted(found.values(), key=lambda each: (each.row["way"] != "uniform", each.label))


def _label(row: AdaptiveRow) -> str:
    """Return the way, and what is not usual about it."""
    settings = AdaptiveSettings(**row["settings"])
    usual = AdaptiveSettings(way=settings.way).model_dump()
    changed = {name: value for name, value in settings.identity().items() if value != usual[name]}
    return ", ".join([settings.way, *(f"{name} {value}" for name, value in changed.items())])


def plot_rounds(adapted: Sequence[Adapted]) -> list[Plot]:
    """Return accuracy against images and against device seconds, and the images of each class."""
    if not adapted:
        return []
    plots = [_against(adapted, "num_images", "images of a clone", "rounds", "Accuracy against images")]
    if not any(np.isnan(each.course("device_seconds")).any() for each in adapted):
        words = ("seconds of one device, generation alone", "rounds_seconds", "Accuracy against device seconds")
        plots.append(_against(adapted, "device_seconds", *words))
    chosen = next((each for each in adapted if len(set(_counts(each).tolist())) > 1), None)
    return [*plots, _count_plot(chosen)] if chosen is not None else plots


def _against(adapted: Sequence[Adapted], name: str, axis: str, file: str, title: str) -> Plot:
    figure, (axes,) = new_figure(WIDTH, 3.6)
    handles, words = [], []
    for number, each in enumerate(adapted):
        x, y = each.course(name).mean(axis=0), each.course("accuracy")
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        (line,) = axes.plot(x, y.mean(axis=0), marker=marker, color=color, linewidth=1.8, markersize=6)
        axes.fill_between(x, y.min(axis=0), y.max(axis=0), color=color, alpha=0.15, linewidth=0)
        handles.append((line, legend_text(f"{each.label}, {len(y)} clone seeds")))
        words.append(f"{each.label}: {y.mean(axis=0)[0]:.1f} to {y.mean(axis=0)[-1]:.1f} %")
    decided = adapted[0].rounds[0]["decided_on"]
    axes.set_xlabel(literal(axis))
    axes.set_ylabel("top-1, %")
    set_title(axes, f"On {decided}")
    legend_below(figure, handles)
    alt = f"{title}, on {decided}, from the first round to the last. {'; '.join(words)}. Bands hold all clone seeds."
    return save_plot(figure, file, title, alt)


def _counts(each: Adapted) -> np.ndarray:
    """Return the images of each class in the last round, mean over clone seeds, float [K]."""
    return np.mean([row["counts"] for row in each.rounds if row["is_last"]], axis=0)


def _count_plot(each: Adapted) -> Plot:
    counts, names = _counts(each), each.rounds[0]["class_names"]
    order = np.argsort(-counts, kind="stable")
    if len(order) > MOST_CLASSES:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    figure, (axes,) = new_figure(WIDTH, 0.9 + ROW * len(order))
    growths = growths_of(each)
    for number, (label, growth) in enumerate(growths):
        white = 0.75 * number / max(1, len(growths) - 1)  # opaque, or the grid would shine through
        shade = tuple(white + (1 - white) * part for part in to_rgb(COLORS[0]))
        before = sum((other for _, other in growths[:number]), np.zeros(len(counts)))
        axes.barh(range(len(order)), growth[order], left=before[order], color=shade, label=label)
    axes.axvline(float(counts.mean()), color=COLORS[1], linewidth=1.5)
    axes.set_yticks(range(len(order)), [literal(short(names[label], 24)) for label in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlabel("images; the line is an even share", fontsize=FONT_SIZE)
    set_title(axes, f"What {each.label} asked for")
    bars, labels = axes.get_legend_handles_labels()
    legend_below(figure, list(zip(bars, labels, strict=True)))
    most, fewest = order[0], order[-1]
    alt = (
        f"Images of each class that the rounds of {each.label} asked for. After the last one: the most {names[most]} "
        f"with {counts[most]:.0f}, the fewest {names[fewest]} with {counts[fewest]:.0f}."
    )
    return save_plot(figure, "rounds_counts", "Images by class and round", alt)


def growths_of(each: Adapted) -> list[tuple[str, np.ndarray]]:
    """Return the images of each class that were added, mean over clone seeds, float [K]: of the first round, then of
    each growth, several together where there are many, or where the clone seeds do not share them."""
    steps = list(each.ends[0])
    places = sorted({round(place) for place in np.linspace(0, len(steps) - 1, min(len(steps), MOST_GROWTHS))})
    found, before, first = list[tuple[str, np.ndarray]](), np.zeros(len(each.rounds[0]["counts"])), 0
    for step in (steps[place] for place in places):
        counts = np.mean([own[step]["counts"] for own in each.ends], axis=0)
        name = f"growth {step}" if step == first else f"growths {first} to {step}"
        found.append((name if step else "first round", counts - before))
        before, first = counts, step + 1
    return found
