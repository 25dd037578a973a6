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
from raysd.curation.settings import TEXTS, ScoringSettings
from raysd.curation.teachers import OF_TEACHERS, Faculty, Teacher
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
    faculty: Faculty | None = None
    """The teachers, if there are some."""

    @property
    def part(self) -> pa.Schema:
        """Columns of a shard's part."""
        return PART if self.faculty is None else pa.schema([*PART, *OF_TEACHERS])

    @property
    def scores(self) -> pa.Schema:
        """Columns of the tables of scores."""
        return SCORES if self.faculty is None else pa.schema([*SCORES, *OF_TEACHERS])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that shapes a score."""
        model = None if self.model is None else {"digest": self.model.digest, "texts": list(self.texts)}
        taught = {} if self.faculty is None else {"teachers": self.faculty.identity()}
        return fingerprint({"model": model, "references": [print_ for _, print_ in self.references], **taught})

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

    def check_scored(self, clone: Clone) -> dict[str, Any]:
        """Return `scores.json` of a clone.

        Raises:
            UserError: the clone has no scores, or grew after it was scored.
        """
        record = self.read_record(clone)
        if not self.covers(clone, record):
            reason = "has grown since it was scored, or was scored in part" if record else "has no such scores"
            remedy = f"the clone {reason}; run raysd score with the same configuration"
            raise UserError("scoring", self.fingerprint, remedy)
        return record

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
            **({} if self.faculty is None else {"teachers": self.teachers()}),
        }

    def teachers(self) -> dict[str, Any]:
        """Return what records say of the teachers; nothing where there are none."""
        faculty = self.faculty
        return {} if faculty is None else {"names": faculty.names, "saw_real": faculty.saw_real, **faculty.identity()}


def resolve_scoring_spec(
    settings: ScoringSettings,
    table: ClassTable,
    references: list[tuple[str, str]],
    teachers: tuple[Teacher, ...] = (),
) -> ScoringSpec:
    """Fill in the model and the classes' texts.

    Args:
        settings: the experiment's scoring settings.
        table: the classes.
        references: name and fingerprint of each test set in `settings.against`.
        teachers: the classifiers in `settings.teachers`.

    Raises:
        UserError: no such model, a template that the table cannot fill, or the texts as teacher without a model.
    """
    variant = PromptVariant(templates=[settings.template])
    try:
        check_variables("", variant, table)
    except UserError as error:
        raise UserError("scoring.template", error.value, error.remedy) from None
    from raysd.curation.image_text_model import find_image_text_model

    model = None if settings.model is None else find_image_text_model(settings.model, settings.revision)
    has_texts = TEXTS in settings.teachers
    if has_texts and model is None:
        remedy = "is the image-text model as a teacher, and there is none; set scoring.model, or name classifiers"
        raise UserError("scoring.teachers", TEXTS, remedy)
    faculty = Faculty(teachers, has_texts, settings.model or "") if teachers or has_texts else None
    return ScoringSpec(model, tuple(variant.prompt(row, 0) for row in table.rows), tuple(references), faculty)


def read_scores(clone: Clone, spec: ScoringSpec) -> pa.Table:
    """Return all scores of a clone, by label and index.

    Raises:
        UserError: the clone has no scores, or grew after it was scored.
    """
    folder, record = spec.folder(clone), spec.check_scored(clone)
    return pa.concat_tables(
        [read_table(folder, f"scores-{number:05d}.parquet") for number in range(record["num_files"])]
    )
