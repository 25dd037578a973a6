"""The log of a sweep: a run for each setting, with its rung results and its sample images, and one for the answer."""

import calendar
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from raysd.clone.clone import CLONES
from raysd.config import Experiment
from raysd.progress import say
from raysd.report.plots.grid import GridColumn, sample_grid
from raysd.report.samples.samples import NUM_IMAGES, read_samples
from raysd.report.text import slug
from raysd.storage.location import Location
from raysd.storage.row_types.sweep import RungResult, SweepRow
from raysd.storage.rows import RUNG_RESULT, find_row, read_rows
from raysd.tracking.runs import LoggedImage, LoggedRun, Point, write_run

SAMPLES = "samples"


@dataclass
class SweepLog:
    """Writes the rung results of one sweep as they come. A logger that fails is named once; the sweep goes on."""

    experiment: Experiment
    results: dict[str, RungResult] = field(default_factory=dict)
    has_failed: bool = False

    @property
    def logger(self) -> str:
        """The logger, which is that of the trainings."""
        return self.experiment.training.logger

    @property
    def root(self) -> Location:
        """The storage root."""
        return self.experiment.root

    def add(self, fingerprint: str) -> None:
        """Write a rung result that has just come, with the earlier ones of its setting."""
        with self._guarded():
            row = None if self.is_off else find_row(self.root, RUNG_RESULT, fingerprint)
            if row is None:
                return
            is_first = not self.results
            self.results[fingerprint] = row
            if is_first:
                self._write(self._whole(row["sweep"], None))
            self._write_setting(row["number"])

    def finish(self, row: SweepRow) -> None:
        """Write all rung results of a finished sweep, also those of earlier runs, and its answer."""
        with self._guarded():
            if self.is_off:
                return
            chosen = set(row["rung_results"])
            found = (each for each in read_rows(self.root, RUNG_RESULT) if each["fingerprint"] in chosen)
            self.results |= {each["fingerprint"]: each for each in found}
            searches = {each["sweep"] for each in self.results.values()}  # its name has no part in a confirmation
            self._write(self._whole(min(searches, default=row["fingerprint"]), row))
            for number in sorted({each["number"] for each in self.results.values()}):
                self._write_setting(number)

    @property
    def is_off(self) -> bool:
        """Whether nothing is written, or no more."""
        return self.logger == "none" or self.has_failed

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let the sweep go on where its log cannot be written."""
        try:
            yield
        except Exception as error:  # of a server that is elsewhere; the results are in the storage root
            self.has_failed = True
            reason = (str(error) or type(error).__name__).splitlines()[0]
            say(f"the sweep is no longer logged to {self.logger}: {reason}; its results are in the storage root")

    def _write_setting(self, number: int) -> None:
        rows = sorted((row for row in self.results.values() if row["number"] == number), key=lambda row: row["rung"])
        self._write(setting_run(self.root, rows))

    def _write(self, run: LoggedRun) -> None:
        write_run(self.logger, self.root, run)

    def _whole(self, search: str, row: SweepRow | None) -> LoggedRun:
        """Return the run of the sweep itself, by the fingerprint of its search."""
        settings = self.experiment.sweep.model_dump(mode="json", exclude_unset=True)
        points: tuple[Point, ...] = ()
        parameters = {f"sweep.{name}": value for name, value in settings.items()}
        if row is not None:
            best = row["best"]
            values = {"best_score": best["score"], **_ends(best["low"], best["high"])}
            points = (Point(best["images_per_class"], max(map(_time, self.results.values()), default=0.0), values),)
            parameters |= {"best": best["label"]}
        name = f"sweep {self.experiment.name}"
        return LoggedRun(
            f"sweep-{search}", "sweep", name, (f"sweep-{search}", "answer"), parameters, points, is_done=row is not None
        )


def setting_run(root: Location, rows: Iterable[RungResult]) -> LoggedRun:
    """Return the run of a setting.

    Args:
        root: the storage root.
        rows: its rung results, in the order of their rungs.
    """
    results = list(rows)
    last = results[-1]
    sweep = f"sweep-{last['sweep']}"
    folder = f"{last['number']:04d}-{slug(last['label'])}"
    return LoggedRun(
        f"{sweep}-{last['number']}",
        "sweep_setting",
        last["label"],
        (sweep, folder),
        {**last["setting"], "clone": last["clone"]},
        tuple(Point(row["images_per_class"], _time(row), _values(row)) for row in results),
        _samples(root, last),
        sweep,
    )


def _values(row: RungResult) -> dict[str, float]:
    """Return what is known of a rung result: its score in percent, seeds, costs and proxies."""
    scores = {} if row["score"] is None else {"score": row["score"]}
    seeds = {f"seed_score/{seed}": score for seed, score in zip(row["seeds"], row["seed_scores"], strict=False)}
    costs = {f"seconds/{part}": float(row["seconds"][part]) for part in ("generate", "train", "measure")}
    proxies = {f"proxy/{name}": float(value) for name, value in row["proxies"].items() if value is not None}
    counts = {"images": float(row["num_images"]), "flagged_images": float(row["num_flagged"])}
    return {**scores, **seeds, **costs, **proxies, **counts, "failed": float(row["score"] is None)}


def _samples(root: Location, row: RungResult) -> tuple[LoggedImage, ...]:
    samples = read_samples(root.child(CLONES, row["clone"]))
    grid = sample_grid(SAMPLES, "", [GridColumn("", samples)], NUM_IMAGES)
    return (LoggedImage(SAMPLES, row["images_per_class"], grid.png),) if grid.has_images else ()


def _ends(low: float | None, high: float | None) -> dict[str, float]:
    return {} if low is None or high is None else {"best_score_low": low, "best_score_high": high}


def _time(row: RungResult) -> float:
    return float(calendar.timegm(time.strptime(row["date"], "%Y-%m-%dT%H:%M:%SZ")))
