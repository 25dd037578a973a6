"""Measure classifiers: accuracy on real images of their classes, and probes of their features on other sets.

1. The outputs of a classifier on each set are computed once, and kept (see `raysd.evaluation.features`).
2. Rows are computed from these: of a test set by counting, of a transfer set by fitting probes, in parallel on Ray
   where there are many.

A row is named by the hash of classifier, set and settings, so a second run repeats nothing.
"""

import time
from collections.abc import Collection, Iterator
from copy import copy
from typing import Any

import numpy as np
import pyarrow as pa

from raysd.data.images import class_names
from raysd.errors import Failure, UserError, reason_of, try_again
from raysd.evaluation.extraction import Extraction, Kind
from raysd.evaluation.features import DecodedImages, extract
from raysd.evaluation.metrics import calibration_error, confusion_pairs, mean_per_class, per_class, top_k
from raysd.evaluation.models import EvaluatedModel, own_model
from raysd.evaluation.probes.probe import probe_memory, run_probe
from raysd.evaluation.settings import EvaluationSettings
from raysd.evaluation.tasks import ROW_VERSION, MeasuredOn, resolve_sets
from raysd.progress import Progress
from raysd.prompts.table import ClassTable
from raysd.statistics.images import bootstrap_interval, wilson_interval
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.row_types.measured import AccuracyRow, BegunRow, Counted, FailedRow, MeasuredRow
from raysd.storage.rows import ACCURACY, FAILED, find_row, write_row
from raysd.storage.tables import read_table, write_table
from raysd.versions import versions

PROBE_FILE = "probe.parquet"
MAX_DEATHS = 3  # of the process of a probe, after which it has failed
LIBRARY_BYTES = 3 * 10**8  # of a process that has torch and Ray
NODE_SHARE = 0.9  # of a node's memory, the most that a task asks for
PARALLEL_IMAGES = 20_000  # fewer to learn from in all, and Ray's start takes longer than the probes
TOP_5_CLASSES = 6  # the fewest for which a top-5 accuracy says something


