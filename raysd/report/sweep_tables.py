"""Tables of a sweep: the ranking, the rungs, what each factor does, what proxies would have picked, and the cost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raysd.report.material import Entry, Material
from raysd.report.tables import Column, Number, Table, Value, number
from raysd.report.words import factor_words, objective_words, value_words
from raysd.storage.results import Row

RANKING_NOTE = (
    "Score in percent: mean over seeds, its 95 % interval in brackets. Difference to the best setting in points, seed by seed, "
    "at the most images per class that both reached."
)
SIGNED = "+z.1f"
NAMED = 5  # settings in a sentence
SHARED_NOTE = "These settings share a clone and differ in training alone: {}."


def search_lines(material: Material) -> list[str]:
    """What a search found, in plain sentences; those that rows say nothing of are left out."""
    sweep, lines = material.sweep, []
    others = [row for row in sweep.get("ranking") or () if row.get("verdict") != "best"]
    near = [str(row["label"]) for row in others if row.get("verdict") == "within noise"]
    if near:
        more = f", and {len(near) - NAMED} more" if len(near) > NAMED else ""
        lines.append(f"Within noise of the best, of {len(others):,} others: {'; '.join(near[:NAMED])}{more}.")
    elif others and all(row.get("verdict") == "worse" for row in others):
        lines.append(
            f"All {len(others):,} other settings are worse, by more than noise." if len(others) > 1 else "The other setting is worse, by more than noise."
        )
    effects = sorted((effect for effect in sweep.get("effects") or () if effect.get("spread") is not None), key=lambda effect: -effect["spread"])
    if effects:
        spreads = ", ".join(f"{factor_words(effect['factor'])} {effect['spread']:.1f}" for effect in effects)
        lines.append(f"Points between the worst and the best value of each factor: {spreads}.")
    cost = sweep.get("cost") or {}
    grid = cost.get("grid") or {}
    ratios = [f"{ratio} the {name}" for name in ("pictures", "trainings") if (ratio := _ratio(cost.get(name), grid.get(name))) is not None]
    if ratios and len(material.budgets) > 1:
        lines.append(f"The full grid would take {' and '.join(ratios)}.")
    return lines


def ranking_table(material: Material) -> Table | None:
    """All settings, best first; of older rows only the scores. None where no sweep ranked them."""
    ranking: Sequence[Row] = material.sweep.get("ranking") or ()
    if not ranking:
        scored = sorted((e for e in material.entries if e.rungs and e.rungs[-1].score is not None), key=lambda e: -(e.rungs[-1].score or 0.0))
        if not material.is_sweep or not scored:
            return None
        columns = (Column("setting"), *(Column(name, is_number=True) for name in ("score", "images per class", "rank")))
        rows = [(e.label, number(e.rungs[-1].score), e.rungs[-1].images_per_class, rank) for rank, e in enumerate(scored, 1)]
        return Table("ranking", "Ranking", columns, tuple(rows), (_score_note(material),))
    counts = ("images per class", "seeds", "compared at", "rank")
    scores = (Column("score", is_number=True, has_interval=True), Column("difference to the best", is_number=True, has_interval=True), Column("verdict"))
    columns = (Column("setting"), *scores, *(Column(name, is_number=True) for name in counts))
    shown = [
        (
            str(row["label"]),
            number(row.get("score"), low=row.get("low"), high=row.get("high")),
            number(row.get("difference"), SIGNED, "", row.get("difference_low"), row.get("difference_high")) if row.get("rank") != 1 else None,
            row.get("verdict"),
            row.get("images_per_class"),
            row.get("num_seeds"),
            row.get("compared_at"),
            row.get("rank"),
        )
        for row in ranking
    ]
    return Table("ranking", "Ranking", columns, tuple(shown), (_score_note(material), RANKING_NOTE, *_shared(material.entries)))


def rung_table(material: Material) -> Table | None:
    """The score of each setting at each number of images per class; None where all have one number alone."""
    if len(material.budgets) < 2:
        return None
    columns = (Column("setting"), *(Column(f"{budget:,}", is_number=True) for budget in material.budgets))
    rows = [(entry.label, *(number(entry.score_at(budget)) for budget in material.budgets)) for entry in _by_reach(material.entries)]
    left = "Settings without a score were dropped before, or failed." if material.is_sweep else "Settings without a score were not measured there."
    return Table("rungs", "Score by images per class", columns, tuple(rows), (_score_note(material), left))


def effects_table(material: Material) -> Table | None:
    """What each value of each searched field does, the others held equal; None where rows do not say."""
    effects: Sequence[Row] = material.sweep.get("effects") or ()
    columns = (
        Column("factor"),
        Column("value"),
        Column("mean", is_number=True),
        Column("difference", is_number=True, has_interval=True),
        Column("settings", is_number=True),
    )
    rows = [
        (
            factor_words(effect["factor"]),
            value_words(value["value"]),
            number(value.get("mean")),
            number(value.get("difference"), SIGNED, "", value.get("low"), value.get("high")),
            value.get("num_settings"),
        )
        for effect in effects
        for value in effect["values"]
    ]
    counts = sorted({effect["images_per_class"] for effect in effects if effect.get("images_per_class") is not None})
    at = f" at {', '.join(f'{count:,}' for count in counts)} images per class" if counts else ""
    note = f"Mean score in percent{at}, adjusted for the other factors; difference to the factor's own mean in points, with its 95 % interval."
    return Table("effects", "What each factor does", columns, tuple(rows), (note,)) if rows else None


def proxies_table(material: Material) -> Table | None:
    """Which setting each proxy would have picked, and the points lost by it; None where none was computed."""
    proxies: Sequence[Row] = material.sweep.get("proxies") or ()
    names = ("images per class", "score of its pick", "best score", "points lost", "rank correlation", "settings")
    columns = (Column("proxy"), Column("better"), Column("would pick"), *(Column(name, is_number=True) for name in names))
    rows = [
        (
            str(row["proxy"]).replace("_", " "),
            row.get("better"),
            row.get("pick"),
            row.get("images_per_class"),
            number(row.get("pick_score")),
            number(row.get("best_score")),
            number(row.get("regret")),
            number(row.get("spearman"), ".2f"),
            row.get("num_settings"),
        )
        for row in proxies
    ]
    note = "A proxy is a cheap guess of the score. Points lost: best score minus that of its pick. Rank correlation: Spearman's, with the score."
    return Table("proxies", "What proxies would have picked", columns, tuple(rows), (note,)) if rows else None


def cost_table(material: Material) -> Table | None:
    """What the sweep took, beside the full grid where that is known; None where nothing is known."""
    sweep, cost = material.sweep, material.sweep.get("cost") or {}
    grid, seconds = cost.get("grid") or {}, sweep.get("seconds") or {}
    if not sweep:
        return None
    flagged = sum(clone.get("num_flagged", 0) for clone in {clone["fingerprint"]: clone for clone in sweep["clones"]}.values())
    lines: list[tuple[str, Any, Any]] = [
        ("settings", len(material.entries), grid.get("settings")),
        ("pictures", cost.get("pictures"), grid.get("pictures")),
        ("pictures drawn by this sweep", cost.get("num_drawn", sweep.get("num_drawn")), None),
        ("pictures flagged", flagged, None),
        ("trainings", cost.get("trainings"), grid.get("trainings")),
    ]
    named = {"drawing": "draw_seconds", "training": "train_seconds", "measuring": "measure_seconds"}
    times = [(f"device time, {words}", cost.get(name), grid.get(name)) for words, name in named.items()]
    times.append(("device time, all", _whole(cost, named.values()), _whole(grid, named.values())))
    times += [(f"wall time, {name}", value, None) for name, value in ordered_seconds(seconds)]
    rows: list[tuple[Value, ...]] = [(name, own, other, _ratio(own, other)) for name, own, other in lines if own is not None]
    rows += [(name, number(own, "duration"), number(other, "duration"), _ratio(own, other)) for name, own, other in times if own is not None]
    columns = [Column("what"), Column("this sweep", is_number=True)]
    if grid:
        columns += [Column("full grid", is_number=True), Column("full grid / sweep", is_number=True)]
        notes = ["Full grid: each setting with the most images per class and all seeds; its times by the rates of this sweep."]
    else:
        rows, notes = [row[:2] for row in rows], []
    return Table("cost", "Cost", tuple(columns), tuple(rows), tuple(notes))


def ordered_seconds(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    """Times in the order of the work, total last; stored rows have sorted keys."""
    ranks = {"generate": 0, "train": 1, "evaluate": 2, "total": 9}
    return sorted(seconds.items(), key=lambda item: (ranks.get(item[0], 5), item[0]))


def _whole(seconds: Mapping[str, float | None], names: Iterable[str]) -> float | None:
    """The sum; None where a part is unknown."""
    parts = [seconds.get(name) for name in names]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _score_note(material: Material) -> str:
    return f"Score: {objective_words(material.objective)}, in percent."


def _ratio(own: float | None, other: float | None) -> Number | None:
    return None if not own or other is None else Number(other / own, ".1f", " x")


def _by_reach(entries: Sequence[Entry]) -> list[Entry]:
    """Those that came furthest first, then by score."""
    return sorted(entries, key=lambda e: (-e.rungs[-1].images_per_class, -(e.rungs[-1].score or 0.0)) if e.rungs else (0, 0.0))


def _shared(entries: Sequence[Entry]) -> list[str]:
    """A note for settings of one clone."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        groups.setdefault(entry.clone, []).append(entry.label)
    return [SHARED_NOTE.format("; ".join(labels)) for labels in groups.values() if len(labels) > 1]
