"""The findings of a report: the best setting, the share of the gap to real images that it closes, and whether guidance
matters."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from raysd.report.cells import Cell, Cells, MeasuredSet, Setting, role_score
from raysd.report.text import FACTORS, GUIDANCE, USUAL_GUIDANCE, VARIANT, Objective, counts, objective_words
from raysd.statistics.gap import Share, gap_closed
from raysd.statistics.verdict import OPPOSITE, Verdict
from raysd.storage.row_types.measured import AccuracyRow, ComparisonRow
from raysd.storage.row_types.sweep import BestSetting, SweptComparison


@dataclass(frozen=True)
class Findings:
    """The findings at the top of the page."""

    best: Cell
    real: Cell | None
    random: Cell | None
    test: MeasuredSet | None
    gaps: Mapping[MeasuredSet, Share | None]
    """Share of the gap to real closed, for the test set and each transfer set."""
    lines: tuple[str, ...]
    """The summary; the first line is the answer."""
    notes: tuple[str, ...]
    word: str
    """What `best` is called: `highest` where no sweep chose it."""

    @property
    def heading(self) -> str:
        """A column's heading for `best`."""
        return f"{self.word} {'clone' if is_clone(self.best.setting) else 'setting'}"


def find(
    cells: Cells,
    chosen: BestSetting | None,
    objective: Objective,
    comparisons: Sequence[SweptComparison] = (),
    compared: Sequence[ComparisonRow] = (),
    borrowed: Collection[str] = (),
) -> Findings | None:
    """Return all findings; None when the best setting was not measured, or no set of the objective was.

    Args:
        cells: all settings.
        chosen: the sweep's best setting; None when no sweep chose.
        objective: what a setting is chosen by.
        comparisons: the sweep's, of its best setting with the others.
        compared: rows of `raysd compare`.
        borrowed: kinds of baselines that come from another run.
    """
    best = _chosen(cells, chosen) if chosen is not None else _highest(cells, str(objective))
    if best is None:
        return None
    word = "highest" if chosen is None else "best"
    real, notes = find_baseline(cells, "real", best.setting)
    random, _ = find_baseline(cells, "random", best.setting)
    test = next((measured for measured in cells.of_role("test") if measured in best.scores), None)
    gaps = {s: _gap(s, best, real, random) for s in [*([test] if test else []), *cells.of_role("transfer")]}
    answer = _answer(best, real, random, test, gaps, borrowed)
    lines = (
        _known(cells, objective, answer) if chosen is None else [f"The best setting is {answer}", _choice(objective)]
    )
    if test is not None and (sentence := guidance_sentence(cells, best, test, comparisons, compared, word)):
        lines.append(sentence)
    if closed := [f"{cells.names[s]} {gap}" for s, gap in gaps.items() if s.role == "transfer" and gap is not None]:
        optimistic = (
            " These sets had a part in the choice, so this is optimistic." if counts(objective, "transfer") else ""
        )
        lines.append(
            f"Share of the gap to real closed on transfer sets (95 % interval): {'; '.join(closed)}.{optimistic}"
        )
    return Findings(best, real, random, test, gaps, tuple(lines), tuple(notes), word)


def is_clone(setting: Setting) -> bool:
    """Return whether a setting is a clone alone, without other sets."""
    return setting.kind == "clone" and not setting.is_mixture


def find_baseline(cells: Cells, kind: str, best: Setting) -> tuple[Cell | None, list[str]]:
    """Return the `real` or `random` cell to compare with, of the same backbone; and a note when its number of images
    differs."""
    found = [
        cell for cell in cells.of_kind(kind) if cell.setting.backbone == best.backbone and not cell.setting.is_mixture
    ]
    if not found:
        return None, []
    chosen = min(
        found,
        key=lambda cell: (
            cell.setting.images_per_class != best.images_per_class,
            -(cell.setting.images_per_class or math.inf),
        ),
    )
    count = chosen.setting.images_per_class
    if kind == "random" or best.kind != "clone" or count == best.images_per_class:
        return chosen, []
    return chosen, [
        f"Real has {'all' if count is None else count} images per class, the clone {best.images_per_class}."
    ]


def guidance_sentence(
    cells: Cells,
    best: Cell,
    test: MeasuredSet,
    comparisons: Sequence[SweptComparison] = (),
    compared: Sequence[ComparisonRow] = (),
    word: str = "best",
) -> str | None:
    """Compare the best setting with guidance 7.5 of its variant, or the highest guidance where 7.5 was not measured;
    None where there is no other.

    All have the best one's images per class.
    """
    like = [
        cell
        for cell in cells.of_kind("clone")
        if _same_but_guidance(cell.setting, best.setting) and test in cell.scores
    ]
    others = {cell.setting.guidance_scale: cell for cell in like if cell.setting.guidance_scale is not None}
    own = best.setting.guidance_scale
    if own is None or len(others) < 2:
        return None
    reference = USUAL_GUIDANCE if USUAL_GUIDANCE in others else max(others)
    if own == reference:
        return (
            f"The guidance scale of the {word} setting, {own:g}, is "
            f"{'the usual one' if own == USUAL_GUIDANCE else 'the highest that was measured'}."
        )
    other = others[reference]
    difference = best.scores[test].mean - other.scores[test].mean
    verdict = _verdict(best, other, test, comparisons, compared)
    if verdict.endswith(")") and 1 in (best.num_clones, other.num_clones):
        verdict += ", for this one clone seed"
    return (
        f"On real test images, guidance {own:g} differs from guidance {reference:g} by {difference:+.1f} points: "
        f"{verdict}."
    )