class Evaluation:
    """Measures classifiers on the sets of one experiment.

    Args:
        root: the storage root, where rows go.
        settings: which sets.
        table: the classes; the labels of real images are mapped to them.
        command: the command that repeats the rows.
    """

    def __init__(self, root: Location, settings: EvaluationSettings, table: ClassTable, command: str) -> None:
        self.root, self.table, self.command = root, table, command
        self.sets, self.skipped = resolve_sets(root, settings, table)
        self._decoded = DecodedImages()

    def __getstate__(self) -> dict[str, Any]:
        """Leave decoded images behind: they are large, and another process decodes those that it needs."""
        return {**vars(self), "_decoded": DecodedImages()}

    def with_sets(self, sets: list[MeasuredOn]) -> "Evaluation":
        """Return the same evaluation with further sets."""
        return self.only([*self.sets, *sets])

    def only(self, sets: list[MeasuredOn]) -> "Evaluation":
        """Return the same evaluation with some of its sets."""
        part = copy(self)
        part.sets, part._decoded = sets, self._decoded
        return part

    def confined(self, roles: Collection[str]) -> "Evaluation":
        """Return the same evaluation with only the sets of some roles."""
        return self.only([measured for measured in self.sets if measured.role in roles])

    def measure(self, classifier: str, here: bool = False) -> list[MeasuredRow]:
        """Return all rows of one of raysd's classifiers, by its fingerprint. Rows that exist are not computed again.

        Args:
            classifier: its fingerprint.
            here: extract large sets in this process, too, and not with Ray Data actors.

        Raises:
            FileNotFoundError: no finished classifier.
        """
        return self.measure_all([own_model(self.root, classifier)], quiet=True, here=here)

    def measure_all(self, models: list[EvaluatedModel], quiet: bool = False, here: bool = False) -> list[MeasuredRow]:
        """Return all rows of some classifiers. A probe that fails gives a row without a value that says why, and is
        tried again next time.

        Args:
            models: the classifiers.
            quiet: no progress, and no Ray tasks for probes.
            here: extract large sets in this process, too.

        Raises:
            UserError: a classifier of other classes than the class table's, and sets that need these.
        """
        for model in models:
            self._check_classes(model)
        wanted = [(model, measured) for model in models for measured in self.sets]
        rows: dict[str, MeasuredRow | None] = {}
        for model, measured in wanted:
            found = self._found(key := self._key(model, measured))
            # The same images may have been measured under another name.
            rows[key] = found if found is None else {**found, "dataset": measured.images.name}
        todo = [pair for pair in wanted if rows[self._key(*pair)] is None]
        needed = [part for model, measured in todo for part in extractions(self.root, model, measured)]
        failed = extract(list({part.fingerprint: part for part in needed}.values()), self._decoded, quiet, here)
        for row in self._rows(todo, failed, quiet):
            rows[row["fingerprint"]] = row
            if row["value"] is None:
                write_row(self.root, FAILED, row)
            else:
                write_row(self.root, ACCURACY, row)
        return [row for row in rows.values() if row is not None]

    def is_measured(self, classifier: str) -> bool:
        """Return whether all rows of a classifier exist."""
        return all(self._found(key) is not None for key in self.row_fingerprints(classifier))

    def has_row(self, model: EvaluatedModel, measured: MeasuredOn) -> bool:
        """Return whether the row of a classifier on a set exists."""
        return self._found(self._key(model, measured)) is not None

    def row_fingerprints(self, classifier: str) -> list[str]:
        """Return the fingerprints of a classifier's rows, measured or not."""
        return [row_fingerprint(classifier, measured) for measured in self.sets]

    def _key(self, model: EvaluatedModel, measured: MeasuredOn) -> str:
        return row_fingerprint(model.fingerprint, measured)

    def _check_classes(self, model: EvaluatedModel) -> None:
        num_classes = len(model.outputs) if model.outputs is not None else model.num_outputs
        if num_classes != len(self.table) and any(measured.train is None for measured in self.sets):
            raise UserError(
                "classes",
                len(self.table),
                f"the classifier {model.fingerprint} has {num_classes} classes; name the class table it was made for",
            )

    def _found(self, key: str) -> AccuracyRow | None:
        return find_row(self.root, ACCURACY, key)

    def _rows(
        self, todo: list[tuple[EvaluatedModel, MeasuredOn]], failed: dict[str, UserError | Failure], quiet: bool
    ) -> Iterator[MeasuredRow]:
        """Yield each row as soon as it is ready."""
        ready = []
        for model, measured in todo:
            arguments = (self.root, model, measured, self.command, self.table.names)
            errors = [
                failed[part.fingerprint]
                for part in extractions(self.root, model, measured)
                if part.fingerprint in failed
            ]
            if errors:
                yield failed_row(*arguments, errors[0])
            elif measured.train is None:
                yield measure_row(*arguments)
            else:
                ready.append(arguments)
        num_images = sum(len(part) for each in ready for part in extractions(*each[:3])[0].parts)
        if quiet or len(ready) < 2 or num_images < PARALLEL_IMAGES:
            yield from (measure_row(*each) for each in ready)
            return
        with Progress("probes", len(ready), "probes") as progress:
            for row in _rows_on_ray(ready):
                progress.advance(1)
                yield row


def row_fingerprint(classifier: str, measured: MeasuredOn) -> str:
    """Return the hash that names the row of a classifier on a set."""
    return fingerprint({"classifier": classifier, **measured.identity()})


def extractions(root: Location, model: EvaluatedModel, measured: MeasuredOn) -> list[Extraction]:
    """Return the extractions that a row needs: predictions, or the features to train a probe on and to test it on."""
    kind: Kind = "predictions" if measured.train is None else "features"
    sets = [measured.images] if measured.train is None else [measured.train, measured.images]
    return [Extraction(root, model, images, kind, measured.shared) for images in sets]


