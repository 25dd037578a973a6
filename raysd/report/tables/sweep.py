"""Tables of a sweep: the ranking, what each factor does, what proxies would have picked, and the cost."""

from collections.abc import Sequence
from typing import Any

from raysd.report.inputs import Entry, ReportInputs
from raysd.report.tables.confirmed import confirmed_line
from raysd.report.tables.tables import SIGNED, Column, Number, Table, Value, number, number_columns
from raysd.report.text import factor_words, objective_words, value_words
from raysd.storage.row_types.sweep import Effect, SweepRow

RANKING_NOTE = (
    "Score in percent: mean over seeds, its 95 % interval in brackets, from the spread of the seeds "
    "pooled over the settings of its rung. "
    "Difference to the best setting in points, seed by seed, at the most images per class that both reached."
)
UNKNOWN = "unknown (one seed)"
ONE_CLONE = (
    "All scores, intervals and verdicts are for this one clone seed: another seed of the clones could change them, and "
    "generation.seeds=[0,1,2] counts that."
)
ONE_CLONE_OF_SEARCH = (
    "The search's scores, intervals and verdicts are for this one clone seed; those of the finalists, measured again, "
    "are over several."
)
THIS_CLONE = ", for this one clone seed"
FEW_CLONES = (
    "Each setting has {} clone seeds and more classifier seeds: classifiers of one clone share its noise and count as "
    "one, so intervals and verdicts are over {} clones."
)
NAMED = 5  # settings in a sentence
SHARED_NOTE = "These settings share a clone and differ in training alone: {}."
CLONE_NOTE = (
    "Flagged images are counted once per clone. Images generated are a lower bound where a run was killed. "
    "Wall time is that of the last run."
)
DEVICE_NOTE = "Device times are sums over all trials, which run side by side."
GRID_NOTE = (
    "All at the last rung: all {:,} settings with the most images per class and all seeds; "
    "their times by the rates of this sweep."
)


def search_lines(inputs: ReportInputs) -> list[str]:
    """Return what a search found, in plain sentences; nothing where there is no sweep."""
    if (sweep := inputs.sweep) is None:
        return []
    of_one = THIS_CLONE if _num_clones(sweep) == 1 else ""
    lines = [*_noise_lines(sweep), *_effect_lines(sweep["effects"], of_one), *_clone_lines(sweep)]
    cost, grid = sweep["cost"], sweep["cost"]["grid"]
    pairs = (("images", cost["num_images"], grid["num_images"]), ("trainings", cost["trainings"], grid["trainings"]))
    ratios = [f"{ratio} the {name}" for name, own, other in pairs if (ratio := _ratio(own, other)) is not None]
    if ratios and len(inputs.budgets) > 1 and _has_grid(sweep):
        lines.append(f"All {grid['settings']:,} settings at the last rung would take {' and '.join(ratios)}.")
    return [*lines, _how(sweep, len(inputs.entries))]


def _noise_lines(sweep: SweepRow) -> list[str]:
    """Return sentences on which settings are within noise of the best, as far as that is known."""
    best, *others = sweep["ranking"]
    known = [row for row in others if row["difference_high"] is not None]
    near = [row for row in known if row["verdict"] == "within noise"]
    lines, of_one = _luck_lines(sweep), THIS_CLONE if _num_clones(sweep) == 1 else ""
    if near:
        more = f", and {len(near) - NAMED} more" if len(near) > NAMED else ""
        named = [
            row["label"]
            if row["compared_at"] == best["images_per_class"]
            else f"{row['label']} (at {row['compared_at']:,} images per class)"
            for row in near[:NAMED]
        ]
        among = f"{len(known):,} others" if len(known) > 1 else "one other"
        lines.append(f"By score, within noise of the best{of_one}, of {among}: {'; '.join(named)}{more}.")
    elif known:
        all_at_best = all(row["compared_at"] == best["images_per_class"] for row in known)
        at = "" if all_at_best else ", each at the most images per class that both reached"
        which = f"All {len(known):,} other settings are" if len(known) > 1 else "One other setting is"
        lines.append(f"{which} worse, by more than noise{at}{of_one}.")
    if unknown := len(others) - len(known):
        differ = "settings differ" if unknown > 1 else "setting differs"
        lines.append(f"Whether {unknown:,} other {differ} by more than noise is unknown: they have one seed.")
    return lines


