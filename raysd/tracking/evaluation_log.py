"""The accuracies of classifiers in the runs of their trainings."""

import calendar
import time
from collections.abc import Iterable

from raysd.classifier.architecture import load_record
from raysd.progress import say
from raysd.storage.location import Location
from raysd.storage.row_types.measured import AccuracyRow, MeasuredRow
from raysd.storage.rows import ACCURACY, read_rows
from raysd.tracking.runs import LoggedRun, Point, write_run


def log_evaluation(logger: str, root: Location, rows: Iterable[MeasuredRow]) -> None:
    """Write accuracies to the runs of their classifiers, with those that were measured earlier, since a run is written
    as a whole; pretrained classifiers have none.

    Args:
        logger: that of the trainings.
        root: the storage root, with the earlier accuracies.
        rows: the accuracies; those that failed are left out.
    """
    if logger == "none":
        return
    measured = [row for row in rows if row["value"] is not None and row["trained_on"]["kind"] != "pretrained"]
    if not measured:
        return
    try:
        by_classifier: dict[str, dict[str, AccuracyRow]] = {row["classifier"]: {} for row in measured}
        for row in [*read_rows(root, ACCURACY), *measured]:
            if row["classifier"] in by_classifier:
                by_classifier[row["classifier"]][row["fingerprint"]] = row
        for classifier, own in by_classifier.items():
            write_run(logger, root, _run(root, classifier, sorted(own.values(), key=_time)))
    except Exception as error:  # of a server that is elsewhere; the results are in the storage root
        reason = (str(error) or type(error).__name__).splitlines()[0]
        say(f"the accuracies are not logged to {logger}: {reason}; they are in the storage root")


def _run(root: Location, classifier: str, rows: list[AccuracyRow]) -> LoggedRun:
    record = load_record(root.child("classifiers", classifier)) or {}
    step = int(record.get("num_steps", 0))
    points = tuple(Point(step, _time(row), _values(row)) for row in rows)
    return LoggedRun(classifier, "classifier", classifier, (classifier,), {}, points)


def _values(row: AccuracyRow) -> dict[str, float]:
    """Return the accuracy in percent and its interval, under the role and the name of the set."""
    dataset = row["dataset"].rstrip("/").rpartition("/")[2]
    shots = [f"{row['shots']} shots"] if row["shots"] else []
    details = [*shots, *([row["probe_label"]] if row["probe_label"] else [])]
    name = "/".join([row["role"], dataset, *details, row["metric"]])
    return {name: row["value"], f"{name}_low": row["low"], f"{name}_high": row["high"]}


def _time(row: AccuracyRow) -> float:
    return float(calendar.timegm(time.strptime(row["date"], "%Y-%m-%dT%H:%M:%SZ")))
