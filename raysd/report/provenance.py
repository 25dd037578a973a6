"""Where each number comes from: clones, the rows behind the ranking, accuracy rows, and versions."""

from collections.abc import Mapping, Sequence

from raysd.report.inputs import Entry, ReportInputs
from raysd.report.tables.tables import Column, Table, Value, number, number_columns
from raysd.report.text import metric_words, teacher_words
from raysd.storage.row_types.measured import AccuracyRow
from raysd.storage.row_types.sweep import SweepRow, SweptClone


def clone_table(inputs: ReportInputs) -> Table | None:
    """Return the clones and their folders, each once with the settings that share it; None where there are none. With
    several clone seeds the images are those of all, and the folder is that of the first."""
    about: dict[str, SweptClone] = {
        clone["folder"]: clone for clone in (inputs.sweep["clones"] if inputs.sweep else ())
    }
    groups: dict[str, list[Entry]] = {}
    for entry in (entry for entry in inputs.entries if entry.folder):
        groups.setdefault(entry.folder, []).append(entry)
    columns = (
        Column("setting"),
        *number_columns("images", "flagged"),
        Column("fingerprint", is_code=True),
        Column("folder", is_code=True),
    )
    rows: list[tuple[Value, ...]] = []
    for folder, entries in groups.items():
        clone = about.get(folder)
        short = [f"short in {len(clone['short_classes']):,} classes"] if clone and clone["short_classes"] else []
        name = "; ".join([*(entry.label for entry in entries), *short])
        one = [str(entries[0].setting.source)]
        fingerprints = " ".join(one if clone is None else clone.get("clones", one))
        rows.append((name, clone and clone["num_images"], clone and clone["num_flagged"], fingerprints, folder))
    return Table("clones", "Clones", columns, tuple(rows)) if rows else None


def behind_table(inputs: ReportInputs) -> Table | None:
    """Return the rows behind each score of a setting, by the rung results; None where there are none."""
    names = ("rung result", "clone", "classifiers", "accuracy rows")
    columns = (
        Column("setting"),
        *number_columns("images per class", "score"),
        *(Column(name, is_code=True) for name in names),
    )
    rows = [
        (
            f"{row['label']}, confirmed" if row.get("confirmed") else row["label"],
            row["images_per_class"],
            number(row["score"], ".2f"),
            row["fingerprint"],
            " ".join(row.get("clones", [row["clone"]])),
            " ".join(row["classifiers"]),
            " ".join(row["rows"]),
        )
        for row in inputs.rung_results
    ]
    return Table("behind", "Rows behind each score", columns, tuple(rows)) if rows else None


def row_table(inputs: ReportInputs) -> Table:
    """Return each accuracy row and the command that repeats it."""
    columns = (
        Column("fingerprint", is_code=True),
        Column("trained on"),
        *number_columns("images per class", "seed"),
        Column("measured on"),
        Column("metric"),
    )
    columns += (
        *number_columns("value, %", "images"),
        Column("classifier", is_code=True),
        Column("data", is_code=True),
        Column("date"),
    )
    columns += (Column("command", is_code=True),)
    labels = {row["fingerprint"]: cell.setting.label for cell in inputs.cells.cells for row in cell.rows}
    order = sorted(
        inputs.rows,
        key=lambda r: (r["trained_on"]["kind"], r["trained_on"].get("name") or "", r["role"], r["dataset"], r["seed"]),
    )
    rows = [
        (
            row["fingerprint"],
            _trained_on(row, labels),
            row["trained_on"].get("images_per_class"),
            row["seed"],
            f"{row['dataset']} ({row['role']}" + (")" if row["shots"] is None else f", {row['shots']} shots)"),
            metric_words(row["metric"]),
            number(row["value"], ".2f"),
            row["num_images"],
            row["classifier"],
            row["trained_on"].get("fingerprint"),
            row.get("date"),
            row.get("command"),
        )
        for row in order
    ]
    return Table("rows", "Accuracy rows", columns, tuple(rows))


def _trained_on(row: AccuracyRow, labels: Mapping[str, str]) -> str:
    data = row["trained_on"]
    name = f"{data['kind']}: {labels.get(row['fingerprint'], data.get('name') or '')}"
    return "; ".join([name, *([words] if (words := teacher_words(data)) else [])])


def package_versions(sweep: SweepRow | None, rows: Sequence[AccuracyRow]) -> list[tuple[str, str]]:
    """Return each package and its version; all versions where rows differ."""
    found: dict[str, set[str]] = {}
    for versions in [*([sweep["versions"]] if sweep is not None else []), *(row["versions"] for row in rows)]:
        for package, version in versions.items():
            found.setdefault(package, set()).add(version)
    return [(package, ", ".join(sorted(versions))) for package, versions in sorted(found.items())]
