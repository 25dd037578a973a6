"""Score tables: quality scores of a clone's images, beside the clone, by label and image index.

No score changes or deletes an image; a filter leaves images out when the clone is read.

`clones/<fingerprint>/scores/<score fingerprint>/` holds `scores.json` (the record), `scores-00000.parquet`, ... (each
for a range of classes), in `parts/` the scores of each shard, and in `counts.parquet` the images of each part.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from raysd.clone.clone import Clone
from raysd.clone.plan import ImageCounts
from raysd.curation.settings import ScoringSettings
from raysd.diffusion.checkpoint import Model
from raysd.errors import UserError
from raysd.prompts.resolve import check_variables
from raysd.prompts.table import ClassTable
from raysd.prompts.variant import PromptVariant
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.tables import read_table

RECORD = "scores.json"
PART = pa.schema(
    [
        ("label", pa.int64()),
        ("index", pa.int64()),
        ("similarity", pa.float32()),
        ("probability", pa.float32()),
        ("guess", pa.int64()),
        ("test_similarity", pa.float32()),
        ("test_match", pa.string()),
        ("thumbnail", pa.binary()),
    ]
)
SCORES = pa.schema(
    [
        *(column for column in PART if column.name != "thumbnail"),
        ("duplicate_similarity", pa.float32()),
        ("duplicate_of", pa.int64()),
    ]
)


@dataclass(frozen=True)
class ScoringSpec:
    """The scores to measure; make one with `resolve_scoring_spec`."""

    model: Model | None
    texts: tuple[str, ...]
    """Text of each class, for the image-text model."""
    references: tuple[tuple[str, str], ...]
    """Name and fingerprint of each test set."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that shapes a score."""
        model = None if self.model is None else {"digest": self.model.digest, "texts": list(self.texts)}
        return fingerprint({"model": model, "references": [print_ for _, print_ in self.references]})

    def folder(self, clone: Clone) -> Location:
        """Return the folder of a clone's scores."""
        return clone.folder.child("scores", self.fingerprint)

    def read_record(self, clone: Clone) -> dict[str, Any]:
        """Return `scores.json` of a clone, or an empty record when it was not scored."""
        folder = self.folder(clone)
        record: dict[str, Any] = json.loads(folder.read(RECORD)) if folder.exists(RECORD) else {}
        return record

    def covers(self, clone: Clone, record: dict[str, Any]) -> bool:
        """Return whether all planned images were scored."""
        return bool(record) and ImageCounts.from_json(clone.counts.num_classes, record["counts"]).covers(clone.counts)

    def describe(self) -> dict[str, Any]:
        """Return the values for `scores.json`."""
        model = (
            None
            if self.model is None
            else {"name": self.model.name, "commit": self.model.commit, "digest": self.model.digest}
        )
        references = [{"name": name, "fingerprint": print_} for name, print_ in self.references]
        return {
            "fingerprint": self.fingerprint,
            "model": model,
            "texts": list(self.texts[:3]),
            "references": references,
        }


def resolve_scoring_spec(
    settings: ScoringSettings, table: ClassTable, references: list[tuple[str, str]]
) -> ScoringSpec:
    """Fill in the model and the classes' texts.

    Args:
        settings: the experiment's scoring settings.
        table: the classes.
        references: name and fingerprint of each test set in `settings.against`.

    Raises:
        UserError: no such model, or a template that the table cannot fill.
    """
    variant = PromptVariant(templates=[settings.template])
    try:
        check_variables("", variant, table)
    except UserError as error:
        raise UserError("scoring.template", error.value, error.remedy) from None
    from raysd.curation.image_text_model import find_image_text_model

    model = None if settings.model is None else find_image_text_model(settings.model, settings.revision)
    return ScoringSpec(model, tuple(variant.prompt(row, 0) for row in table.rows), tuple(references))


def read_scores(clone: Clone, spec: ScoringSpec) -> pa.Table:
    """Return all scores of a clone, by label and index.

    Raises:
        UserError: the clone has no scores, or grew after it was scored.
    """
    folder, record = spec.folder(clone), spec.read_record(clone)
    if not spec.covers(clone, record):
        reason = "has grown since it was scored, or was scored in part" if record else "has no such scores"
        raise UserError("scoring", spec.fingerprint, f"the clone {reason}; run raysd score with the same configuration")
    return pa.concat_tables(
        [read_table(folder, f"scores-{number:05d}.parquet") for number in range(record["num_files"])]
    )
