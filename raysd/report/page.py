"""The report: one HTML file that needs nothing else, its tables as Markdown and CSV, its figures as PNG and SVG."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raysd.errors import UserError
from raysd.report.cells import Cell, Cells
from raysd.report.classes import class_scores, confusion_table, lag_sentence, lag_table, per_class_plot
from raysd.report.curves import guidance_plot
from raysd.report.figure import Plot
from raysd.report.findings import Findings, count_sentence, find
from raysd.report.gallery import Gallery, draw_galleries
from raysd.report.grid import SampleGrid
from raysd.report.heatmap import heat_maps
from raysd.report.material import ALL, Material, gather
from raysd.report.paper import paper_table
from raysd.report.provenance import behind_table, clone_table, package_versions, row_table
from raysd.report.search_plots import effects_plot, scaling_plot
from raysd.report.sweep_tables import cost_table, effects_table, proxies_table, ranking_table, rung_table, search_lines
from raysd.report.tables import Table, gap_table, main_table, set_names, to_csv, to_markdown, value_text
from raysd.report.words import objective_words, slug
from raysd.storage.location import Location

HTML = "report.html"


@dataclass(frozen=True)
class ReportFiles:
    """A written report."""

    folder: Location
    html: str
    """Path of the page inside the folder's file system."""
    summary: tuple[str, ...]
    """The answer in plain sentences, the most important first."""
    table: Table
    """The main table; `raysd.report.tables.to_rich` shows it in a terminal."""


@dataclass(frozen=True)
class Figures:
    """All figures of a page, by section; empty where there is nothing to show."""

    accuracy: Sequence[Plot]
    transfer: Sequence[Plot]
    heat_maps: Sequence[Plot]
    effects: Sequence[Plot]
    scaling: Sequence[Plot]
    per_class: Sequence[Plot]

    @property
    def all(self) -> list[Plot]:
        """Each figure, in the order of the page."""
        return [plot for plots in vars(self).values() for plot in plots]


def write_report(root: Location, out: Location | None = None, sweep: str | None = None) -> ReportFiles:
    """Write the report of a sweep, or of all settings that were measured where there is no sweep, from result rows alone.

    Args:
        root: the storage root with the rows.
        out: where the files go; default `<root>/reports/<sweep fingerprint>`, or `<root>/reports/all` without a sweep.
        sweep: the sweep's fingerprint; default the newest.

    Raises:
        UserError: no such sweep, no accuracy rows of a clone in it, or no results at all.
    """
    material = gather(root, sweep)
    findings = find_all(material)
    galleries, class_names = draw_galleries(material.entries)
    figures = draw_figures(material, findings, class_names)
    tables = make_tables(material, findings, class_names)
    out = out or root.child("reports", material.sweep.get("fingerprint", ALL))
    written = write_parts(out, tables.values(), figures.all, [grid for gallery in galleries for grid in gallery.grids])
    lines = (*findings.lines, *search_lines(material)) if findings else (count_sentence(material.cells),)
    out.write(HTML, render(material, findings, lines, galleries, figures, tables, written, class_names).encode())
    return ReportFiles(out, out.file(HTML), lines, tables["settings"])


def write_parts(out: Location, tables: Iterable[Table], plots: Iterable[Plot], grids: Iterable[SampleGrid]) -> list[tuple[str, list[str]]]:
    """Write each table and figure as files of their own; returns what each is, and its files."""
    parts: list[tuple[str, dict[str, bytes | str]]] = []
    parts += [(f"Table: {table.title}", {f"{table.name}.md": to_markdown(table), f"{table.name}.csv": to_csv(table)}) for table in tables]
    parts += [(f"Figure: {plot.title}", {f"{plot.name}.png": plot.png, f"{plot.name}.svg": plot.svg}) for plot in plots]
    parts += [(f"Sample pictures: {grid.label}", {f"{grid.name}.png": grid.png}) for grid in grids]
    for _, files in parts:
        for name, data in files.items():
            out.write(name, data.encode() if isinstance(data, str) else data)
    return [(title, list(files)) for title, files in parts]


def find_all(material: Material) -> Findings | None:
    """What the rows say; None where there is no sweep and nothing to single out.

    Raises:
        UserError: a sweep without accuracy rows of a clone.
    """
    sweep = material.sweep
    found = find(material.cells, sweep.get("best"), material.objective, sweep.get("comparisons", ()), material.is_sweep)
    if material.is_sweep and (found is None or found.best.setting.kind != "clone"):
        raise UserError("report.sweep", sweep["fingerprint"], "has no accuracy rows of a clone; run the sweep again, it continues where it ended")
    skipped = [f"Skipped {name}: {reason}" for name, reason in (sweep.get("skipped_sets") or {}).items()]
    failed = [f"Failed on {row['dataset']}: {row['error']} (seed {row['seed']}, {row['trained_on']})" for row in sweep.get("failed") or []]
    return replace(found, notes=(*found.notes, *skipped, *failed)) if found else None


