"""Tables of a report, and their texts: Markdown, CSV, and rich for the terminal."""

import csv
import io
import re
from dataclasses import dataclass, replace

from rich.table import Table as RichTable
from rich.text import Text

from raysd.report.cells import Cell, Cells, telling
from raysd.report.summary import Findings
from raysd.report.text import FACTORS, GUIDANCE, VARIANT, duration, metric_words
from raysd.statistics.seeds import Score

SIGNED = "+z.1f"


@dataclass(frozen=True)
class Number:
    """A number that is shown rounded; files hold it in full."""

    value: float
    form: str = ".1f"
    """Format, or `duration` for seconds."""
    unit: str = ""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None

    def __str__(self) -> str:
        if self.form == "duration":
            return duration(self.value)
        text = f"{self.value:{self.form}}{self.unit}"
        ends = self.form.replace("z", "")  # an end just below zero keeps its sign
        return text if self.low is None or self.high is None else f"{text} [{self.low:{ends}}, {self.high:{ends}}]"


def number(
    value: float | None, form: str = ".1f", unit: str = "", low: float | None = None, high: float | None = None
) -> Number | None:
    """Return a number to show, or None where there is no value."""
    return None if value is None else Number(value, form, unit, low, high)


Value = Score | Number | str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column's heading and what it holds."""

    name: str
    is_score: bool = False
    """True for accuracies in percent (`Score`, or None where the set is missing)."""
    is_number: bool = False
    has_interval: bool = False
    """True for numbers with a 95 % interval, which is two more columns of a CSV file."""
    is_code: bool = False
    """True for fingerprints, folders and commands."""


def number_columns(*names: str) -> list[Column]:
    """Return columns of numbers with these headings."""
    return [Column(name, is_number=True) for name in names]


@dataclass(frozen=True)
class Table:
    """Rows [num_rows][num_columns] with headings, and notes below."""

    name: str
    """File name without a suffix."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()


def main_table(cells: Cells, findings: Findings | None = None) -> Table:
    """Return one row per cell, baselines last; a set that a cell lacks is `-`, and the mean transfer is `-` when any
    transfer set is."""
    transfer = cells.of_role("transfer")
    columns = [Column("trained on"), *number_columns("guidance", "images per class", "seeds")]
    extra = _telling_columns(cells)
    columns += [Column(name) for name in extra]
    columns += [Column(cells.names[measured], is_score=True) for measured in cells.sets]
    if len(transfer) > 1:
        columns.append(Column("mean transfer", is_score=True))
    rows = []
    for place, cell in enumerate(cells.cells):
        scores: list[Value] = [cell.scores.get(measured) for measured in cells.sets]
        tail = [cell.transfer] if len(transfer) > 1 else []
        rows.append((*_head(cell, findings), *(values[place] for values in extra.values()), *scores, *tail))
    metrics = " and ".join(dict.fromkeys(metric_words(measured.metric) for measured in cells.sets))
    notes = [
        (
            f"In percent ({metrics}): mean ± standard deviation over seeds; with one seed, the 95 % interval over "
            "images in brackets."
        )
    ]
    if any(cell.shares_a_clone for cell in cells.cells):
        notes.append(
            "Where all classifiers of a setting learned from one clone, this is for this one clone seed: another seed "
            "of the clone could change it."
        )
    notes += [f"On {cells.names[s]}: {metric_words(s.metric)}." for s in cells.sets if s.metric != cells.sets[0].metric]
    return Table(
        "settings",
        "Accuracy by setting",
        tuple(columns),
        tuple(rows),
        (*notes, *cells.notes, *(findings.notes if findings else ())),
    )


def gap_table(cells: Cells, findings: Findings) -> Table:
    """Return the best setting beside real and random, for the test set and each transfer set."""
    columns = (
        Column("real images of"),
        *(Column(name, is_score=True) for name in (findings.heading, "real", "random")),
        Column("gap closed, %", is_number=True, has_interval=True),
    )
    rows = []
    for measured, gap in findings.gaps.items():
        scores = [
            cell.scores.get(measured) if cell else None for cell in (findings.best, findings.real, findings.random)
        ]
        rows.append(
            (
                cells.names[measured],
                *scores,
                None if gap is None else Number(100 * gap.value, low=100 * gap.low, high=100 * gap.high),
            )
        )
    return Table(
        "gap",
        "Share of the gap to real closed",
        columns,
        tuple(rows),
        ("Share = (clone - random) / (real - random), with its 95 % interval.",),
    )


def value_text(value: Value) -> str:
    """Return a value as a person reads it; `-` when there is none."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def to_markdown(table: Table) -> str:
    """Return a GitHub table with its notes as a list below."""
    head = "| " + " | ".join(_escape(column.name) for column in table.columns) + " |"
    rule = "|" + "|".join("---:" if column.is_score or column.is_number else "---" for column in table.columns) + "|"
    rows = ["| " + " | ".join(_escape(value_text(value)) for value in row) + " |" for row in table.rows]
    notes = [f"- {_escape(note)}" for note in table.notes]
    return "\n".join([f"**{_escape(table.title)}**", "", head, rule, *rows, *(["", *notes] if notes else [])]) + "\n"


