"""What the cells say: the best setting, the share of the gap to real pictures that it closes, and whether guidance matters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysd.report.cells import Cell, Cells, MeasuredSet, Score, Setting

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


def gap_closed(clone: float, real: float, random: float) -> float | None:
    """(clone - random) / (real - random); None when real pictures are not better than no training."""
    return (clone - random) / (real - random) if real > random else None


def find_best(cells: Cells, chosen: Mapping[str, Any] | None, objective: str) -> tuple[Cell | None, list[str]]:
    """The clone that the sweep chose, or else the one with the highest objective; and a note when it is the latter."""
    clones = cells.of_kind("clone")
    if chosen is not None:
        wanted = (chosen["variant"], chosen["guidance_scale"])
        for cell in clones:
            if (cell.setting.variant, cell.setting.guidance_scale) == wanted:
                return cell, []
    scored = [(score.mean, cell) for cell in clones if (score := _objective(cells, cell, objective)) is not None]
    if not scored:
        return None, []
    note = f"The sweep's own choice has no accuracy rows; the best setting is the one with the highest {objective} accuracy."
    return max(scored, key=lambda pair: pair[0])[1], [note] if chosen is not None else []


def find_baseline(cells: Cells, kind: str, best: Setting) -> tuple[Cell | None, list[str]]:
    """The `real` or `random` cell to compare with, of the same backbone; and a note when its number of pictures differs."""
    found = [cell for cell in cells.of_kind(kind) if cell.setting.backbone == best.backbone]
    if kind == "random" or not found:
        return (found[0] if found else None), []
    same = [cell for cell in found if cell.setting.images_per_class == best.images_per_class]
    if same:
        return same[0], []
    count = found[0].setting.images_per_class
    return found[0], [f"Real has {'all' if count is None else count} pictures per class, the clone {best.images_per_class}."]


def measure_guidance(cells: Cells, best: Cell, test: MeasuredSet, comparisons: Sequence[Mapping[str, Any]] = ()) -> GuidanceEffect | None:
    """Compare the best setting with guidance 7.5 of its variant, or with the highest guidance where 7.5 was not drawn.

    Args:
        cells: all settings.
        best: the best one.
        test: the test pictures.
        comparisons: the sweep's own, of the best setting with the others picture by picture.
    """
    unlike = ("guidance_scale",)
    same = [cell for cell in cells.of_kind("clone") if _same(cell.setting, best.setting, unlike) and test in cell.scores]
    scales = {cell.setting.guidance_scale: cell for cell in same if cell.setting.guidance_scale is not None}
    own = best.setting.guidance_scale
    if own not in scales or len(scales) < 2:
        return None
    reference = USUAL_GUIDANCE if USUAL_GUIDANCE in scales else max(scales)
    if own == reference:
        return GuidanceEffect(own, own, 0.0, best.scores[test].sd, True, f"The best guidance scale is the usual or highest one, {own:g}.")
    ours, theirs = best.scores[test], scales[reference].scores[test]
    sds = [score.sd for score in (ours, theirs) if score.sd is not None]
    points, within_noise = ours.mean - theirs.mean, _overlap(ours, theirs)
    spread = f"standard deviation over seeds {max(sds):.1f}" if sds else "one seed each"
    verdict = "within noise, the 95 % intervals overlap" if within_noise else "the 95 % intervals do not overlap"
    if (paired := _comparison(comparisons, scales[reference], test)) is not None:
        within_noise = paired["verdict"] == "within noise"
        verdict = f"{paired['verdict']}, picture by picture (95 % interval {paired['low']:+.1f} to {paired['high']:+.1f})"
    sentence = f"On real test pictures, guidance {own:g} differs from guidance {reference:g} by {points:+.1f} points ({spread}): {verdict}."
    return GuidanceEffect(own, reference, points, max(sds, default=None), within_noise, sentence)


def _comparison(comparisons: Sequence[Mapping[str, Any]], other: Cell, test: MeasuredSet) -> Mapping[str, Any] | None:
    """The one with another cell's clone on the test pictures, or None."""
    clones = {row["trained_on"].get("fingerprint") for row in other.rows}
    found = [row for row in comparisons if row["with"] in clones and (row["role"], row["dataset"]) == (test.role, test.dataset)]
    return found[0] if found else None


def find(cells: Cells, chosen: Mapping[str, Any] | None, objective: str, comparisons: Sequence[Mapping[str, Any]] = ()) -> Findings | None:
    """All findings; None when no clone was measured. `comparisons` are the sweep's, of its best setting with the others."""
    best, notes = find_best(cells, chosen, objective)
    if best is None:
        return None
    real, real_notes = find_baseline(cells, "real", best.setting)
    random, _ = find_baseline(cells, "random", best.setting)
    tests = [measured for measured in cells.of_role("test") if measured in best.scores]
    test = tests[0] if tests else None
    gaps = {s: _gap(s, best, real, random) for s in [*tests[:1], *cells.of_role("transfer")]}
    guidance = measure_guidance(cells, best, test, comparisons) if test else None
    lines = [_answer(best, real, random, test, gaps), _choice(objective)]
    if guidance:
        lines.append(guidance.sentence)
    closed = [f"{s.dataset} {_share(gap)}" for s, gap in gaps.items() if s.role == "transfer" and gap is not None]
    if closed:
        lines.append(f"Share of the gap to real closed on transfer sets: {', '.join(closed)}.")
    return Findings(best, real, random, test, gaps, guidance, tuple(lines), (*notes, *real_notes))


def score_text(score: Score | None) -> str:
    """`78.1 ± 0.4` (standard deviation over seeds), `78.1 [77.3, 78.9]` (one seed, 95 % interval over pictures), or `-`."""
    if score is None:
        return "-"
    if score.sd is not None:
        return f"{score.mean:.1f} ± {score.sd:.1f}"
    return f"{score.mean:.1f}" if score.low is None else f"{score.mean:.1f} [{score.low:.1f}, {score.high:.1f}]"


def _objective(cells: Cells, cell: Cell, objective: str) -> Score | None:
    if objective == "transfer":
        return cell.transfer
    sets = cells.of_role(objective)
    return cell.scores.get(sets[0]) if sets else None


def _same(one: Setting, other: Setting, unlike: tuple[str, ...]) -> bool:
    return all(value == getattr(other, name) for name, value in vars(one).items() if name not in unlike)


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
    start = f"The best setting is prompt variant {best.setting.label}"
    if test is None:
        return f"{start}; it was not measured on real test pictures."
    text = f"{start}: trained on its pictures alone, a classifier gets {score_text(best.scores[test])} % of real test pictures right"
    baselines = ((real, "trained on real pictures"), (random, "with random weights"))
    others = [f"{name} {score_text(cell.scores[test])} %" for cell, name in baselines if cell and test in cell.scores]
    if others:
        text += f" ({', '.join(others)})"
    return f"{text}; this closes {_share(gaps[test])} of the gap to real." if gaps.get(test) is not None else f"{text}."


def _choice(objective: str) -> str:
    if objective == "test":
        return "The setting was chosen on the test pictures themselves, so its test accuracy is optimistic."
    words = {"validation": "held-out validation pictures", "transfer": "the mean transfer accuracy"}
    return f"The setting was chosen on {words.get(objective, objective)}; the test pictures had no part in the choice."
