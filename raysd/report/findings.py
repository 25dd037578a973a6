"""What the cells say: the best setting, the share of the gap to real pictures that it closes, and whether guidance matters."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysd.report.cells import Cell, Cells, MeasuredSet, Score, Setting, role_score
from raysd.report.words import GUIDANCE, Objective, objective_words, uses_test

USUAL_GUIDANCE = 7.5
"""The default of Stable Diffusion's pipelines; the guidance that a best one is compared with."""


@dataclass(frozen=True)
class GuidanceEffect:
    """The best setting against the usual guidance of the same prompt variant, on real test pictures."""

    best: float
    reference: float
    """The two guidance scales."""
    points: float
    """Mean test accuracy of the best setting minus that of the reference."""
    sd: float | None
    """The larger standard deviation over seeds of the two; None when both have one seed."""
    within_noise: bool
    """True when the 95 % interval of the difference holds zero; without a paired comparison, when the two 95 % intervals overlap."""
    sentence: str


@dataclass(frozen=True)
class Findings:
    """What the page says first."""

    best: Cell
    real: Cell | None
    random: Cell | None
    test: MeasuredSet | None
    gaps: Mapping[MeasuredSet, float | None]
    """Share of the gap to real closed, for the test set and each transfer set."""
    guidance: GuidanceEffect | None
    lines: tuple[str, ...]
    """The summary; the first line is the answer."""
    notes: tuple[str, ...]
    word: str = "best"
    """What `best` is called: `highest` where no sweep chose it."""

    @property
    def heading(self) -> str:
        """A column's heading for `best`."""
        return f"{self.word} {'clone' if self.best.setting.kind == 'clone' else 'setting'}"


def gap_closed(clone: float, real: float, random: float) -> float | None:
    """(clone - random) / (real - random); None when real pictures are not better than no training."""
    return (clone - random) / (real - random) if real > random else None


def find_best(cells: Cells, chosen: Mapping[str, Any] | None, objective: Objective) -> tuple[Cell | None, list[str]]:
    """The clone that the sweep chose, or else the one with the highest objective; and a note when it is the latter.

    Where there is no clone, it is the best of what else was trained.
    """
    if chosen is not None:
        found = [cell for cell in cells.of_kind("clone") if _is_chosen(cell.setting, chosen)]
        same = [cell for cell in found if cell.setting.images_per_class == chosen.get("images_per_class")]
        if found:
            return max(same or found, key=lambda cell: cell.setting.images_per_class or 0), []
    trained = cells.of_kind("clone") or [cell for cell in cells.cells if cell.setting.kind != "random"]
    scored = [(score, cell) for cell in trained if (score := role_score(cells, cell, objective)) is not None]
    if not scored:
        return None, []
    note = f"The sweep's own choice has no accuracy rows; the best setting is the one with the highest {objective_words(objective)}."
    return max(scored, key=lambda pair: pair[0])[1], [note] if chosen is not None else []


def _is_chosen(setting: Setting, chosen: Mapping[str, Any]) -> bool:
    if setting.factors and "setting" in chosen:
        return dict(setting.factors) == {name: json.dumps(value, sort_keys=True) for name, value in chosen["setting"].items()}
    return (setting.variant, setting.guidance_scale) == (chosen["variant"], chosen["guidance_scale"])


def find_baseline(cells: Cells, kind: str, best: Setting) -> tuple[Cell | None, list[str]]:
    """The `real` or `random` cell to compare with, of the same backbone; and a note when its number of pictures differs."""
    found = [cell for cell in cells.of_kind(kind) if cell.setting.backbone == best.backbone]
    if kind == "random" or not found:
        return (found[0] if found else None), []
    same = [cell for cell in found if cell.setting.images_per_class == best.images_per_class]
    if same:
        return same[0], []
    count = found[0].setting.images_per_class
    if best.kind != "clone":
        return found[0], []
    return found[0], [f"Real has {'all' if count is None else count} pictures per class, the clone {best.images_per_class}."]


