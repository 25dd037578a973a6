"""The report: one HTML file that needs nothing else, its tables as Markdown and CSV, its figures as PNG and SVG."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raysd.errors import UserError
from raysd.report.cells import Cells
from raysd.report.classes import ClassScores, class_scores, confusion_table, lag_sentence, lag_table, per_class_plot
from raysd.report.inputs import ALL, ReportInputs, gather
from raysd.report.plots.curves import plot_curves
from raysd.report.plots.figure import Plot
from raysd.report.plots.grid import SampleGrid
from raysd.report.plots.heatmap import heat_maps
from raysd.report.plots.rounds import plot_rounds
from raysd.report.plots.search import effects_plot, scaling_plot
from raysd.report.provenance import behind_table, clone_table, package_versions, row_table
from raysd.report.samples.added import added_grid
from raysd.report.samples.gallery import Gallery, first_grid, sample_galleries
from raysd.report.summary import Findings, count_sentence, find
from raysd.report.tables.confirmed import confirmed_table
from raysd.report.tables.paper import paper_table
from raysd.report.tables.sweep import (
    cost_table,
    effects_table,
    proxies_table,
    ranking_table,
    search_lines,
)
from raysd.report.tables.tables import Table, gap_table, main_table, to_csv, to_markdown, value_text
from raysd.report.text import objective_words
from raysd.storage.location import Location
from raysd.storage.row_types.sweep import SweepRow

HTML = "report.html"
MOST_ROWS = 500  # of a table in the page; its files hold all


@dataclass(frozen=True)
class ReportFiles:
    """A written report."""

    folder: Location
    html: str
    """Path of the page inside the folder's file system."""
    summary: tuple[str, ...]
    """The answer in plain sentences, the most important first."""
    table: Table
    """The main table; `raysd.report.tables.tables.to_rich` shows it in a terminal."""


def write_report(root: Location, out: Location | None = None, sweep: str | None = None) -> ReportFiles:
    """Write the report of a sweep, or of all settings that were measured where there is no sweep, from result rows
    alone.

    Args:
        root: the storage root with the rows.
        out: where the files go; default `<root>/reports/<sweep fingerprint>`, or `<root>/reports/all` without a sweep.
        sweep: the sweep's fingerprint; default the newest.

    Raises:
        UserError: no such sweep, no accuracy rows of a clone in it, or no results at all.
    """
    inputs = gather(root, sweep)
    findings = find_all(inputs)
    scores = class_scores(findings) if findings else None
    galleries, added = sample_galleries(inputs.entries), added_grid(inputs.adapted, root)
    first = first_grid(inputs.entries, findings.best.setting) if findings else None
    figures = plot_figures(inputs, findings, scores)
    tables = make_tables(inputs, findings, scores)
    out = out or root.child("reports", inputs.sweep["fingerprint"] if inputs.sweep is not None else ALL)
    plots = [plot for group in figures.values() for plot in group]
    grids = [
        *([first] if first else []),
        *([added] if added else []),
        *(grid for gallery in galleries for grid in gallery.grids),
    ]
    written = write_parts(out, tables.values(), plots, grids)
    lines = say_all(inputs, findings)
    out.write(
        HTML,
        render(
            inputs, lines, first, added, galleries, figures, tables, written, lag_sentence(scores) if scores else None
        ).encode(),
    )
    return ReportFiles(out, out.file(HTML), lines, tables["settings"])


def write_parts(
    out: Location, tables: Iterable[Table], plots: Iterable[Plot], grids: Iterable[SampleGrid]
) -> list[tuple[str, list[str]]]:
    """Write each table and figure to files of its own; return the title and the files of each."""
    parts: list[tuple[str, dict[str, bytes | str]]] = []
    parts += [
        (f"Table: {table.title}", {f"{table.name}.md": to_markdown(table), f"{table.name}.csv": to_csv(table)})
        for table in tables
    ]
    parts += [(f"Figure: {plot.title}", {f"{plot.name}.png": plot.png, f"{plot.name}.svg": plot.svg}) for plot in plots]
    parts += [(f"Sample images: {grid.label}", {f"{grid.name}.png": grid.png}) for grid in grids]
    for _, files in parts:
        for name, data in files.items():
            out.write(name, data.encode() if isinstance(data, str) else data)
    return [(title, list(files)) for title, files in parts]


def find_all(inputs: ReportInputs) -> Findings | None:
    """Return the findings; None where the best setting was not measured, or no setting stands out.

    Raises:
        UserError: a sweep without accuracy rows of a clone.
    """
    sweep = inputs.sweep
    if sweep is None:
        return find(inputs.cells, None, inputs.objective, compared=inputs.compared)
    if not inputs.cells.of_kind("clone"):
        raise UserError(
            "report.sweep",
            sweep["fingerprint"],
            "has no accuracy rows of a clone; run the sweep again, it continues where it ended",
        )
    return find(inputs.cells, sweep["best"], inputs.objective, sweep["comparisons"], inputs.compared, inputs.borrowed)


