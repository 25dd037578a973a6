"""Tables of a report, and their texts: Markdown, CSV, and rich for the terminal."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable
from rich.text import Text

from raysd.report.cells import Cell, Cells, MeasuredSet, Score
from raysd.report.findings import Findings, score_text
from raysd.report.words import GUIDANCE, VARIANT, duration, factor_words, value_words


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
        return text if self.low is None or self.high is None else f"{text} [{self.low:{self.form}}, {self.high:{self.form}}]"


def number(value: float | None, form: str = ".1f", unit: str = "", low: float | None = None, high: float | None = None) -> Number | None:
    """A number, or None where there is none."""
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


@dataclass(frozen=True)
class Table:
    """Rows [num_rows][num_columns] with headings; notes stand below."""

    name: str
    """File name without a suffix."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()


def set_names(sets: Sequence[MeasuredSet]) -> dict[MeasuredSet, str]:
    """A short name of each set, unlike that of the others."""
    names = {}
    for measured in sets:
        alone = sum(other.role == measured.role for other in sets) == 1
        name = measured.role if alone and measured.role != "transfer" else measured.dataset
        names[measured] = name if measured.shots is None else f"{name}, {measured.shots} shots"
    texts = list(names.values())
    return {s: name if texts.count(name) == 1 else f"{name} ({s.role}, {s.fingerprint[:6]}, {s.num_images:,})" for s, name in names.items()}


def main_table(cells: Cells, findings: Findings | None = None) -> Table:
    """One row per cell, baselines last; a set that a cell lacks is `-`, and the mean transfer is `-` when any transfer set is."""
    names = set_names(cells.sets)
    transfer = cells.of_role("transfer")
    columns = [Column("trained on"), Column("guidance", is_number=True), Column("images per class", is_number=True), Column("seeds", is_number=True)]
    extra = _telling_columns(cells)
    columns += [Column(name) for name in extra]
    columns += [Column(names[measured], is_score=True) for measured in cells.sets]
    if len(transfer) > 1:
        columns.append(Column("mean transfer", is_score=True))
    rows = []
    for place, cell in enumerate(cells.cells):
        scores: list[Value] = [cell.scores.get(measured) for measured in cells.sets]
        tail = [cell.transfer] if len(transfer) > 1 else []
        rows.append((*_head(cell, findings), *(values[place] for values in extra.values()), *scores, *tail))
    notes = ["Top-1 accuracy in percent: mean ± standard deviation over seeds; with one seed, the 95 % Wilson interval over pictures in brackets."]
    return Table("settings", "Accuracy by setting", tuple(columns), tuple(rows), (*notes, *cells.notes, *(findings.notes if findings else ())))


def gap_table(findings: Findings) -> Table:
    """The best setting between random and real, for the test set and each transfer set."""
    names = set_names(list(findings.gaps))
    columns = (
        Column("real pictures of"),
        Column(findings.heading, True),
        Column("real", True),
        Column("random", True),
        Column("gap closed, %", is_number=True),
    )
    rows = []
    for measured, gap in findings.gaps.items():
        cells = (findings.best, findings.real, findings.random)
        scores = [cell.scores.get(measured) if cell else None for cell in cells]
        rows.append((names[measured], *scores, None if gap is None else Number(100 * gap)))
    return Table("gap", "Share of the gap to real closed", columns, tuple(rows), ("Share = (clone - random) / (real - random).",))


def value_text(value: Value) -> str:
    """A value as a person reads it; `-` when there is none."""
    if isinstance(value, Score):
        return score_text(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def to_markdown(table: Table) -> str:
    """A GitHub table with its notes as a list below."""
    head = "| " + " | ".join(_escape(column.name) for column in table.columns) + " |"
    rule = "|" + "|".join("---:" if column.is_score or column.is_number else "---" for column in table.columns) + "|"
    rows = ["| " + " | ".join(_escape(value_text(value)) for value in row) + " |" for row in table.rows]
    notes = [f"- {_escape(note)}" for note in table.notes]
    return "\n".join([f"**{_escape(table.title)}**", "", head, rule, *rows, *(["", *notes] if notes else [])]) + "\n"


def to_csv(table: Table) -> str:
    """Full precision; a score becomes five columns: mean, sd, low, high (95 % interval) and seeds. Empty where there is no value, seconds as they are."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head: list[str] = []
    for column in table.columns:
        parts = ("mean", "sd", "low", "high", "seeds") if column.is_score else ("", "low", "high") if column.has_interval else ("",)
        head += [f"{column.name} {part}".rstrip() for part in parts]
    writer.writerow(head)
    for row in table.rows:
        values: list[Value] = []
        for column, value in zip(table.columns, row, strict=True):
            if column.is_score:
                values += [value.mean, value.sd, value.low, value.high, value.num_seeds] if isinstance(value, Score) else [None] * 5
            elif column.has_interval:
                values += [value.value, value.low, value.high] if isinstance(value, Number) else [value, None, None]
            else:
                values.append(value.value if isinstance(value, Number) else value)
        writer.writerow(values)
    return buffer.getvalue()


def to_rich(table: Table) -> RichTable:
    """The table for the terminal."""
    shown = RichTable(title=Text(table.title), caption=Text("\n".join(table.notes)), caption_justify="left")
    for column in table.columns:
        shown.add_column(Text(column.name), justify="right" if column.is_score or column.is_number else "left")
    for row in table.rows:
        shown.add_row(*(Text(value_text(value)) for value in row))
    return shown


def _head(cell: Cell, findings: Findings | None) -> tuple[Value, ...]:
    setting = cell.setting
    name = str(setting.variant) if setting.kind == "clone" else setting.label
    if findings and cell is findings.best:
        name += f" ({findings.word})"
    images: Value = "all" if setting.kind == "real" and setting.images_per_class is None else setting.images_per_class
    return name, setting.guidance_scale, images, cell.num_seeds


def _telling_columns(cells: Cells) -> dict[str, list[Value]]:
    """Further columns that tell settings apart: heading -> a value for each cell."""
    settings = [cell.setting for cell in cells.cells]
    fields = {"backbone": "backbone", "generator": "model", "steps": "num_inference_steps"}
    found: dict[str, list[Value]] = {}
    for name, attribute in fields.items():
        values = [getattr(setting, attribute) for setting in settings]
        if len({*values} - {None}) > 1:
            found[name] = [None if value is None else str(value) for value in values]
    searched = [dict(setting.factors) for setting in settings]
    for factor in dict.fromkeys(name for factors in searched for name in factors if name not in (VARIANT, GUIDANCE)):
        found.setdefault(factor_words(factor), [value_words(json.loads(factors[factor])) if factor in factors else None for factors in searched])
    looks = [(s.kind, s.variant, s.guidance_scale, s.images_per_class, s.backbone, s.model, s.num_inference_steps, s.dataset, s.factors) for s in settings]
    if len(set(looks)) < len(looks):
        found["data"] = [setting.source for setting in settings]
    return found


def _escape(text: str) -> str:
    """Text for Markdown: one line, with nothing that Markdown or HTML would read."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
