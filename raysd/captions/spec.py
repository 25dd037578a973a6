"""What shapes the captions of an experiment's classes, and where they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raysd.captions.checks import find_problem, names_of
from raysd.captions.settings import CaptionSettings
from raysd.clone.plan import image_seed
from raysd.diffusion.checkpoint import Model
from raysd.errors import UserError
from raysd.prompts.lint import Tokenizer
from raysd.prompts.table import ClassRow, ClassTable, split_cell
from raysd.prompts.variant import VARIABLE
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location

FIELD = "captions.instruction"
VERSION = 1  # of the way captions are made; a change that gives others counts it up


@dataclass(frozen=True)
class CaptionSpec:
    """Captions of some classes by a language model."""

    settings: CaptionSettings
    table: ClassTable
    model: Model | None
    """The language model on this machine; None where a server runs it."""
    tokenizers: tuple[Tokenizer, ...]
    """Of the model that will generate images: captions must not be longer than these take."""

    def instruction(self, row: ClassRow, number: int) -> str:
        """Return what the model is told for a caption of a class, whose number counts from 0."""
        cells = {column: (split_cell(row[column]) or [""])[0] for column in self.table.columns}
        cells["number"] = str(number + 1)
        return VARIABLE.sub(lambda match: cells[match[1]], self.settings.instruction)

    def seed(self, row: ClassRow, number: int, attempt: int) -> int:
        """Return the seed of an attempt at a caption: that of an image of its class, number and redraw."""
        return image_seed(self.settings.seed, row["key"], number, attempt)

    def find_problem(self, caption: str, row: ClassRow) -> str:
        """Return what is wrong with a caption of a class; empty where all is well."""
        return find_problem(caption, row, self.tokenizers)

    def check(self) -> None:
        """Check the instruction against the class table.

        Raises:
            UserError: an unknown variable, or a column that is empty for a class.
        """
        template = self.settings.instruction
        for variable in VARIABLE.findall(template):
            if variable != "number" and variable not in self.table.columns:
                known = ", ".join([*self.table.columns, "number"])
                raise UserError(FIELD, template, f"unknown variable {{{variable}}}; there are: {known}")
            for row in self.table.rows:
                if variable != "number" and not split_cell(row[variable]):
                    remedy = f"class {row['key']!r} has no {variable}; fill it in, or leave {{{variable}}} out"
                    raise UserError(FIELD, template, remedy)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that shapes a caption; not of how many there are, nor of how often the model is asked."""
        settings = self.settings
        return fingerprint(
            {
                "version": VERSION,
                "model": self._model(),
                "options": [settings.max_new_tokens, settings.temperature, settings.top_p, settings.seed],
                "instruction": settings.instruction,
                "classes": [[row["key"], names_of(row), self.instruction(row, 0)] for row in self.table.rows],
                "limits": [[tokenizer.encoder, tokenizer.limit] for tokenizer in self.tokenizers],
            }
        )

    def _model(self) -> Any:
        return self.model.digest if self.model is not None else [self.settings.server, self.settings.model]

    def describe(self) -> dict[str, Any]:
        """Return the facts for the metadata of the table."""
        settings, model = self.settings, self.model
        shown = ("instruction", "max_new_tokens", "temperature", "top_p", "seed")
        source = {"server": settings.server} if model is None else {"digest": model.digest, "commit": model.commit}
        about = {"model": settings.model, "revision": settings.revision, **source}
        return {**about, **{name: getattr(settings, name) for name in shown}, "fingerprint": self.fingerprint}

    def folder(self, root: Location) -> Location:
        """Return the folder of the captions in a storage root."""
        return root.child("captions", self.fingerprint)


def counted(problems: Iterable[str]) -> str:
    """Return how often each problem came up, in words."""
    found = list(problems)
    return ", ".join(f"{found.count(problem)} {problem}" for problem in sorted(set(found)))
