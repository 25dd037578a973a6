"""Analyses as result rows: of classifiers' features, and of a clone against real pictures."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from raysd.evaluation.extraction import Extraction
from raysd.evaluation.feature_analyses import analyse
from raysd.evaluation.features import extract
from raysd.evaluation.overlap import frechet_distance, precision_recall_density_coverage
from raysd.evaluation.settings import AnalysisSettings
from raysd.evaluation.subject import Subject
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.results import Row, find_result, write_result
from raysd.training.pictures import PictureSet
from raysd.versions import versions

KIND = "analysis"


def analyse_features(root: Location, subject: Subject, pictures: PictureSet, command: str) -> Row:
    """Sparsity, intra-class distance, redundancy and coding length of a classifier's features of some pictures."""
    features = Extraction(root, subject, pictures, "features")

    def measure() -> dict[str, Any]:
        _extract([features])
        return analyse(*features.read_features())

    return _row(root, "features", subject, [pictures], {}, measure, command)


def compare_clone(root: Location, subject: Subject, clone: PictureSet, real: PictureSet, settings: AnalysisSettings, command: str) -> Row:
    """Precision, recall, density, coverage and Frechet distance of a clone against real pictures, in the features of a model.

    Raises:
        UserError: fewer pictures than neighbours.
    """
    ours, theirs = (Extraction(root, subject, pictures, "features") for pictures in (clone, real))

    def measure() -> dict[str, Any]:
        _extract([ours, theirs])
        fake, true = ours.read_features()[0], theirs.read_features()[0]
        values = asdict(precision_recall_density_coverage(true, fake, settings.neighbours))
        return {**values, "frechet_distance": frechet_distance(true, fake), "num_clone": len(fake), "num_real": len(true)}

    return _row(root, "clone", subject, [clone, real], {"neighbours": settings.neighbours}, measure, command)


def _extract(extractions: list[Extraction]) -> None:
    for error in extract(extractions).values():
        raise error


def _row(
    root: Location, kind: str, subject: Subject, sets: list[PictureSet], options: dict[str, Any], measure: Callable[[], dict[str, Any]], command: str
) -> Row:
    key = fingerprint({"analysis": kind, "classifier": subject.fingerprint, "sets": [pictures.identity() for pictures in sets], **options})
    if (found := find_result(root, KIND, key)) is not None:
        return found
    began = time.monotonic()
    row: Row = {"fingerprint": key, "kind": kind, "datasets": [pictures.name for pictures in sets], "classifier": subject.fingerprint, **subject.about}
    row |= {**options, "values": measure(), "seconds": time.monotonic() - began, "command": command, "versions": versions()}
    write_result(root, KIND, row)
    return row