def _verdict(
    one: Cell,
    other: Cell,
    test: MeasuredSet,
    comparisons: Sequence[SweptComparison],
    compared: Sequence[ComparisonRow],
) -> str:
    """Return whether two cells differ by more than noise, as the sweep or `raysd compare` found; else how to know."""
    difference = one.scores[test].mean - other.scores[test].mean
    wanted = (other.setting.label, test.role, test.dataset, test.probe, test.shots)
    for swept in comparisons:
        own = (swept["label"], swept["role"], swept["dataset"], swept["probe_label"], swept["shots"])
        if own == wanted and swept["low"] <= difference <= swept["high"]:
            return _in_words(swept["verdict"], swept["low"], swept["high"])
    ours, theirs = _names(one.rows_on(test)), _names(other.rows_on(test))
    for row in compared:
        if [{*row["a"]["rows"]}, {*row["b"]["rows"]}] == [ours, theirs]:
            return _in_words(row["verdict"], row["low"], row["high"])
        if [{*row["b"]["rows"]}, {*row["a"]["rows"]}] == [ours, theirs]:
            return _in_words(OPPOSITE[row["verdict"]], -row["high"], -row["low"])
    return "raysd compare tells whether that is more than noise"


def _in_words(verdict: Verdict, low: float, high: float) -> str:
    return f"{verdict}, image by image (95 % interval {low:+.1f} to {high:+.1f})"


def _names(rows: Sequence[AccuracyRow]) -> set[str]:
    return {row["fingerprint"] for row in rows}


def _same_but_guidance(one: Setting, other: Setting) -> bool:
    fields = [{**setting.fields(), FACTORS[GUIDANCE]: setting.images_per_class} for setting in (one, other)]
    return fields[0] == fields[1]


def _chosen(cells: Cells, chosen: BestSetting) -> Cell | None:
    """Return the cell of the setting that the sweep chose, at the rung that it was chosen by."""
    factors = {name: json.dumps(value, sort_keys=True) for name, value in chosen["setting"].items()}
    found = [
        c
        for c in cells.of_kind("clone")
        if dict(c.setting.factors) == factors and c.setting.images_per_class == chosen["images_per_class"]
    ]
    return found[0] if found else None


def _highest(cells: Cells, role: str) -> Cell | None:
    """Return the clone with the highest score on a role; without clones, the best of the other trained settings."""
    trained = cells.of_kind("clone") or [cell for cell in cells.cells if cell.setting.kind != "random"]
    scored = [(score, cell) for cell in trained if (score := role_score(cells, cell, role)) is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def count_sentence(cells: Cells) -> str:
    """Return how many settings were measured, where no sweep chose."""
    count = len(cells.cells)
    return f"{count:,} measured {'setting' if count == 1 else 'settings'}; no sweep chose among them."


def _known(cells: Cells, objective: Objective, answer: str) -> list[str]:
    """Return the sentences of a report where no sweep chose."""
    lines = [count_sentence(cells)]
    if len(cells.cells) > 1:
        lines.append(f"Highest {objective_words(objective)}: {answer}")
        lines.append("It was picked by these same images, so its accuracy on them is optimistic.")
    return lines


def _gap(measured: MeasuredSet, best: Cell, real: Cell | None, random: Cell | None) -> Share | None:
    scores = [cell.scores[measured] for cell in (best, real, random) if cell and measured in cell.scores]
    return gap_closed(*scores) if len(scores) == 3 else None


def _answer(
    best: Cell,
    real: Cell | None,
    random: Cell | None,
    test: MeasuredSet | None,
    gaps: Mapping[MeasuredSet, Share | None],
    borrowed: Collection[str],
) -> str:
    setting = best.setting
    starts_with_variant = setting.kind == "clone" and (
        VARIANT in dict(setting.factors) or not (setting.words or setting.is_mixture)
    )
    start = f"{'prompt variant ' if starts_with_variant else ''}{setting.label}"
    if test is None:
        return f"{start}; it was not measured on real test images."
    how = (
        f"trained on a mixture ({setting.name}), "
        if setting.is_mixture
        else "trained on its images alone, "
        if setting.kind == "clone"
        else ""
    )
    text = f"{start}: {how}a classifier gets {best.scores[test]} % of real test images right"
    others = []
    for kind, words, cell in (("real", "trained on real images", real), ("random", "with random weights", random)):
        if cell and test in cell.scores:
            count, foreign = cell.setting.images_per_class, kind in borrowed
            size = (
                ["all" if count is None else f"{count:,} per class"]
                if kind == "real" and (foreign or count != setting.images_per_class)
                else []
            )
            others.append(
                ", ".join([words, *size, *(["a baseline from another run"] if foreign else [])])
                + f": {cell.scores[test]} %"
            )
    text += f" ({'; '.join(others)})" if others else ""
    gap = gaps.get(test)
    return f"{text}." if gap is None else f"{text}; this closes {gap} of the gap to real (95 % interval)."


def _choice(objective: Objective) -> str:
    if objective == "test":
        return "The setting was chosen on the test images themselves, so its test accuracy is optimistic."
    if counts(objective, "test"):
        return (
            f"The setting was chosen by {objective_words(objective)}; the test images had a part in the choice, "
            "so its test accuracy is optimistic."
        )
    if counts(objective, "generated"):
        return (
            "The setting was chosen by held-out generated images of all settings. That says which images hold the most "
            "variety that a classifier can learn, and nothing about real images; name some in evaluation to know."
        )
    return f"The setting was chosen by {objective_words(objective)}; the test images had no part in the choice."
