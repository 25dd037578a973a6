"""Class tables: a row per class with `label` 0..K-1, a stable `key`, a `name`, and further columns for prompts."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysd.errors import UserError
from raysd.prompts.table_file import FILES, is_binary, plain_text, read_rows
from raysd.storage.local_copy import local_file

if TYPE_CHECKING:
    from raysd.prompts.wordnet import Synset

BUILT_IN = Path(__file__).parent / "tables"
ClassRow = dict[str, str]
SEPARATOR = "|"
INVISIBLE = "\u00ad\u200b\u2060\ufeff"
"""Characters that nobody sees; joiners and marks of direction belong to scripts and emoji."""
NUMBER = re.compile(r"0*(\d+)(\.0*)?", re.ASCII)


def split_cell(cell: str) -> list[str]:
    """Return the values of a cell that may hold several."""
    return [part.strip() for part in cell.split(SEPARATOR) if part.strip()]


def built_in_tables() -> list[str]:
    """Return the names of the tables that ship with raysd."""
    return sorted(path.stem for path in BUILT_IN.glob("*.csv"))


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set; row i has label i. All cells are text."""

    rows: list[ClassRow]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """Class names in label order."""
        return [row["name"] for row in self.rows]

    @property
    def keys(self) -> list[str]:
        """Stable ids in label order."""
        return [row["key"] for row in self.rows]

    @property
    def columns(self) -> list[str]:
        """Columns that a prompt template may use."""
        return [column for column in self.rows[0] if column != "label"]


def fill_from_wordnet(table: ClassTable) -> ClassTable:
    """Fill in empty definitions, hypernyms and synonyms from WordNet.

    The meaning of a class is that of its `wnid`, or of its key if that is a wnid; else meaning number `sense` of its
    name; else the most frequent one, and `guessed` names the columns filled in from it. A class that WordNet does not
    know keeps its empty cells, and its `senses` is 0.

    Raises:
        UserError: no WordNet on this machine, a wnid that it does not have, or a sense that the name does not have.
    """
    from raysd.prompts.wordnet import WNID, find_wordnet

    wordnet, rows = find_wordnet(), []
    for row in table.rows:
        senses = wordnet.senses(row["name"])
        wnid, sense = row.get("wnid") or (row["key"] if WNID.fullmatch(row["key"]) else ""), row.get("sense", "")
        if sense and sense not in map(str, range(1, len(senses) + 1)):
            raise UserError("classes.sense", sense, _no_meaning(row, senses))
        try:
            synset = wordnet.synset(wnid) if wnid else senses[int(sense or 1) - 1] if senses else None
        except KeyError:
            raise UserError("classes.wnid", wnid, _no_meaning(row, senses)) from None
        found = {
            "definition": "",
            "hypernym": "",
            "synonyms": "",
            "wnid": "",
            "senses": str(len(senses)),
            "guessed": "",
        }
        if synset is not None:
            others = [lemma for lemma in synset.lemmas if lemma.lower() != row["name"].lower()]
            found |= {"definition": synset.definition, "hypernym": SEPARATOR.join(wordnet.hypernym_names(synset))}
            found |= {"synonyms": SEPARATOR.join(others), "wnid": synset.wnid, "senses": str(max(1, len(senses)))}
            if len(senses) > 1 and not wnid and not sense:
                found["guessed"] = SEPARATOR.join(
                    column for column in ("definition", "hypernym", "synonyms") if found[column] and not row.get(column)
                )
        rows.append({**row, **{column: row.get(column) or cell for column, cell in found.items()}})
    return ClassTable(rows)


def _no_meaning(row: ClassRow, senses: "list[Synset]") -> str:
    return f"is no meaning of {row['name']!r} in WordNet, which has {len(senses)} for it; correct the class table"


def load_class_table(source: str | list[str]) -> ClassTable:
    """Load a built-in table by name, a file by path (see `FILES`), or a plain list of names.

    Missing labels are numbered in order, and missing keys are taken from the names.

    Raises:
        UserError: unknown source, no names, duplicate or missing keys, labels that are not 0..K-1.
    """
    if isinstance(source, list):
        return _validated("classes", [{"name": name} for name in source])
    path = BUILT_IN / f"{source}.csv" if source in built_in_tables() else local_file("classes", source)
    if not path.is_file():
        tables = ", ".join(built_in_tables())
        remedy = f"no such built-in table or file; use one of {tables}, a {FILES} file, or a list, as [cat,dog]"
        raise UserError("classes", source, remedy)
    return _validated(source, read_rows("classes", source, path))


def _validated(source: str, items: list[dict[str, Any]]) -> ClassTable:
    if not items:
        raise UserError("classes", source, "the table is empty; give at least one class")
    rows = []
    columns = list(dict.fromkeys(str(column) for item in items for column in item))
    for number, item in enumerate(items):
        cells = {str(column): _text(source, number, str(column), cell) for column, cell in item.items()}
        row = {column: cells.get(column, "") for column in columns}
        if "name" not in columns:
            raise UserError("classes", source, f"has no column name, only {', '.join(columns)}; rename one")
        if not row.get("name"):
            raise UserError("classes.name", source, f"row {number + 1} has no name; give every class a name")
        for column in ("key", "name"):
            _check_visible(f"classes.{column}", source, number, row.get(column, ""))
        rows.append({"label": "", **row, "key": row.get("key") or row["name"]})
    _number(source, rows)
    _reject_duplicate_keys(source, rows)
    return ClassTable(sorted(rows, key=lambda row: int(row["label"])))


def _text(source: str, number: int, column: str, cell: Any) -> str:
    """Return a cell as text on one line; the values of a list are joined."""
    if column in ("key", "name") and (isinstance(cell, bool | dict | list) or is_binary(cell)):
        raise UserError(
            f"classes.{column}",
            cell,
            f"in row {number + 1} of {source} is no text; write it as text, in quotes",
        )
    if isinstance(cell, list):
        return SEPARATOR.join(text for part in cell if (text := _text(source, number, column, part)))
    return " ".join(plain_text(cell).split())


def _check_visible(field: str, source: str, number: int, text: str) -> None:
    """Check that a key or a name has no character that is not seen but makes it another one.

    Raises:
        UserError: it has.
    """
    if unseen := next((sign for sign in text if sign in INVISIBLE or unicodedata.category(sign) in ("Cc", "Cs")), None):
        what = f"has the invisible character {unicodedata.name(unseen, f'U+{ord(unseen):04X}')!r}"
        raise UserError(field, text, f"in row {number + 1} of {source} {what}; remove it")


def _number(source: str, rows: list[ClassRow]) -> None:
    if all(row["label"] == "" for row in rows):
        for label, row in enumerate(rows):
            row["label"] = str(label)
    for row in rows:
        if number := NUMBER.fullmatch(row["label"]):  # as 1.0, which pandas writes, or 01
            row["label"] = number[1]
    labels = [row["label"] for row in rows]
    if sorted(labels) != sorted(str(label) for label in range(len(rows))):
        from_one = sorted(labels) == sorted(str(label + 1) for label in range(len(rows)))
        why = "they begin at 1; subtract 1 from each, or leave the column out" if from_one else "correct the column"
        raise UserError("classes.label", source, f"labels must be 0 to {len(rows) - 1}, each once; {why}")


def _reject_duplicate_keys(source: str, rows: list[ClassRow]) -> None:
    seen: set[str] = set()
    for row in rows:
        key = unicodedata.normalize("NFC", row["key"])  # two forms of one text look the same
        if key in seen:
            raise UserError("classes.key", row["key"], f"stands twice in {source}; give each class a unique key")
        seen.add(key)
