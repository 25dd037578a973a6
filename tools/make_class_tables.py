"""Fill the built-in class tables from WordNet 3.0 (Debian package wordnet-base); ImageNet's labels are in timm's order.

python tools/make_class_tables.py [FOLDER]
"""

import csv
import sys
from pathlib import Path

from timm.data import ImageNetInfo

from raysd.errors import UserError
from raysd.prompts.table import BUILT_IN, ClassTable, fill_from_wordnet, load_class_table
from raysd.prompts.wordnet import find_wordnet

HUNDRED = BUILT_IN / "imagenet100_wnids.txt"
IMAGENET_COLUMNS = ("label", "key", "name", "synonyms", "definition", "hypernym", "senses")
CIFAR_COLUMNS = ("label", "key", "name", "wnid", "synonyms", "definition", "hypernym", "senses")


def imagenet_table(wnids: list[str]) -> ClassTable:
    """Return a table with one row per wnid, in this order."""
    wordnet = find_wordnet()
    return fill_from_wordnet(
        ClassTable(
            [
                {"label": str(label), "key": wnid, "name": wordnet.synset(wnid).lemmas[0]}
                for label, wnid in enumerate(wnids)
            ]
        )
    )


def cifar_table(name: str) -> ClassTable:
    """Return a table with its names and wnids as they are; the rest is from WordNet."""
    rows = load_class_table(name).rows
    return fill_from_wordnet(
        ClassTable([{column: row[column] for column in ("label", "key", "name", "wnid")} for row in rows])
    )


def counted_table(name: str) -> ClassTable:
    """Return a table as it is, with the number of meanings that WordNet knows of each name; at least 1."""
    wordnet = find_wordnet()
    return ClassTable(
        [{**row, "senses": str(max(1, len(wordnet.senses(row["name"]))))} for row in load_class_table(name).rows]
    )


def write_table(path: Path, table: ClassTable, columns: tuple[str, ...]) -> None:
    """Write some columns as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row[column] for column in columns] for row in table.rows)


def write_tables(folder: Path) -> None:
    """Write all tables with columns from WordNet."""
    write_table(folder / "imagenet1k.csv", imagenet_table(ImageNetInfo("imagenet-1k").label_names()), IMAGENET_COLUMNS)
    write_table(folder / "imagenet100.csv", imagenet_table(HUNDRED.read_text().split()), IMAGENET_COLUMNS)
    for name in ("cifar10", "cifar100"):
        write_table(folder / f"{name}.csv", cifar_table(name), CIFAR_COLUMNS)
    for name in ("pets", "flowers102", "dtd", "eurosat", "food101"):
        write_table(folder / f"{name}.csv", counted_table(name), ("label", "key", "name", "hypernym", "senses"))


if __name__ == "__main__":
    try:
        write_tables(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT_IN)
    except UserError as error:
        sys.exit(str(error))