def make_tables(material: Material, findings: Findings | None, class_names: Sequence[str]) -> dict[str, Table]:
    """All tables by name, in the order of the page; those without rows are left out."""
    scores = class_scores(findings, class_names) if findings else None
    found = [
        ranking_table(material),
        effects_table(material),
        rung_table(material),
        proxies_table(material),
        main_table(shown_cells(material), findings),
        gap_table(findings) if findings and findings.best.setting.kind == "clone" else None,
        lag_table(scores, findings.heading) if scores and findings else None,
        confusion_table(findings) if findings else None,
        paper_table(material.cells, findings),
        cost_table(material),
        clone_table(material),
        behind_table(material),
        row_table(material),
    ]
    return {table.name: table for table in found if table is not None}


def shown_cells(material: Material) -> Cells:
    """The cells of the main table: of a sweep's setting the one with the most images per class alone."""
    if not material.is_sweep:
        return material.cells
    furthest: dict[Any, int] = {}
    for cell in material.cells.of_kind("clone"):
        furthest[_alike(cell)] = max(furthest.get(_alike(cell), 0), cell.setting.images_per_class or 0)
    kept = [c for c in material.cells.cells if c.setting.kind != "clone" or (c.setting.images_per_class or 0) == furthest[_alike(c)]]
    return replace(material.cells, cells=tuple(kept))


def draw_figures(material: Material, findings: Findings | None, class_names: Sequence[str]) -> Figures:
    """All figures that the rows have something for."""
    scores = class_scores(findings, class_names) if findings else None
    effects, scaling = effects_plot(material), scaling_plot(material)
    accuracy, transfer = draw_curves(material, findings) if findings and material.entries else ([], [])
    return Figures(
        accuracy,
        transfer,
        heat_maps(material),
        [effects] if effects else [],
        [scaling] if scaling else [],
        [per_class_plot(scores, findings.heading)] if scores and findings else [],
    )


def draw_curves(material: Material, findings: Findings) -> tuple[list[Plot], list[Plot]]:
    """Accuracy and transfer against guidance, at the images per class that all settings reached; accuracy also at the last where that is another."""
    cells, common = material.cells, material.common_budget
    budgets = [budget for budget in dict.fromkeys([common, *material.budgets[-1:]]) if budget is not None]
    names = set_names(cells.sets)
    many = len(material.budgets) > 1

    def draw(kind: str, role_sets: Sequence[Any], budget: int | None) -> list[Plot]:
        at = f", {budget:,} per class" if many and budget is not None else ""
        tail = f"-{budget}" if at else ""
        plots = []
        for measured in role_sets:
            name = names[measured]
            title = f"Real {name} pictures ({measured.num_images:,}){at}" if kind == "accuracy" else f"{name} ({measured.num_images:,}){at}"
            file = f"{kind}-{slug(name.replace(', ', '-').replace(' ', '-'))}{tail}"
            plots.append(guidance_plot(cells, findings, measured, file, title, budget if many else None))
        return plots

    same = cells.of_role("test") or cells.of_role("validation")
    accuracy = [plot for budget in budgets for plot in draw("accuracy", same, budget)]
    return accuracy, draw("transfer", cells.of_role("transfer"), common)


def render(
    material: Material,
    findings: Findings | None,
    lines: Sequence[str],
    galleries: Sequence[Gallery],
    figures: Figures,
    tables: Mapping[str, Table],
    written: Sequence[tuple[str, Sequence[str]]],
    class_names: Sequence[str],
) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(uri=_data_uri, value=value_text)
    environment.globals["sections"] = _sections
    scores = class_scores(findings, class_names) if findings else None
    return environment.get_template("template.html.j2").render(
        material=material,
        sweep=material.sweep,
        lines=lines,
        galleries=galleries,
        max_tabs=max((len(gallery.grids) for gallery in galleries), default=0),
        figures=figures,
        tables=tables,
        written=written,
        lags=lag_sentence(scores) if scores else None,
        objective=objective_words(material.objective),
        versions=package_versions(material.sweep, material.rows),
    )


def _alike(cell: Cell) -> tuple[Any, ...]:
    setting = cell.setting
    return (setting.factors, setting.source, setting.backbone)


def _sections(body: str) -> list[tuple[str, str]]:
    """Id and title of each section of a rendered page."""
    return re.findall(r'<h2 id="([a-z]+)">([^<]+)</h2>', body)


def _data_uri(image: bytes | str) -> str:
    """WebP bytes or SVG text as a data URI; as an image an SVG runs no script."""
    kind, data = ("image/webp", image) if isinstance(image, bytes) else ("image/svg+xml", image.encode())
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
