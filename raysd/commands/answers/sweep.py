"""The results of a sweep and of a report."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raysd.commands.answers.rows import flat_frame
from raysd.storage.row_types.sweep import ConfirmedSetting, SweepRow

if TYPE_CHECKING:
    import pandas as pd

    from raysd.report.page import ReportFiles


@dataclass(frozen=True, repr=False)
class WrittenReport:
    """A report: one page, and the files of its tables and figures beside it."""

    files: "ReportFiles"

    @property
    def path(self) -> str:
        """The page."""
        return self.files.html

    @property
    def folder(self) -> str:
        """The folder of the page, the tables and the figures."""
        return self.files.folder.uri

    @property
    def tables(self) -> list[str]:
        """The tables as CSV."""
        return [self.files.folder.file(name) for name in self.files.folder.list_files(".csv")]

    @property
    def summary(self) -> tuple[str, ...]:
        """The answer in plain sentences, the most important first."""
        return self.files.summary

    def __repr__(self) -> str:
        return f"WrittenReport(path={self.path!r})"


@dataclass(frozen=True)
class SweepAnswer:
    """The settings of a sweep, ranked by how well they transfer."""

    row: SweepRow = field(repr=False)
    """The sweep's result row: ranking, effects, cost, and what failed."""
    best_config: str
    """An experiment file with the best setting."""
    written_report: WrittenReport

    @property
    def best(self) -> dict[str, Any]:
        """The best setting: values by dotted name, as `generation.guidance_scale`."""
        best: dict[str, Any] = self.row["best"]["setting"]
        return best

    @property
    def confirmed(self) -> "tuple[ConfirmedSetting, ...]":
        """The finalists by their scores with fresh seeds, the best first, each with its `search_score`; empty without
        `sweep.confirm`."""
        return tuple(self.row["confirmed"]["ranking"]) if "confirmed" in self.row else ()

    @property
    def failed(self) -> tuple[str, ...]:
        """A line for each measurement, and for each setting, that failed and that the same sweep would try again. A
        setting that cannot be trained, as its own values explain, is a result, and in the report."""
        settings = [each for each in self.row["failed"] if each.get("is_unexplained")]
        measured = [each for each in self.row["failed"] if each["seed"] is not None]
        return (
            *(f"{each['trained_on']}: {each['error']}" for each in settings),
            *(f"seed {each['seed']}, {each['trained_on']}, on {each['dataset']}: {each['error']}" for each in measured),
        )

    @property
    def report(self) -> str:
        """The page of the report."""
        return self.written_report.path

    def to_pandas(self) -> "pd.DataFrame":
        """Return the ranking of the search as a frame, the best setting first; finalists also have `confirmed_score`,
        `confirmed_low` and `confirmed_high`."""
        again = {row["label"]: row for row in self.confirmed}
        if not again:
            return flat_frame(self.row["ranking"])
        return flat_frame([{**row, **_confirmed_values(again.get(row["label"]))} for row in self.row["ranking"]])


def _confirmed_values(row: "ConfirmedSetting | None") -> dict[str, float | None]:
    return {} if row is None else {f"confirmed_{name}": row[name] for name in ("score", "low", "high")}