def _rows_on_ray(arguments: list[tuple[Any, ...]]) -> Iterator[MeasuredRow]:
    """Run a Ray task for each probe; each reserves the memory that its features take while the probe is fitted. Ray
    tries a task whose process dies a few times again; if it dies each time, the others go on."""
    import ray
    from ray.exceptions import RayError

    from raysd.cluster.session import cluster_gpus, ensure_ray

    ensure_ray()
    most = NODE_SHARE * max(node["Resources"].get("memory", 0.0) for node in ray.nodes())  # more would wait for ever
    task = ray.remote(num_cpus=1, num_gpus=1 if cluster_gpus() else 0, max_retries=MAX_DEATHS)(_measure_row_alone)
    tasks = {task.options(memory=int(min(probe_bytes(*each[:3]), most))).remote(*each): each for each in arguments}
    pending = list(tasks)
    while pending:
        (done,), pending = ray.wait(pending, num_returns=1)
        try:
            row = ray.get(done)
        except RayError as error:
            root, model, measured, command, class_names = tasks[done]
            row = failed_row(root, model, measured, command, class_names, Failure(reason_of(error)))
        yield row


def probe_bytes(root: Location, model: EvaluatedModel, measured: MeasuredOn) -> int:
    """Return the memory that a probe takes at most, once its features are there."""
    assert measured.train is not None and measured.probe is not None
    learnt, tested = extractions(root, model, measured)
    names = class_names(measured.train)
    return LIBRARY_BYTES + probe_memory(
        sum(map(len, learnt.parts)), sum(map(len, tested.parts)), learnt.dimensions(), len(names), measured.probe
    )


def _measure_row_alone(*arguments: Any) -> MeasuredRow:
    import torch

    torch.set_num_threads(1)
    return measure_row(*arguments)


def measure_row(
    root: Location, model: EvaluatedModel, measured: MeasuredOn, command: str, class_names: list[str]
) -> MeasuredRow:
    """Return the row of a classifier on a set, computed from its extractions."""
    began, begun = time.monotonic(), _begun_row(model, measured, command)
    try:
        row = try_again(
            lambda: (
                _measure_test(root, model, measured, begun, class_names)
                if measured.train is None
                else _measure_probe(root, model, measured, begun)
            )
        )
    except (UserError, Failure) as error:
        return failed_row(root, model, measured, command, class_names, error)
    return {**row, "seconds": time.monotonic() - began}


def failed_row(
    root: Location,
    model: EvaluatedModel,
    measured: MeasuredOn,
    command: str,
    class_names: list[str],
    error: UserError | Failure,
) -> FailedRow:
    """Return a row without a value that says why it failed."""
    return {
        **_begun_row(model, measured, command),
        "value": None,
        "low": None,
        "high": None,
        "num_images": None,
        "per_class": None,
        "error": str(error),
    }


