"""The report of a sweep: one HTML file that needs nothing else, its tables as Markdown and CSV, its figures as PNG and SVG."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raysd.errors import UserError
from raysd.report.cells import Cells, collect_cells
from raysd.report.findings import Findings, find
from raysd.report.plots import Plot, guidance_plot, per_class_plot
from raysd.report.samples import SampleGrid, sample_grid
from raysd.report.tables import Table, gap_table, main_table, set_names, to_csv, to_markdown, value_text
from raysd.storage.location import Location
from raysd.storage.results import Row, read_results

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


def write_report(root: Location, out: Location | None = None, sweep: str | None = None) -> ReportFiles:
    """Write the report of a sweep from its result rows alone.

    Args:
        root: the storage root with the rows.
        out: where the files go; default `<root>/reports/<sweep fingerprint>`.
        sweep: the sweep's fingerprint; default the newest.

    Raises:
        UserError: no such sweep, or no accuracy rows of a clone in it.
    """
    chosen = pick_sweep(root, sweep)
    rows = select_rows(read_results(root, "accuracy"), chosen)
    cells = collect_cells(rows, list(dict.fromkeys(clone["variant"] for clone in chosen["clones"])))
    findings = find(cells, chosen.get("best"), chosen["objective"], chosen.get("comparisons", ()))
    if findings is None:
        raise UserError("report.sweep", chosen["fingerprint"], "has no accuracy rows of a clone; run the sweep again, it continues where it ended")
    skipped = [f"Skipped {name}: {reason}" for name, reason in chosen.get("skipped_sets", {}).items()]
    failed = [f"Failed on {row['dataset']}: {row['error']} (seed {row['seed']}, {row['trained_on']})" for row in chosen.get("failed", [])]
    findings = replace(findings, notes=(*findings.notes, *skipped, *failed))
    out = out or root.child("reports", chosen["fingerprint"])
    grids = draw_samples(chosen)
    names = max((grid.class_names for grid in grids), key=len, default=())
    table = main_table(cells, findings)
    accuracy, transfer = _guidance_plots(cells, findings)
    per_class = per_class_plot(findings, names)
    for plot in [*accuracy, *transfer, *([per_class] if per_class else [])]:
        out.write(f"{plot.name}.png", plot.png)
        out.write(f"{plot.name}.svg", plot.svg.encode())
    for grid in grids:
        out.write(f"samples-{_slug(grid.variant)}.png", grid.png)
    out.write("table.md", (to_markdown(table) + "\n" + to_markdown(gap_table(findings))).encode())
    out.write("table.csv", to_csv(table).encode())
    page = _render(chosen, rows, findings, grids, accuracy, transfer, per_class, table)
    out.write(HTML, page.encode())
    return ReportFiles(out, out.file(HTML), findings.lines, table)


def pick_sweep(root: Location, sweep: str | None = None) -> Row:
    """The sweep row with this fingerprint, or the newest.

    Raises:
        UserError: when there is none.
    """
    found = read_results(root, "sweep")
    if not found:
        raise UserError("storage", root.uri, "holds no sweep results; run `raysd sweep` with this storage first")
    if sweep is None:
        return max(found, key=lambda row: (row["date"], row["fingerprint"]))
    for row in found:
        if row["fingerprint"] == sweep:
            return row
    newest = sorted(found, key=lambda row: row["date"], reverse=True)[:5]
    raise UserError("report.sweep", sweep, f"unknown; use one of {', '.join(row['fingerprint'] for row in newest)}")


def select_rows(rows: Sequence[Row], sweep: Row) -> list[Row]:
    """The accuracy rows of a sweep's classifiers; where these have no `real` or `random` classifier, those of the same backbone and sets."""
    members, own = set(sweep["classifiers"]), set(sweep.get("rows", [row["fingerprint"] for row in rows]))
    chosen = [row for row in rows if row["classifier"] in members and row["fingerprint"] in own]
    backbones = {row["backbone"] for row in chosen}
    sets = {_measured(row) for row in chosen}
    for kind in ("real", "random"):
        if not any(row["trained_on"]["kind"] == kind for row in chosen):
            chosen += [row for row in rows if row["trained_on"]["kind"] == kind and row["backbone"] in backbones and _measured(row) in sets]
    return chosen