def _luck_lines(sweep: SweepRow) -> list[str]:
    """Return a sentence on how much of the best score is the luck of the highest of many, where that is known."""
    best, count = sweep["best"], len(sweep["ranking"])
    if "confirmed" in sweep:
        return [confirmed_line(sweep, sweep["confirmed"])]
    if count < 2 or best["low"] is None or best["high"] is None or "expected" not in best:
        return []
    expected = min(best["score"], best["expected"])
    return [
        f"The best score, {best['score']:.1f} %, is the highest of {count}, so a part of it is luck: measured again, "
        f"about {expected:.1f} % are to be expected, and the true score is in [{best['low']:.1f}, {best['high']:.1f}] "
        "(95 % interval, which allows for the choice)."
    ]


def _clone_lines(sweep: SweepRow) -> list[str]:
    """Return a sentence on what intervals do not count, where settings have fewer clones than classifiers."""
    count = _num_clones(sweep)
    if count == 1:
        return [ONE_CLONE if "confirmed" not in sweep else ONE_CLONE_OF_SEARCH]
    return [FEW_CLONES.format(count, count)] if count < sweep["ranking"][0]["num_seeds"] else []


def _num_clones(sweep: SweepRow) -> int:
    """Return how many clone seeds the search measured each setting with."""
    best = sweep["ranking"][0]
    clones = [clone.get("clones", [best["clone"]]) for clone in sweep["clones"] if clone["setting"] == best["setting"]]
    return max(map(len, clones), default=1)


def _effect_lines(effects: Sequence[Effect], of_one: str) -> list[str]:
    """Return sentences on the factors that matter by more than noise; `of_one` says what the noise is of."""
    sure = [effect for effect in effects if any(value["verdict"] in ("better", "worse") for value in effect["values"])]
    if not sure:
        known = any(value["verdict"] is not None for effect in effects for value in effect["values"])
        return [f"No factor has an effect beyond noise{of_one}."] if known else []
    spreads = ", ".join(
        f"{factor_words(effect['factor'])} {effect['spread']:.1f}"
        for effect in sorted(sure, key=lambda effect: -effect["spread"])
    )
    at = f"at {sure[0]['images_per_class']:,} images per class"
    rest = [factor_words(effect["factor"]) for effect in effects if effect not in sure]
    none = f" No effect beyond noise{of_one}: {', '.join(rest)}." if rest else ""
    return [
        f"Points between the highest and the lowest value of a factor, {at}, which noise makes larger: {spreads}.{none}"
    ]


def _how(sweep: SweepRow, num_tried: int) -> str:
    """Return a sentence on how the settings were searched."""
    rungs = ", ".join(
        f"{rung['images_per_class']:,} ({rung['num_seeds']} seed{'s' if rung['num_seeds'] != 1 else ''})"
        for rung in sweep["rungs"]
    )
    tried = f"Search: {sweep['search']}, {num_tried:,} settings tried"
    return f"{tried}; scheduler: {sweep['scheduler']}; images per class: {rungs}."


def ranking_table(inputs: ReportInputs) -> Table | None:
    """Return all settings, best first; None without a sweep."""
    if inputs.sweep is None:
        return None
    scores = (
        Column("score", is_number=True, has_interval=True),
        Column("difference to the best", is_number=True, has_interval=True),
        Column("verdict"),
    )
    columns = (Column("setting"), *scores, *number_columns("images per class", "seeds", "compared at", "rank"))
    shown = [
        (
            row["label"],
            number(row["score"], low=row["low"], high=row["high"]),
            number(row["difference"], SIGNED, "", row["difference_low"], row["difference_high"])
            if row["rank"] != 1
            else None,
            row["verdict"] if row["rank"] == 1 or row["difference_high"] is not None else UNKNOWN,
            row["images_per_class"],
            row["num_seeds"],
            row["compared_at"],
            row["rank"],
        )
        for row in inputs.sweep["ranking"]
    ]
    score = f"Score: {objective_words(inputs.objective)}, in percent."
    notes = (score, RANKING_NOTE, *_clone_lines(inputs.sweep), *_shared(inputs.entries))
    return Table("ranking", "Ranking", columns, tuple(shown), notes)


def effects_table(inputs: ReportInputs) -> Table | None:
    """Return the effect of each value of each searched field, the others held equal; None where no effects are
    known."""
    effects = inputs.sweep["effects"] if inputs.sweep is not None else []
    difference = Column("difference", is_number=True, has_interval=True)
    columns = (Column("factor"), Column("value"), *number_columns("mean"), difference, *number_columns("settings"))
    rows = [
        (
            factor_words(effect["factor"]),
            value_words(value["value"])
            if isinstance(value["value"], bool) or not isinstance(value["value"], int | float)
            else value["value"],
            number(value["mean"]),
            number(value["difference"], SIGNED, "", value["low"], value["high"]),
            value["num_settings"],
        )
        for effect in effects
        for value in effect["values"]
    ]
    if not rows:
        return None
    at = effects[0]["images_per_class"]
    note = (
        f"Mean score in percent at {at:,} images per class, adjusted for the other factors; "
        "difference to the factor's own mean, with its 95 % interval."
    )
    notes = (note, *(_clone_lines(inputs.sweep) if inputs.sweep is not None else ()))
    return Table("effects", "What each factor does", columns, tuple(rows), notes)