def to_csv(table: Table) -> str:
    """Return the table as CSV in full precision; a score becomes five columns: mean, sd, low, high (95 % interval) and
    seeds. Missing values are empty; times are in seconds.

    A quote goes before a text that a spreadsheet would take for a formula.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head: list[str] = []
    for column in table.columns:
        parts = (
            ("mean", "sd", "low", "high", "seeds")
            if column.is_score
            else ("", "low", "high")
            if column.has_interval
            else ("",)
        )
        head += [f"{column.name} {part}".rstrip() for part in parts]
    writer.writerow(_inert(name) for name in head)
    for row in table.rows:
        values: list[Value] = []
        for column, value in zip(table.columns, row, strict=True):
            if column.is_score:
                values += (
                    [value.mean, value.sd, value.low, value.high, value.num_seeds]
                    if isinstance(value, Score)
                    else [None] * 5
                )
            elif column.has_interval:
                values += [value.value, value.low, value.high] if isinstance(value, Number) else [value, None, None]
            else:
                values.append(value.value if isinstance(value, Number) else value)
        writer.writerow(_inert(value) if isinstance(value, str) else value for value in values)
    return buffer.getvalue()


def to_rich(table: Table) -> RichTable:
    """Return the table for the terminal."""
    shown = RichTable(title=Text(table.title), caption=Text("\n".join(table.notes)), caption_justify="left")
    for column in table.columns:
        shown.add_column(Text(column.name), justify="right" if column.is_score or column.is_number else "left")
    for row in table.rows:
        shown.add_row(*(Text(value_text(value)) for value in row))
    return shown


def _head(cell: Cell, findings: Findings | None) -> tuple[Value, ...]:
    setting = cell.setting
    name = (
        setting.label
        if setting.kind != "clone" or setting.is_mixture
        else ", ".join([str(setting.variant), *setting.marks])
    )
    if findings and cell is findings.best:
        name += f" ({findings.word})"
    images: Value = "all" if setting.kind == "real" and setting.images_per_class is None else setting.images_per_class
    return name, setting.guidance_scale, images, cell.num_seeds


def _telling_columns(cells: Cells) -> dict[str, list[Value]]:
    """Return further columns that tell settings apart: heading -> a value for each cell."""
    settings = [cell.setting for cell in cells.cells]
    fields = [setting.fields() for setting in settings]
    names = [name for name in telling(fields) if name not in (FACTORS[VARIANT], FACTORS[GUIDANCE])]
    found: dict[str, list[Value]] = {name: [own.get(name) for own in fields] for name in names}
    if len({replace(setting, source=None, selection="") for setting in settings}) < len(settings):
        found["data"] = [setting.source for setting in settings]
    return found


def _escape(text: str) -> str:
    """Return text for Markdown: one line, with all Markdown and HTML markup escaped."""
    for character in "\\`*_[]<>|#&~$@":
        text = text.replace(character, "\\" + character)
    return " ".join(re.sub(r"(?i)(www)\.|:(?=//)", lambda found: f"{found[1]}\\." if found[1] else "\\:", text).split())


def _inert(text: str) -> str:
    """Return text that a spreadsheet takes for no formula. A carriage return would begin another row."""
    quote = "'" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else ""
    return quote + text.replace("\r", " ")
