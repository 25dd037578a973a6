"""The captions of one class: asked for one by one, checked, and kept in a part of their own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from raysd.captions.checks import cleaned
from raysd.captions.spec import CaptionSpec
from raysd.prompts.table import ClassRow
from raysd.storage.location import Location
from raysd.storage.tables import read_table, write_table

PARTS = "parts"
PART = pa.schema([("number", pa.int64()), ("caption", pa.string()), ("seed", pa.int64()), ("attempt", pa.int64())])


class Writer(Protocol):
    """What answers instructions."""

    def write(self, instruction: str, seed: int) -> str:
        """Return the answer to an instruction."""


@dataclass
class ClassCaptions:
    """The captions of a class, and what was wrong with those that were not taken."""

    rows: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)


class Parts:
    """The parts of the classes: a file for each, named by its label, so that no name of a class is a path.

    Args:
        spec: of the captions.
        root: the storage root.
    """

    def __init__(self, spec: CaptionSpec, root: Location) -> None:
        self.spec, self.folder = spec, spec.folder(root).child(PARTS)

    def read(self, label: int) -> list[dict[str, Any]]:
        """Return the captions of a class that are there."""
        name = self._name(label)
        rows: list[dict[str, Any]] = read_table(self.folder, name).to_pylist() if self.folder.is_file(name) else []
        return rows

    def missing(self) -> list[int]:
        """Return the labels of the classes that lack captions."""
        there = set(self.folder.list_files(".parquet"))
        wanted = self.spec.settings.captions_per_class
        labels = range(len(self.spec.table))
        return [label for label in labels if self._name(label) not in there or len(self.read(label)) < wanted]

    def complete(self, label: int, writer: Writer) -> ClassCaptions:
        """Have the missing captions of a class written, and keep them; return all of them.

        The class ends short at the first caption for which no attempt gives a good one.
        """
        found = ClassCaptions(self.read(label))
        before = len(found.rows)
        try:
            write_class(self.spec, self.spec.table.rows[label], found, writer.write)
        finally:  # also where a server refuses
            if len(found.rows) > before:
                write_table(self.folder, self._name(label), pa.Table.from_pylist(found.rows, PART))
        return found

    @staticmethod
    def _name(label: int) -> str:
        return f"class-{label:06d}.parquet"


def write_class(spec: CaptionSpec, row: ClassRow, found: ClassCaptions, write: Callable[[str, int], str]) -> None:
    """Add the missing captions of a class to those that are there.

    A caption is a function of the spec, its number and those before it. So it does not matter how many are there.
    """
    settings, known = spec.settings, {each["caption"].casefold() for each in found.rows}
    attempts = settings.max_attempts if settings.temperature else 1
    for number in range(len(found.rows), settings.captions_per_class):
        instruction = spec.instruction(row, number)
        for attempt in range(attempts):
            seed = spec.seed(row, number, attempt)
            caption = cleaned(write(instruction, seed))
            problem = spec.find_problem(caption, row) or ("repeat another" if caption.casefold() in known else "")
            if not problem:
                known.add(caption.casefold())
                found.rows.append({"number": number, "caption": caption, "seed": seed, "attempt": attempt})
                break
            found.problems.append(problem)
        else:
            return
