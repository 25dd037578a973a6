"""Where each number comes from: clones, the rows behind the ranking, accuracy rows, and versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from raysd.report.material import Entry, Material, factors_of
from raysd.report.tables import Column, Table, Value, number
from raysd.report.words import metric_words
from raysd.storage.results import Row


def clone_table(material: Material) -> Table | None:
    """The clones and their folders, each once with the settings that share it; None where there are none."""
    about = {clone["fingerprint"]: clone for clone in material.sweep.get("clones", ())}
    labels: dict[str, list[Entry]] = {}
    for entry in (entry for entry in material.entries if entry.clone):
        labels.setdefault(entry.clone, []).append(entry)
    names = ("pictures", "flagged")
    columns = (Column("setting"), *(Column(name, is_number=True) for name in names), Column("fingerprint", is_code=True), Column("folder", is_code=True))
    rows: list[tuple[Value, ...]] = []
    for fingerprint, entries in labels.items():
        clone = about.get(fingerprint, {})
        short = [f"short in {len(classes):,} classes" for classes in [clone.get("short_classes") or {}] if classes]
        name = "; ".join([*(entry.label for entry in entries), *short])
        rows.append((name, clone.get("num_images"), clone.get("num_flagged"), fingerprint, entries[0].folder))
    return Table("clones", "Clones", columns, tuple(rows)) if rows else None


def behind_table(material: Material) -> Table | None:
    """The rows behind each score of a setting: by the trial rows, or else by the accuracy rows of its classifiers. None where there are none."""
    columns = (
        Column("setting"),
        Column("images per class", is_number=True),
        Column("score", is_number=True),
        *(Column(name, is_code=True) for name in ("trial", "clone", "classifiers", "accuracy rows")),
    )
    trials = {(factors_of(row["setting"]), row["images_per_class"]): row for row in material.trials}
    rows: list[tuple[Value, ...]] = []
    for entry in material.entries:
        for rung in reversed(entry.rungs):
            trial, cell = trials.get((entry.factors, rung.images_per_class)), entry.cells.get(rung.images_per_class)
            if trial is not None:
                classifiers, own = trial.get("classifiers", ()), trial.get("rows", ())
            else:
                classifiers, own = ([row[part] for row in cell.rows] if cell else () for part in ("classifier", "fingerprint"))
            behind = (entry.clone, " ".join(dict.fromkeys(classifiers)), " ".join(own))
            rows.append((entry.label, rung.images_per_class, number(rung.score, ".2f"), trial["fingerprint"] if trial else None, *behind))
    return Table("behind", "Rows behind the ranking" if material.is_sweep else "Rows behind each setting", columns, tuple(rows)) if rows else None


def row_table(material: Material) -> Table:
    """Each accuracy row and the command that repeats it."""
    columns = (
        Column("fingerprint", is_code=True),
        Column("trained on"),
        Column("images per class", is_number=True),
        Column("seed", is_number=True),
        Column("measured on"),
        Column("metric"),
        Column("value, %", is_number=True),
        Column("pictures", is_number=True),
        Column("classifier", is_code=True),
        Column("data", is_code=True),
        Column("date"),
        Column("command", is_code=True),
    )
    labels = {row["fingerprint"]: cell.setting.label for cell in material.cells.cells for row in cell.rows}
    order = sorted(material.rows, key=lambda r: (r["trained_on"]["kind"], r["trained_on"].get("name") or "", r["role"], r["dataset"], r["seed"]))
    rows = [
        (
            row["fingerprint"],
            f"{row['trained_on']['kind']}: {labels.get(row['fingerprint'], row['trained_on'].get('name') or '')}",
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


def package_versions(sweep: Row, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Package and version; all versions where rows differ."""
    found: dict[str, set[str]] = {}
    for row in [sweep, *rows]:
        versions: Mapping[str, Any] = row.get("versions") or {}
        for package, version in versions.items():
            found.setdefault(package, set()).add(str(version))
    return [(package, ", ".join(sorted(versions))) for package, versions in sorted(found.items())]