def say_all(inputs: ReportInputs, findings: Findings | None) -> tuple[str, ...]:
    """Return the summary, the most important first."""
    failed = inputs.sweep["failed"] if inputs.sweep is not None else []
    if findings:
        lines = findings.lines
    elif inputs.sweep is not None:
        best = inputs.sweep["best"]
        lines = (
            (
                f"The sweep chose {best['label']} ({best['score']:.1f} %, {objective_words(inputs.objective)}); "
                "its accuracy rows are missing."
            ),
        )
    else:
        lines = (count_sentence(inputs.cells),)
    absent = [
        (
            f"Accuracy rows are missing: {len(inputs.lacking):,} {'notes' if len(inputs.lacking) > 1 else 'note'} "
            "below the table of all settings."
        )
    ]
    failures = [
        f"Measurements or settings that failed: {len(failed):,}; notes below the table of all settings say why."
    ]
    return (*lines, *(absent if inputs.lacking else []), *(failures if failed else []), *search_lines(inputs))


def failure_notes(sweep: SweepRow) -> list[str]:
    """Return the settings that were skipped, and those that failed with the reason."""
    notes = [f"Skipped {name}: {reason}" for name, reason in sweep["skipped_sets"].items()]
    for row in sweep["failed"]:
        seed = f", seed {row['seed']}" if row["seed"] is not None else ""
        where = f" on {row['dataset']}" if row["dataset"] != "-" else ""
        notes.append(f"{row['trained_on']}{seed}: failed{where}: {row['error']}")
    return notes


def make_tables(inputs: ReportInputs, findings: Findings | None, scores: ClassScores | None) -> dict[str, Table]:
    """Return all tables by name, in the order of the page; empty tables are left out."""
    settings = main_table(shown_cells(inputs), findings)
    failures = failure_notes(inputs.sweep) if inputs.sweep is not None else []
    found = [
        confirmed_table(inputs),
        ranking_table(inputs),
        effects_table(inputs),
        proxies_table(inputs),
        replace(settings, notes=(*settings.notes, *inputs.lacking, *failures)),
        gap_table(inputs.cells, findings) if findings and findings.best.setting.kind == "clone" else None,
        lag_table(scores, findings.heading) if scores and findings else None,
        confusion_table(findings) if findings else None,
        paper_table(inputs.cells, findings),
        cost_table(inputs),
        clone_table(inputs),
        behind_table(inputs),
        row_table(inputs),
    ]
    return {table.name: table for table in found if table is not None}


def shown_cells(inputs: ReportInputs) -> Cells:
    """Return the cells of the main table: for each setting of a sweep, only the one with the most images per class."""
    if not inputs.is_sweep:
        return inputs.cells
    clones = inputs.cells.of_kind("clone")
    furthest = {c.setting.factors: c for c in sorted(clones, key=lambda c: c.setting.images_per_class or 0)}
    return replace(
        inputs.cells,
        cells=tuple(c for c in inputs.cells.cells if c.setting.kind != "clone" or furthest[c.setting.factors] is c),
    )


def plot_figures(inputs: ReportInputs, findings: Findings | None, scores: ClassScores | None) -> dict[str, list[Plot]]:
    """Return all figures by section; a section without any is empty."""
    cells, effects, scaling = inputs.cells, effects_plot(inputs), scaling_plot(inputs)
    return {
        "accuracy": plot_curves(cells, findings, ("test", "shift", "validation")),
        "transfer": plot_curves(cells, findings, ("transfer",)),
        "heat_maps": heat_maps(inputs),
        "effects": [effects] if effects else [],
        "scaling": [scaling] if scaling else [],
        "rounds": plot_rounds(inputs.adapted),
        "per_class": [per_class_plot(scores, findings.heading)] if scores and findings else [],
    }


def render(
    inputs: ReportInputs,
    lines: Sequence[str],
    first: SampleGrid | None,
    added: SampleGrid | None,
    galleries: Sequence[Gallery],
    figures: Mapping[str, Sequence[Plot]],
    tables: Mapping[str, Table],
    written: Sequence[tuple[str, Sequence[str]]],
    lags: str | None,
) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(uri=_data_uri, value=value_text)
    environment.globals.update(sections=_sections, most_rows=MOST_ROWS)
    return environment.get_template("template.html.j2").render(
        inputs=inputs,
        sweep=inputs.sweep,
        lines=lines,
        first=first,
        added=added,
        galleries=galleries,
        max_tabs=max((len(gallery.grids) for gallery in galleries), default=0),
        figures=figures,
        tables=tables,
        written=written,
        lags=lags,
        objective=objective_words(inputs.objective),
        versions=package_versions(inputs.sweep, inputs.rows),
    )


def _sections(body: str) -> list[tuple[str, str]]:
    """Return the id and title of each section of a rendered page."""
    return re.findall(r'<h2 id="([a-z-]+)">([^<]+)</h2>', body)


def _data_uri(image: bytes | str) -> str:
    """Return WebP bytes or SVG text as a data URI; an SVG shown as an image runs no script."""
    kind, data = ("image/webp", image) if isinstance(image, bytes) else ("image/svg+xml", image.encode())
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