def proxies_table(inputs: ReportInputs) -> Table | None:
    """Return which setting each proxy would have picked, and the points lost by it; None where no proxy was
    computed."""
    proxies = inputs.sweep["proxies"] if inputs.sweep is not None else []
    numbers = number_columns(
        "images per class", "score of its pick", "best score", "points lost", "rank correlation", "settings"
    )
    columns = (Column("proxy"), Column("better"), Column("would pick"), *numbers)
    rows = [
        (
            row["proxy"].replace("_", " "),
            row["better"],
            row["pick"],
            row["images_per_class"],
            number(row["pick_score"]),
            number(row["best_score"]),
            number(row["regret"]),
            number(row["spearman"], ".2f"),
            row["num_settings"],
        )
        for row in proxies
    ]
    note = (
        "A proxy is a cheap guess of the score. Points lost: best score minus that of its pick. "
        "Rank correlation: Spearman's, with the score."
    )
    return Table("proxies", "What proxies would have picked", columns, tuple(rows), (note,)) if rows else None


def cost_table(inputs: ReportInputs) -> Table | None:
    """Return the cost of the sweep, beside that of all settings at the last rung where these are known beforehand; None
    without a sweep."""
    sweep = inputs.sweep
    if not sweep:
        return None
    cost = sweep["cost"]
    grid = cost["grid"] if _has_grid(sweep) else None
    flagged = sum(clone["num_flagged"] for clone in {clone["fingerprint"]: clone for clone in sweep["clones"]}.values())
    own_parts = (cost["generate_seconds"], cost["train_seconds"], cost["measure_seconds"])
    parts = (grid["generate_seconds"], grid["train_seconds"], grid["measure_seconds"]) if grid else (None, None, None)
    devices = zip(("generating", "training", "measuring"), own_parts, parts, strict=True)
    lines: list[tuple[str, Any, Any, str]] = [
        ("settings", len(inputs.entries), grid and grid["settings"], ",d"),
        ("images", cost["num_images"], grid and grid["num_images"], ",d"),
        ("images generated", cost["num_generated"], None, ",d"),
        ("images flagged", flagged, None, ",d"),
        ("trainings", cost["trainings"], grid and grid["trainings"], ",d"),
        *((f"device time, {words}", own, other, "duration") for words, own, other in devices),
        ("device time, all", _whole(own_parts), _whole(parts), "duration"),
        ("wall time", sweep["seconds"].get("total"), None, "duration"),
    ]
    if "confirm" in cost:
        again = cost["confirm"]
        again_parts = (again["generate_seconds"], again["train_seconds"], again["measure_seconds"])
        lines += [
            ("images, to confirm", again["num_images"], None, ",d"),
            ("trainings, to confirm", again["trainings"], None, ",d"),
            ("device time, to confirm", _whole(again_parts), None, "duration"),
        ]
    rows: list[tuple[Value, ...]] = [
        (what, number(own, form), number(other, form), _ratio(own, other))
        for what, own, other, form in lines
        if own is not None
    ]
    columns = [Column("what"), *number_columns("this sweep", "all at the last rung", "ratio")]
    notes = [CLONE_NOTE, DEVICE_NOTE, *([GRID_NOTE.format(grid["settings"])] if grid else [])]
    width = len(columns) if grid else 2
    return Table("cost", "Cost", tuple(columns[:width]), tuple(row[:width] for row in rows), tuple(notes))


def _has_grid(sweep: SweepRow) -> bool:
    """Return whether the number of settings is known: TPE asks for as many as it is allowed."""
    return bool(sweep["search"] != "tpe")


def _whole(parts: Sequence[float | None]) -> float | None:
    """Return the sum; None where a part is unknown."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _ratio(own: float | None, other: float | None) -> Number | None:
    return None if not own or other is None else Number(other / own, ".1f", " x")


def _shared(entries: Sequence[Entry]) -> list[str]:
    """Return a note for settings of one clone."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        groups.setdefault(entry.folder, []).append(entry.label)
    return [SHARED_NOTE.format("; ".join(labels)) for labels in groups.values() if len(labels) > 1]