def _begun_row(model: EvaluatedModel, measured: MeasuredOn, command: str) -> BegunRow:
    images = measured.images
    return {
        "fingerprint": row_fingerprint(model.fingerprint, measured),
        "version": ROW_VERSION,
        "role": measured.role,
        "dataset": images.name,
        "dataset_fingerprint": images.fingerprint,
        "shots": measured.shots,
        "probe_label": measured.label,
        "metric": measured.metric,
        "classifier": model.fingerprint,
        "seed": model.about["seed"],
        "backbone": model.about["backbone"],
        "trained_on": model.about["trained_on"],
        "num_left_out": measured.num_left_out,
        "class_names": None,
        "command": command,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _measure_test(
    root: Location, model: EvaluatedModel, measured: MeasuredOn, begun: BegunRow, class_names: list[str]
) -> AccuracyRow:
    (extraction,) = extractions(root, model, measured)
    stored = extraction.read()
    table = {name: stored[name].to_numpy() for name in stored.column_names}
    num_classes = len(class_names)
    result = _counted(table["label"], table["rank"], table["confidence"], num_classes)
    low, high = wilson_interval(result["value"], len(table["label"]))
    found: AccuracyRow = {
        **begun,
        **result,
        "low": low,
        "high": high,
        "num_images": len(table["label"]),
        "predictions": f"predictions/{extraction.fingerprint}",
        "per_class": per_class(table["label"], table["rank"] == 0, num_classes),
        "class_names": class_names,
        "confusions": [
            {"label": class_names[label], "prediction": class_names[prediction], "count": count}
            for label, prediction, count in confusion_pairs(table["label"], table["prediction"])
        ],
    }
    if measured.shared is not None:
        masked = _counted(table["label"], table["shared_rank"], table["shared_confidence"], len(measured.shared))
        low, high = wilson_interval(masked["value"], len(table["label"]))
        found["masked"] = {**masked, "low": low, "high": high, "num_classes": len(measured.shared)}
    return found


def _counted(labels: np.ndarray, rank: np.ndarray, confidence: np.ndarray, num_classes: int) -> Counted:
    """Return accuracies in percent of predictions over `num_classes` classes."""
    return {
        "value": top_k(rank, 1),
        "top5": top_k(rank, 5) if num_classes >= TOP_5_CLASSES else None,
        "mean_per_class": mean_per_class(labels, rank == 0, int(labels.max()) + 1),
        "calibration_error": calibration_error(confidence, rank == 0),
    }


def _measure_probe(root: Location, model: EvaluatedModel, measured: MeasuredOn, begun: BegunRow) -> AccuracyRow:
    assert measured.probe is not None
    key = begun["fingerprint"]
    learn, check = (extraction.read_features() for extraction in extractions(root, model, measured))
    seeds = measured.seeds or (model.about["seed"],)
    results = [run_probe(learn, check, measured.probe, seed, measured.shots) for seed in seeds]
    columns = {f"prediction_{seed}": result.predictions for seed, result in zip(seeds, results, strict=True)}
    write_table(root.child("predictions", key), PROBE_FILE, pa.table({"label": check[1], **columns}))
    correct = np.mean([result.predictions == check[1] for result in results], axis=0)
    values = {
        "top1": [result.top1 for result in results],
        "mean_per_class": [result.mean_per_class for result in results],
    }
    value = float(np.mean(values[measured.metric]))
    if measured.metric == "top1":
        low, high = wilson_interval(value, len(correct))
    else:  # each image counts by the size of its class, so that the mean over images is the one over classes
        _, places, counts = np.unique(check[1], return_inverse=True, return_counts=True)
        low, high = bootstrap_interval(correct * len(correct) / (len(counts) * counts[places]))
    return {
        **begun,
        "per_class": None,
        "value": value,
        "low": low,
        "high": min(100.0, high),
        "top1": float(np.mean(values["top1"])),
        "mean_per_class": float(np.mean(values["mean_per_class"])),
        "num_images": len(check[1]),
        "num_features": learn[0].shape[1],
        "predictions": f"predictions/{key}",
        "probe": {**measured.probe.model_dump(), "scale": measured.probe.used_scale},
        "probe_seeds": [
            {"seed": seed, **result.chosen, "top1": result.top1} for seed, result in zip(seeds, results, strict=True)
        ],
    }


def read_correct(root: Location, row: AccuracyRow) -> np.ndarray:
    """Return whether each image of a row's set was classified correctly, float [N], in the set's order; the mean over
    seeds where a probe has several."""
    folder = root.child(*row["predictions"].split("/"))
    tables = [read_table(folder, name) for name in folder.list_files(".parquet")]
    table = pa.concat_tables(tables)
    if "rank" in table.column_names:
        return (table["rank"].to_numpy() == 0).astype(np.float64)
    labels = table["label"].to_numpy()
    guesses = [table[name].to_numpy() for name in table.column_names if name.startswith("prediction_")]
    return np.mean([guess == labels for guess in guesses], axis=0)
