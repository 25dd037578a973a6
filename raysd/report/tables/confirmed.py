"""The finalists of a sweep that were measured again with fresh seeds."""

from raysd.report.inputs import ReportInputs
from raysd.report.tables.tables import SIGNED, Column, Table, number, number_columns
from raysd.storage.row_types.sweep import Confirmation, SweepRow

NOTE = (
    "The best {} settings of the search, measured again with {} fresh seeds of classifiers and clones, at {:,} images "
    "per class. Score: mean over the fresh seeds. They had no part in the choice among all settings, so it is not too "
    "high for that; its 95 % interval and the differences allow for the choice among these {} alone. Score of the "
    "search: it chose these among {}, so a part of it is luck. The confirmed scores alone chose the best setting; the "
    "other tables show the finalists by their fresh classifiers, but for the ranking, which is the search's."
)


def confirmed_line(sweep: SweepRow, again: Confirmation) -> str:
    """Return a sentence on the best setting's confirmed score beside that of the search, and on what each is worth."""
    best, count, seeds = sweep["best"], len(again["ranking"]), len(again["seeds"])
    first = again["ranking"][0]
    among = f"the highest of {len(sweep['ranking'])}, so a part of that was luck"
    searched = (
        f"The search scored it {first['search_score']:.1f} % at {first['search_images_per_class']:,} images per class, "
        + (among if first["search_score"] >= sweep["ranking"][0]["score"] else "which is among the highest")
    )
    allows = "nothing is left to be allowed for" if count == 1 else f"it allows for the choice among these {count}"
    interval = "" if best["low"] is None else f" [{best['low']:.1f}, {best['high']:.1f}] (95 % interval, {allows})"
    return (
        f"{first['label']} is the best of {count} finalists by {seeds} fresh seeds of classifiers and clones: "
        f"{first['score']:.1f} %{interval}. {searched}."
    )


def confirmed_table(inputs: ReportInputs) -> Table | None:
    """Return the finalists by their confirmed scores, beside those of the search; None where none was confirmed."""
    if inputs.sweep is None or "confirmed" not in inputs.sweep:
        return None
    again, sweep = inputs.sweep["confirmed"], inputs.sweep
    columns = (
        Column("setting"),
        Column("score", is_number=True, has_interval=True),
        Column("difference to the best", is_number=True, has_interval=True),
        Column("verdict"),
        *number_columns("score of the search", "seeds", "rank"),
    )
    rows = [
        (
            row["label"],
            number(row["score"], low=row["low"], high=row["high"]),
            number(row["difference"], SIGNED, "", row["difference_low"], row["difference_high"])
            if row["rank"] != 1
            else None,
            row["verdict"],
            number(row["search_score"]),
            row["num_seeds"],
            row["rank"],
        )
        for row in again["ranking"]
    ]
    count, seeds = len(rows), len(again["seeds"])
    note = NOTE.format(count, seeds, again["images_per_class"], count, len(sweep["ranking"]))
    return Table("confirmed", "Confirmed with fresh seeds", columns, tuple(rows), (note,))