def measure_guidance(cells: Cells, best: Cell, test: MeasuredSet, comparisons: Sequence[Mapping[str, Any]] = ()) -> GuidanceEffect | None:
    """Compare the best setting with guidance 7.5 of its variant, or with the highest guidance where 7.5 was not drawn.

    Args:
        cells: all settings.
        best: the best one.
        test: the test pictures.
        comparisons: the sweep's own, of the best setting with the others picture by picture.
    """
    like = [cell for cell in cells.of_kind("clone") if _same_but_guidance(cell.setting, best.setting) and test in cell.scores]
    tried = {cell.setting.guidance_scale for cell in like if cell.setting.guidance_scale is not None}
    own = best.setting.guidance_scale
    if own is None or len(tried) < 2:
        return None
    reference = USUAL_GUIDANCE if USUAL_GUIDANCE in tried else max(tried)
    if own == reference:
        return GuidanceEffect(own, own, 0.0, best.scores[test].sd, True, f"The best guidance scale is the usual or highest one, {own:g}.")
    pair = _at_one_budget(sorted(like, key=lambda cell: cell is best), own, reference)
    if pair is None:
        return None
    ours, theirs = (cell.scores[test] for cell in pair)
    budget = pair[0].setting.images_per_class
    where = "" if budget == best.setting.images_per_class else f" and with {budget:,} images per class, the most that both got"
    sds = [score.sd for score in (ours, theirs) if score.sd is not None]
    points, within_noise = ours.mean - theirs.mean, _overlap(ours, theirs)
    spread = f"standard deviation over seeds {max(sds):.1f}" if sds else "one seed each"
    verdict = "within noise, the 95 % intervals overlap" if within_noise else "the 95 % intervals do not overlap"
    if not where and (paired := _comparison(comparisons, pair[1], test)) is not None:
        within_noise = paired["verdict"] == "within noise"
        verdict = f"{paired['verdict']}, picture by picture (95 % interval {paired['low']:+.1f} to {paired['high']:+.1f})"
    sentence = f"On real test pictures{where}, guidance {own:g} differs from guidance {reference:g} by {points:+.1f} points ({spread}): {verdict}."
    return GuidanceEffect(own, reference, points, max(sds, default=None), within_noise, sentence)


def _same_but_guidance(one: Setting, other: Setting) -> bool:
    fields = ("variant", "backbone", "model", "num_inference_steps")
    factors = [{name: value for name, value in setting.factors if name != GUIDANCE} for setting in (one, other)]
    return factors[0] == factors[1] and all(getattr(one, field) == getattr(other, field) for field in fields)


def _at_one_budget(cells: Sequence[Cell], own: float, reference: float) -> tuple[Cell, Cell] | None:
    """The cells of both guidance scales at the largest number of images per class that both have."""
    ours, theirs = ({c.setting.images_per_class: c for c in cells if c.setting.guidance_scale == scale} for scale in (own, reference))
    both = [count for count in ours if count in theirs]
    if not both:
        return None
    budget = max(both, key=lambda count: count or 0)
    return ours[budget], theirs[budget]


def _comparison(comparisons: Sequence[Mapping[str, Any]], other: Cell, test: MeasuredSet) -> Mapping[str, Any] | None:
    """The one with another cell's clone on the test pictures, or None."""
    clones = {row["trained_on"].get("fingerprint") for row in other.rows}
    found = [row for row in comparisons if row["with"] in clones and (row["role"], row["dataset"]) == (test.role, test.dataset)]
    return found[0] if found else None