def _measured(row: Row) -> tuple[Any, ...]:
    """What two rows must share to stand in one column."""
    return tuple(row.get(name) for name in ("version", "role", "dataset_fingerprint", "shots", "probe_label", "metric", "num_images"))


def draw_samples(sweep: Row) -> list[SampleGrid]:
    """One sample grid per prompt variant of a sweep, in the sweep's order."""
    variants: dict[str, list[tuple[float, Location]]] = {}
    for clone in sweep["clones"]:
        variants.setdefault(clone["variant"], []).append((clone["guidance_scale"], Location(clone["folder"])))
    return [sample_grid(variant, folders) for variant, folders in variants.items()]


def _guidance_plots(cells: Cells, findings: Findings) -> tuple[list[Plot], list[Plot]]:
    """Accuracy against guidance on the test sets (validation where there is none), and on each transfer set."""
    names = set_names(cells.sets)
    same = cells.of_role("test") or cells.of_role("validation")
    files = {measured: _slug(name.replace(", ", "-").replace(" ", "-")) for measured, name in names.items()}
    accuracy = [guidance_plot(cells, findings, s, f"accuracy-{files[s]}", f"Real {names[s]} pictures ({s.num_images:,})") for s in same]
    sets = cells.of_role("transfer")
    return accuracy, [guidance_plot(cells, findings, s, f"transfer-{files[s]}", f"{names[s]} ({s.num_images:,})") for s in sets]


def _render(
    sweep: Row,
    rows: list[Row],
    findings: Findings,
    grids: list[SampleGrid],
    accuracy: list[Plot],
    transfer: list[Plot],
    per_class: Plot | None,
    table: Table,
) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(uri=_data_uri, value=value_text, duration=_duration)
    return environment.get_template("template.html.j2").render(
        sweep=sweep,
        rows=sorted(rows, key=lambda row: (row["trained_on"]["kind"], row["trained_on"]["name"] or "", row["role"], row["dataset"], row["seed"])),
        findings=findings,
        grids=grids,
        accuracy=accuracy,
        transfer=transfer,
        per_class=per_class,
        table=table,
        gaps=gap_table(findings),
        versions=_versions(sweep, rows),
        num_flagged=sum(clone.get("num_flagged", 0) for clone in sweep["clones"]),
        seconds=_ordered_seconds(sweep),
    )


def _versions(sweep: Row, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Package and version; all versions where rows differ."""
    found: dict[str, set[str]] = {}
    for row in [sweep, *rows]:
        versions: Mapping[str, Any] = row.get("versions") or {}
        for package, version in versions.items():
            found.setdefault(package, set()).add(str(version))
    return [(package, ", ".join(sorted(versions))) for package, versions in sorted(found.items())]


def _ordered_seconds(sweep: Row) -> list[tuple[str, float]]:
    """The sweep's times in seconds in the order of the work, total last; stored rows have sorted keys."""
    seconds = sweep.get("seconds") or {}
    ranks = {"generate": 0, "train": 1, "evaluate": 2, "total": 9}
    return sorted(seconds.items(), key=lambda item: (ranks.get(item[0], 5), item[0]))


def _data_uri(image: bytes | str) -> str:
    """PNG bytes or SVG text as a data URI; as an image an SVG runs no script."""
    kind, data = ("image/png", image) if isinstance(image, bytes) else ("image/svg+xml", image.encode())
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _duration(seconds: float | None) -> str:
    """`42 s`, `3 min 20 s`, or `2 h 05 min`."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _slug(text: str) -> str:
    """A file name; with a hash where characters had to go, so that two names stay two."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:60]
    return slug if slug == text else f"{slug or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