def find(
    cells: Cells, chosen: Mapping[str, Any] | None, objective: Objective, comparisons: Sequence[Mapping[str, Any]] = (), is_sweep: bool = True
) -> Findings | None:
    """All findings; None when nothing was measured that the objective names.

    Args:
        cells: all settings.
        chosen: what the sweep says of its best setting.
        objective: what a setting is chosen by.
        comparisons: the sweep's, of its best setting with the others.
        is_sweep: False when no sweep chose among the settings.
    """
    best, notes = find_best(cells, chosen, objective)
    if best is None:
        return None
    real, real_notes = find_baseline(cells, "real", best.setting)
    random, _ = find_baseline(cells, "random", best.setting)
    tests = [measured for measured in cells.of_role("test") if measured in best.scores]
    test = tests[0] if tests else None
    gaps = {s: _gap(s, best, real, random) for s in [*tests[:1], *cells.of_role("transfer")]}
    guidance = measure_guidance(cells, best, test, comparisons) if test and best.setting.kind == "clone" else None
    answer = _answer(best, real, random, test, gaps)
    lines = [f"The best setting is {answer}", _choice(objective)] if is_sweep else _known(cells, best, objective, answer)
    if guidance:
        lines.append(guidance.sentence if is_sweep else guidance.sentence.replace("The best guidance scale", "The guidance scale of the highest setting"))
    closed = [f"{s.dataset} {_share(gap)}" for s, gap in gaps.items() if s.role == "transfer" and gap is not None]
    if closed:
        lines.append(f"Share of the gap to real closed on transfer sets: {', '.join(closed)}.")
    return Findings(best, real, random, test, gaps, guidance, tuple(lines), (*notes, *real_notes), "best" if is_sweep else "highest")


def count_sentence(cells: Cells) -> str:
    """How many settings were measured, where no sweep chose."""
    count = len(cells.cells)
    return f"{count:,} measured {'setting' if count == 1 else 'settings'}; no sweep chose among them."


def _known(cells: Cells, best: Cell, objective: Objective, answer: str) -> list[str]:
    """What can be said where no sweep chose."""
    lines = [count_sentence(cells)]
    if len(cells.cells) > 1:
        lines.append(f"Highest {objective_words(objective)}: {answer}")
        lines.append("It was picked by these same pictures, so its accuracy on them is optimistic.")
    return lines


def score_text(score: Score | None) -> str:
    """`78.1 ± 0.4` (standard deviation over seeds), `78.1 [77.3, 78.9]` (one seed, 95 % interval over pictures), or `-`."""
    if score is None:
        return "-"
    if score.sd is not None:
        return f"{score.mean:.1f} ± {score.sd:.1f}"
    return f"{score.mean:.1f}" if score.low is None else f"{score.mean:.1f} [{score.low:.1f}, {score.high:.1f}]"


def _overlap(one: Score, other: Score) -> bool:
    """True when the intervals meet, and when one of them is unknown: a difference must be shown."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return True
    return one.low <= other.high and other.low <= one.high


def _gap(measured: MeasuredSet, best: Cell, real: Cell | None, random: Cell | None) -> float | None:
    scores = [cell.scores.get(measured) if cell else None for cell in (best, real, random)]
    means = [score.mean for score in scores if score is not None]
    return gap_closed(*means) if len(means) == 3 else None


def _share(gap: float | None) -> str:
    return "-" if gap is None else f"{100 * gap:.0f} %"


def _answer(best: Cell, real: Cell | None, random: Cell | None, test: MeasuredSet | None, gaps: Mapping[MeasuredSet, float | None]) -> str:
    start = f"prompt variant {best.setting.label}" if best.setting.kind == "clone" else best.setting.label
    if test is None:
        return f"{start}; it was not measured on real test pictures."
    text = f"{start}: trained on its pictures alone, a classifier gets {score_text(best.scores[test])} % of real test pictures right"
    if best.setting.kind != "clone":
        text = f"{start}: the classifier gets {score_text(best.scores[test])} % of real test pictures right"
    baselines = ((real, "trained on real pictures"), (random, "with random weights"))
    others = [f"{name} {score_text(cell.scores[test])} %" for cell, name in baselines if cell and test in cell.scores]
    if others:
        text += f" ({', '.join(others)})"
    return f"{text}; this closes {_share(gaps[test])} of the gap to real." if gaps.get(test) is not None else f"{text}."


def _choice(objective: Objective) -> str:
    if objective == "test":
        return "The setting was chosen on the test pictures themselves, so its test accuracy is optimistic."
    if uses_test(objective):
        return f"The setting was chosen by {objective_words(objective)}; the test pictures had a part in the choice, so its test accuracy is optimistic."
    return f"The setting was chosen by {objective_words(objective)}; the test pictures had no part in the choice."
